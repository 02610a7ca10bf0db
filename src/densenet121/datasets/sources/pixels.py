"""Images that a source keeps as pixels: arrays of grey or RGB images of one size."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.decoding import MAX_PIXELS

# (N, H, W) grey or (N, H, W, 3) RGB
Pixels = NDArray[np.uint8]


def is_pixels(shape: tuple[int, ...]) -> bool:
    """Whether arrays of this shape are images."""
    if len(shape) not in (3, 4) or shape[3:] not in ((), (3,)):
        return False
    return 0 < shape[1] * shape[2] <= MAX_PIXELS


def reader(images: Pixels) -> Callable[[int], NDArray[np.uint8]]:
    """The function that gives an image as ``(H, W, 3)`` RGB; grey is in all three channels."""

    def read_one(index: int) -> NDArray[np.uint8]:
        image = np.ascontiguousarray(images[index])
        if image.ndim == 2:
            return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), dtype=np.uint8)
        return image

    return read_one


def sizes(images: Pixels) -> NDArray[np.int64]:
    """``(N,)``: the bytes of each image."""
    return np.full(len(images), int(np.prod(images.shape[1:])), dtype=np.int64)
