"""The original's operations on ``(H, W, 3)`` uint8 RGB arrays, one after the other, with OpenCV.

"The original" is MindSpore's dataset engine as called by DenseNet121's
src/datasets/classification.py; its operations are the same OpenCV calls as here
(minddata/dataset/kernels/image). This is the reference for the image kernel (native/images), whose
results are equal bit for bit.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_LEVELS = np.arange(256, dtype=np.float64)
BRIGHTNESS, CONTRAST, SATURATION = range(3)


@dataclass(frozen=True)
class Operations:
    """The operations on one image, in this order.

    Attributes:
        crop: top, left, height, width of the crop.
        resized: height and width that the crop is resized to.
        window: top, left, height, width of a second crop, after resizing.
        flip: whether left and right are exchanged.
        steps: (BRIGHTNESS, CONTRAST or SATURATION, factor) of each colour adjustment.
    """

    crop: tuple[int, int, int, int]
    resized: tuple[int, int]
    window: tuple[int, int, int, int]
    flip: bool = False
    steps: tuple[tuple[int, float], ...] = ()


def apply(operations: Operations, image: Pixels) -> Pixels:
    """``image`` after the ``operations``; may be a view of ``image``."""
    top, left, height, width = operations.crop
    image = resize(image[top : top + height, left : left + width], *operations.resized)
    top, left, height, width = operations.window
    image = image[top : top + height, left : left + width]
    if operations.flip:
        image = flip(image)
    for step, factor in operations.steps:
        image = (adjust_brightness, adjust_contrast, adjust_saturation)[step](image, factor)
    return image


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """Bilinear without antialiasing, half-pixel centres (the original's Resize, Inter.LINEAR)."""
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def flip(image: Pixels) -> Pixels:
    """Exchange left and right (the original's RandomHorizontalFlip)."""
    return np.asarray(cv2.flip(image, 1), dtype=np.uint8)


def adjust_brightness(image: Pixels, factor: float) -> Pixels:
    """``rint(x * factor)`` in 0..255 (the original's AdjustBrightness)."""
    return _look_up(image, _LEVELS * factor)


def adjust_contrast(image: Pixels, factor: float) -> Pixels:
    """``rint(x * factor + m * (1 - factor))``, m the mean grey (the original's AdjustContrast)."""
    mean = int(cv2.mean(_grey(image))[0] + 0.5)
    return _look_up(image, _LEVELS * factor + mean * (1 - factor))


def adjust_saturation(image: Pixels, factor: float) -> Pixels:
    """``rint(x * factor + L * (1 - factor))``, L the grey (the original's AdjustSaturation)."""
    grey = cv2.cvtColor(_grey(image), cv2.COLOR_GRAY2RGB)
    mixed = cv2.addWeighted(image, factor, grey, 1 - factor, 0)
    return np.asarray(mixed, dtype=np.uint8)


def _grey(image: Pixels) -> Pixels:
    """``0.299 R + 0.587 G + 0.114 B``, rounded.

    From OpenCV, as in the original. Pillow's mode "L" differs by 1 for 0.13 % of the 2**24 colours.
    """
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _look_up(image: Pixels, levels: NDArray[np.float64]) -> Pixels:
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table), dtype=np.uint8)
