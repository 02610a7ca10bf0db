"""The original's preprocessing, on ``(H, W, 3)`` uint8 RGB arrays and in its order.

Training: random crop, resize, flip, colour. Evaluation: resize, centre crop. Both: normalise, which
is done here for a whole batch, on the device. Everything is a pure function: what is random comes
from the numbers ``u`` that :func:`uniforms` draws for one image.

What an image goes through is worked out first, as a ``Operations``, from its size and its random
numbers; ``apply`` (operations.py) does it, plainly, and preparation.py does the same in one go,
to the bit.
"""

import math
import re
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from densenet121.datasets.decoding import MAX_PIXELS
from densenet121.datasets.operations import Operations, Pixels, apply
from densenet121.utils.errors import InputError

# ImageNet's, for pixels in 0..255: the original's classification.py.
MEAN = torch.tensor([0.485 * 255, 0.456 * 255, 0.406 * 255], dtype=torch.float32)
STD = torch.tensor([0.229 * 255, 0.224 * 255, 0.225 * 255], dtype=torch.float32)

# What each of an image's random numbers is for. Fixed, so that leaving one step out does not
# change another.
_ATTEMPTS = 10
_TOP, _LEFT, _FLIP, _ORDER, _FACTORS = 20, 21, 22, 23, 24  # 0..19: area and ratio of each attempt
_NUM_UNIFORMS = 32

# torchvision's Resize of an image and timm's are Pillow's, which antialiases but for "nearest".
_PILLOW = {
    "pillow_bilinear": Image.Resampling.BILINEAR,
    "pillow_bicubic": Image.Resampling.BICUBIC,
    "pillow_nearest": Image.Resampling.NEAREST,
}

_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


def uniforms(seed: int, epoch: int, index: int) -> NDArray[np.float64]:
    """The 32 random numbers in ``[0, 1)`` of one image in one epoch.

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
    """Crop, resize, flip and colour of a training image (the original's training transforms).

    Attributes:
        height: of the result, in pixels.
        width: of the result, in pixels.
        crop_scale: smallest and largest share of the image's area.
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

    def operations(self, height: int, width: int, u: NDArray[np.float64]) -> Operations:
        """What to do to a ``height`` x ``width`` image, for the numbers of :func:`uniforms`."""
        steps = []
        for step in _ORDERS[int(u[_ORDER] * 6)]:
            amount = self.color_jitter[step]
            if amount > 0:
                low = max(0.0, 1 - amount)
                steps.append((step, low + float(u[_FACTORS + step]) * (1 + amount - low)))
        return Operations(
            crop=crop_box(u, height, width, self.crop_scale, self.crop_ratio),
            resized=(self.height, self.width),
            window=(0, 0, self.height, self.width),
            flip=bool(u[_FLIP] < self.flip_prob),
            steps=tuple(steps),
        )

    def __call__(self, image: Pixels, u: NDArray[np.float64]) -> Pixels:
        """The ``(height, width, 3)`` training image for the numbers ``u`` of :func:`uniforms`."""
        height, width = image.shape[:2]
        return apply(self.operations(height, width, u), image)


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


@dataclass(frozen=True)
class Resize:
    """What evaluation resizes an image to, before the centre crop.

    Attributes:
        size: height and width, whatever the image's shape; or the length of its shorter side.
    """

    size: tuple[int, int] | int

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a resized ``height`` x ``width`` image.

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
                f"`eval_resize` {self} makes {width} x {height} pixels, at most {MAX_PIXELS} are "
                "allowed"
            )
        return height, width

    def __str__(self) -> str:
        """As ``parse_eval_resize`` reads it."""
        return f"short:{self.size}" if isinstance(self.size, int) else _sides(*self.size)


def parse_eval_resize(text: str) -> Resize:
    """From ``256`` (256 x 256, as the original), ``256,300`` (height, width) or ``short:256``.

    Raises:
        InputError: the text is none of these.
    """
    found = re.fullmatch(r"(short:)?([1-9][0-9]{0,4})|([1-9][0-9]{0,4}),([1-9][0-9]{0,4})", text)
    if found is None:
        raise InputError(
            '`eval_resize` must be "256" (both sides), "256,300" (height,width) or "short:256" '
            f'(the shorter side), got "{text}"'
        )
    short, side, height, width = found.groups()
    if height is not None:
        return Resize((int(height), int(width)))
    return Resize(int(side)) if short else Resize((int(side), int(side)))


@dataclass(frozen=True)
class EvalTransform:
    """Resize and centre crop of an evaluation image (the original's Resize, CenterCrop).

    Attributes:
        height: of the result, in pixels.
        width: of the result, in pixels.
        resize: to what before the crop; the original: 256 x 256, which distorts.
        interpolation: opencv_bilinear as the original; or with Pillow, as torchvision and timm do,
            pillow_bilinear, pillow_bicubic (both antialiased) or pillow_nearest. With Pillow the
            crop's corner is rounded as theirs, half to even.

    Raises:
        InputError: the crop cannot fit into any, or into this, resized image.
    """

    height: int
    width: int
    resize: Resize
    interpolation: str = "opencv_bilinear"

    def __post_init__(self) -> None:
        """Refuse what is known to be wrong before any image is read."""
        if self.interpolation != "opencv_bilinear" and self.interpolation not in _PILLOW:
            raise InputError(
                f"`interpolation` must be opencv_bilinear, {', '.join(_PILLOW)}, "
                f'got "{self.interpolation}"'
            )
        if isinstance(self.resize.size, tuple):
            self._check_fit(*self.resize.shape(1, 1))
        elif self.resize.size < min(self.height, self.width):
            self._check_fit(self.resize.size, self.resize.size)

    def _check_fit(self, height: int, width: int) -> None:
        if height < self.height or width < self.width:
            raise InputError(
                f"`eval_resize` {self.resize} is smaller than "
                f"`image_size` {_sides(self.height, self.width)}"
            )

    @property
    def by_pillow(self) -> bool:
        """Whether Pillow resizes; ``operations`` is not for that."""
        return self.interpolation != "opencv_bilinear"

    def operations(self, height: int, width: int) -> Operations:
        """What to do to a ``height`` x ``width`` image.

        Raises:
            InputError: the crop does not fit into the resized image.
        """
        resized = self.resize.shape(height, width)
        self._check_fit(*resized)
        # With Pillow the crop's corner is rounded as torchvision and timm do.
        top, left = (
            round((outer - inner) / 2) if self.by_pillow else (outer - inner) // 2
            for outer, inner in zip(resized, (self.height, self.width), strict=True)
        )
        return Operations((0, 0, height, width), resized, (top, left, self.height, self.width))

    def __call__(self, image: Pixels) -> Pixels:
        """The ``(height, width, 3)`` evaluation image; may be a view of the resized one."""
        operations = self.operations(*image.shape[:2])
        if not self.by_pillow:
            return apply(operations, image)
        resized = Image.fromarray(image).resize(
            operations.resized[::-1], _PILLOW[self.interpolation]
        )
        top, left, height, width = operations.window
        return np.asarray(resized)[top : top + height, left : left + width]


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
