"""The original's preprocessing, on ``(H, W, 3)`` uint8 RGB arrays and in its order.

Training: random crop, resize, flip, colour. Evaluation: resize, centre crop. Both: normalise, which
is done here for a whole batch, on the device. Everything is a pure function: what is random comes
from the numbers ``u`` that :func:`uniforms` draws for one picture.

"The original" is MindSpore's dataset engine as DenseNet121's src/datasets/classification.py calls
it; its operations are OpenCV calls (minddata/dataset/kernels/image), the same ones as here.
"""

import math
import re
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from densenet121.datasets.images import MAX_PIXELS
from densenet121.utils.errors import InputError

Pixels = NDArray[np.uint8]

# ImageNet's, for pixels in 0..255: the original's classification.py.
MEAN = torch.tensor([0.485 * 255, 0.456 * 255, 0.406 * 255], dtype=torch.float32)
STD = torch.tensor([0.229 * 255, 0.224 * 255, 0.225 * 255], dtype=torch.float32)

# What each of a picture's random numbers is for. Fixed, so that leaving one step out does not
# change another.
_ATTEMPTS = 10
_TOP, _LEFT, _FLIP, _ORDER, _FACTORS = 20, 21, 22, 23, 24  # 0..19: area and ratio of each attempt
_NUM_UNIFORMS = 32

# torchvision's Resize of a picture and timm's are Pillow's, which antialiases but for "nearest".
_PILLOW = {
    "pillow_bilinear": Image.Resampling.BILINEAR,
    "pillow_bicubic": Image.Resampling.BICUBIC,
    "pillow_nearest": Image.Resampling.NEAREST,
}

_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
_LEVELS = np.arange(256, dtype=np.float64)


def uniforms(seed: int, epoch: int, index: int) -> NDArray[np.float64]:
    """The 32 random numbers in ``[0, 1)`` of one picture in one epoch.

    Philox4x64 keyed by (seed, epoch), counting from index * 2**192: no two triples share a block,
    whichever thread or process asks. From the raw bits, as numpy may change its Generator's methods
    but not a bit generator's stream. The upper half of the epochs is left to other uses of the
    seed (datasets/sampler.py).
    """
    if not (0 <= seed < 2**64 and 0 <= epoch < 2**63 and 0 <= index < 2**64):
        raise ValueError(f"seed {seed}, epoch {epoch}, index {index}: outside 0..2**64 or 2**63")
    key = np.array([seed, epoch], dtype=np.uint64)
    counter = np.array([0, 0, 0, index], dtype=np.uint64)
    raw = np.random.Philox(key=key, counter=counter).random_raw(_NUM_UNIFORMS)
    return np.asarray((raw >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


@dataclass(frozen=True)
class TrainTransform:
    """Crop, resize, flip and colour of a training picture (the original's training transforms).

    Attributes:
        height: of the result, in pixels.
        width: of the result, in pixels.
        crop_scale: smallest and largest share of the picture's area.
        crop_ratio: smallest and largest width / height of the crop.
        flip_prob: probability of a left-right flip.
        color_jitter: brightness, contrast, saturation: each factor is uniform in
            ``[max(0, 1 - amount), 1 + amount]``; 0 leaves the step out.
    """

    height: int
    width: int
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 1.333)
    flip_prob: float = 0.5
    color_jitter: tuple[float, float, float] = (0.4, 0.4, 0.4)

    def __call__(self, image: Pixels, u: NDArray[np.float64]) -> Pixels:
        """The ``(height, width, 3)`` training picture for the numbers ``u`` of :func:`uniforms`."""
        height, width = image.shape[:2]
        top, left, h, w = crop_box(u, height, width, self.crop_scale, self.crop_ratio)
        image = resize(image[top : top + h, left : left + w], self.height, self.width)
        if u[_FLIP] < self.flip_prob:
            image = flip(image)
        for step in _ORDERS[int(u[_ORDER] * 6)]:
            amount = self.color_jitter[step]
            if amount > 0:
                low = max(0.0, 1 - amount)
                factor = low + float(u[_FACTORS + step]) * (1 + amount - low)
                image = (adjust_brightness, adjust_contrast, adjust_saturation)[step](image, factor)
        return image


def crop_box(
    u: NDArray[np.float64],
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """Top, left, height, width of a random crop (the original's RandomCropAndResizeOp::GetCropBox).

    The area is uniform in ``scale``, the logarithm of width / height uniform in ``ratio``. After
    ten crops that do not fit, the largest centred one whose shape is within ``ratio``.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for attempt in range(_ATTEMPTS):
        area = height * width * (scale[0] + float(u[2 * attempt]) * (scale[1] - scale[0]))
        aspect = math.exp(low + float(u[2 * attempt + 1]) * (high - low))
        w = _at_least_1(math.sqrt(area * aspect))
        h = _at_least_1(w / aspect)  # from the rounded w, unlike torchvision
        if w <= width and h <= height:
            top = int(float(u[_TOP]) * (height - h + 1))
            left = int(float(u[_LEFT]) * (width - w + 1))
            return top, left, h, w
    h, w = height, width
    if width / height < ratio[0]:
        h = min(height, _at_least_1(width / ratio[0]))
    elif width / height > ratio[1]:
        w = min(width, _at_least_1(height * ratio[1]))
    return (height - h + 1) // 2, (width - w + 1) // 2, h, w


def _at_least_1(size: float) -> int:
    """``size`` rounded as C++'s std::round, but at least one pixel."""
    return max(1, math.floor(size + 0.5))


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """Bilinear without antialiasing, half-pixel centres (the original's Resize, Inter.LINEAR)."""
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def flip(image: Pixels) -> Pixels:
    """Left and right exchanged (the original's RandomHorizontalFlip)."""
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

    OpenCV's, which is what the original calls. Pillow's mode "L" differs by 1 for 0.13 % of the
    2**24 colours.
    """
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _look_up(image: Pixels, levels: NDArray[np.float64]) -> Pixels:
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table), dtype=np.uint8)


@dataclass(frozen=True)
class Resize:
    """What evaluation resizes a picture to, before the centre crop.

    Attributes:
        size: height and width, whatever the picture's shape; or the length of its shorter side.
    """

    size: tuple[int, int] | int

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a resized ``height`` x ``width`` picture.

        The longer side is truncated as in torchvision's Resize.

        Raises:
            InputError: the result would have too many pixels.
        """
        if isinstance(self.size, tuple):
            height, width = self.size
        elif width <= height:
            height, width = int(self.size * height / width), self.size
        else:
            height, width = self.size, int(self.size * width / height)
        if height * width > MAX_PIXELS:
            raise InputError(
                f"--eval_resize {self} makes {width} x {height} pixels, at most {MAX_PIXELS} are "
                "allowed"
            )
        return height, width

    def __str__(self) -> str:
        """As it is written after --eval_resize."""
        return f"short:{self.size}" if isinstance(self.size, int) else _sides(*self.size)


def parse_eval_resize(text: str) -> Resize:
    """From ``256`` (256 x 256, as the original), ``256,300`` (height, width) or ``short:256``.

    Raises:
        InputError: the text is none of these.
    """
    found = re.fullmatch(r"(short:)?([1-9][0-9]{0,4})|([1-9][0-9]{0,4}),([1-9][0-9]{0,4})", text)
    if found is None:
        raise InputError(
            '--eval_resize must be "256" (both sides), "256,300" (height,width) or "short:256" '
            f'(the shorter side), got "{text}"'
        )
    short, side, height, width = found.groups()
    if height is not None:
        return Resize((int(height), int(width)))
    return Resize(int(side)) if short else Resize((int(side), int(side)))


@dataclass(frozen=True)
class EvalTransform:
    """Resize and centre crop of an evaluation picture (the original's Resize, CenterCrop).

    Attributes:
        height: of the result, in pixels.
        width: of the result, in pixels.
        resize: to what before the crop; the original: 256 x 256, which distorts.
        interpolation: opencv_bilinear as the original; or with Pillow, as torchvision and timm do,
            pillow_bilinear, pillow_bicubic (both antialiased) or pillow_nearest. With Pillow the
            crop's corner is rounded as theirs, half to even.

    Raises:
        InputError: the crop cannot fit into any, or into this, resized picture.
    """

    height: int
    width: int
    resize: Resize
    interpolation: str = "opencv_bilinear"

    def __post_init__(self) -> None:
        """Refuse what is known to be wrong before any picture is read."""
        if self.interpolation != "opencv_bilinear" and self.interpolation not in _PILLOW:
            raise InputError(
                f"--interpolation must be opencv_bilinear, {', '.join(_PILLOW)}, "
                f'got "{self.interpolation}"'
            )
        if isinstance(self.resize.size, tuple):
            self._check_fit(*self.resize.shape(1, 1))
        elif self.resize.size < min(self.height, self.width):
            self._check_fit(self.resize.size, self.resize.size)

    def _check_fit(self, height: int, width: int) -> None:
        if height < self.height or width < self.width:
            raise InputError(
                f"--eval_resize {self.resize} is smaller than "
                f"--image_size {_sides(self.height, self.width)}"
            )

    def __call__(self, image: Pixels) -> Pixels:
        """The ``(height, width, 3)`` evaluation picture; may be a view of the resized one."""
        height, width = self.resize.shape(*image.shape[:2])
        self._check_fit(height, width)
        if self.interpolation == "opencv_bilinear":
            top, left = (height - self.height) // 2, (width - self.width) // 2
            image = resize(image, height, width)
        else:
            top, left = round((height - self.height) / 2), round((width - self.width) / 2)
            picture = Image.fromarray(image).resize((width, height), _PILLOW[self.interpolation])
            image = np.asarray(picture)
        return image[top : top + self.height, left : left + self.width]


def _sides(height: int, width: int) -> str:
    return str(height) if height == width else f"{height},{width}"


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``(x - mean) / std`` in float32, on the images' device (the original's Normalize, HWC2CHW).

    Args:
        images: ``(N, H, W, C)`` uint8.
        mean: ``(C,)``, in grey levels; on the images' device it need not be copied there.
        std: ``(C,)``, likewise.

    Returns:
        ``(N, C, H, W)`` float32 in channels_last strides.
    """
    N, H, W, C = images.shape
    # One mean and std a row of pixels: with C innermost, torch would loop over C = 3 values.
    mean, std = (t.to(images.device, torch.float32).repeat(W) for t in (mean, std))
    x = images.reshape(N, H, W * C).sub(mean).div_(std)
    return x.view(N, H, W, C).permute(0, 3, 1, 2)
