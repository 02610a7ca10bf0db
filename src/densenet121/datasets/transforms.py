"""The original's preprocessing, on ``(H, W, 3)`` uint8 RGB arrays and in its order.

Training: random crop, resize, flip, colour, and then what the original does not have
(augmentation.py). Evaluation: resize, centre crop. Both: normalise, which is done here for a whole
batch, on the device. Everything is a pure function: all randomness comes from the numbers ``u``
that :func:`uniforms` draws for one image.

The ``Operations`` of an image are computed first, from its size and its random numbers. ``apply``
(operations.py) performs them one by one; preparation.py performs them in one pass, with the same
result bit for bit.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from densenet121.datasets.augmentation import NUM_UNIFORMS, Augmentation
from densenet121.datasets.eval_resize import Resize, sides
from densenet121.datasets.operations import Operations, Pixels, apply, resize
from densenet121.datasets.reading import AS_BYTES, Reading
from densenet121.utils.errors import InputError

# Those of ImageNet, for pixels in 0..255, from the original's classification.py.
MEAN = torch.tensor([0.485 * 255, 0.456 * 255, 0.406 * 255], dtype=torch.float32)
STD = torch.tensor([0.229 * 255, 0.224 * 255, 0.225 * 255], dtype=torch.float32)

# The use of each random number of an image. Fixed, so that disabling one step does not change
# another. Those from 32 on are of augmentation.py.
_ATTEMPTS = 10
_TOP, _LEFT, _FLIP, _ORDER, _FACTORS = 20, 21, 22, 23, 24  # 0..19: area and ratio of each attempt
_OWN_UNIFORMS = 32

# torchvision and timm resize with Pillow, which antialiases except for "nearest".
_PILLOW = {
    "pillow_bilinear": Image.Resampling.BILINEAR,
    "pillow_bicubic": Image.Resampling.BICUBIC,
    "pillow_nearest": Image.Resampling.NEAREST,
}

_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


def uniforms(seed: int, epoch: int, index: int, count: int = _OWN_UNIFORMS) -> NDArray[np.float64]:
    """The first ``count`` random numbers in ``[0, 1)`` of one image in one epoch.

    Philox4x64 keyed by (seed, epoch), counting from index * 2**192: no two triples share a block,
    in any thread or process. The raw bits are used because numpy may change the methods of its
    Generator but not the stream of a bit generator. The upper half of the epochs is reserved for
    other uses of the seed (datasets/sampler.py).
    """
    if not (0 <= seed < 2**64 and 0 <= epoch < 2**63 and 0 <= index < 2**64):
        raise ValueError(
            f"seed {seed}, epoch {epoch} or index {index} is outside its range: "
            "0 to 2**64 - 1, for the epoch 0 to 2**63 - 1"
        )
    key = np.array([seed, epoch], dtype=np.uint64)
    counter = np.array([0, 0, 0, index], dtype=np.uint64)
    raw = np.random.Philox(key=key, counter=counter).random_raw(count)
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
            ``[max(0, 1 - amount), 1 + amount]``; 0 disables the step.
        after: the steps after these.
        reading: how the file is decoded.
        grey: whether colours become grey before anything else.
    """

    height: int
    width: int
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 1.333)
    flip_prob: float = 0.5
    color_jitter: tuple[float, float, float] = (0.4, 0.4, 0.4)
    after: Augmentation = Augmentation()  # noqa: RUF009 (frozen)
    reading: Reading = AS_BYTES
    grey: bool = False

    @property
    def num_uniforms(self) -> int:
        """How many random numbers an image needs."""
        return NUM_UNIFORMS if self.after.is_on else _OWN_UNIFORMS

    def operations(self, height: int, width: int, u: NDArray[np.float64]) -> Operations:
        """Operations before ``after`` on an image of this size, for the numbers ``u``."""
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
        image = apply(self.operations(height, width, u), image)
        return self.after(image, u) if self.after.is_on else image


def crop_box(
    u: NDArray[np.float64],
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """Top, left, height, width of a random crop (the original's RandomCropAndResizeOp::GetCropBox).

    The area is uniform in ``scale``, the logarithm of width / height uniform in ``ratio``. If ten
    crops do not fit, the result is the largest centred crop whose shape is within ``ratio``. Where
    the area must be the whole image's and its shape is within ``ratio``, it is the whole image; the
    original takes a row or a column off where rounding makes a drawn shape fit.
    """
    if scale[0] >= 1 and ratio[0] <= width / height <= ratio[1]:
        return 0, 0, height, width
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
    """``size`` rounded like C++'s std::round, but at least one pixel."""
    return max(1, math.floor(size + 0.5))


@dataclass(frozen=True)
class EvalTransform:
    """Resize and centre crop of an evaluation image (the original's Resize, CenterCrop).

    Attributes:
        height: of the result, in pixels.
        width: of the result, in pixels.
        resize: size before the crop; the original's is 256 x 256, which distorts.
        interpolation: opencv_bilinear as in the original; or with Pillow, as in torchvision and
            timm, pillow_bilinear, pillow_bicubic (both antialiased) or pillow_nearest. With Pillow
            the crop's corner is also rounded like theirs, half to even.
        reading: how the file is decoded.
        fill: R, G, B around an image that is padded.
        grey: whether colours become grey before anything else.

    Raises:
        InputError: the crop cannot fit into a resized image.
    """

    height: int
    width: int
    resize: Resize
    interpolation: str = "opencv_bilinear"
    reading: Reading = AS_BYTES
    fill: tuple[int, int, int] = (0, 0, 0)
    grey: bool = False

    def __post_init__(self) -> None:
        """Refuse invalid values before any image is read."""
        if self.interpolation != "opencv_bilinear" and self.interpolation not in _PILLOW:
            raise InputError(
                f"`interpolation` must be one of opencv_bilinear, {', '.join(_PILLOW)}, "
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
                f"`image_size` {sides(self.height, self.width)}"
            )

    @property
    def by_pillow(self) -> bool:
        """Whether Pillow resizes; then ``apply`` cannot be used."""
        return self.interpolation != "opencv_bilinear"

    @property
    def in_one_pass(self) -> bool:
        """Whether ``operations`` are all that happens to an image."""
        return not (self.by_pillow or self.resize.pad)

    def operations(self, height: int, width: int) -> Operations:
        """Operations on a ``height`` x ``width`` image.

        Raises:
            InputError: the crop does not fit into the resized image.
        """
        resized = self.resize.shape(height, width)
        self._check_fit(*resized)
        # With Pillow the crop's corner is rounded like in torchvision and timm.
        top, left = (
            round((outer - inner) / 2) if self.by_pillow else (outer - inner) // 2
            for outer, inner in zip(resized, (self.height, self.width), strict=True)
        )
        return Operations((0, 0, height, width), resized, (top, left, self.height, self.width))

    def __call__(self, image: Pixels) -> Pixels:
        """The ``(height, width, 3)`` evaluation image; may be a view of the resized one."""
        operations = self.operations(*image.shape[:2])
        if self.in_one_pass:
            return apply(operations, image)
        top, left, height, width = operations.window
        return self._canvas(image, operations)[top : top + height, left : left + width]

    def resized(self, image: Pixels) -> Pixels:
        """The resized image, without crop and without what is filled in around it."""
        height, width = self.resize.inner(*image.shape[:2])
        if not self.by_pillow:
            return resize(image, height, width)
        size = (width, height)
        return np.asarray(Image.fromarray(image).resize(size, _PILLOW[self.interpolation]))

    def _canvas(self, image: Pixels, operations: Operations) -> Pixels:
        """The resized image; with ``pad``, in the middle of the filled rest (rounded down)."""
        inner = self.resized(image)
        if not self.resize.pad:
            return inner
        canvas = np.empty((*operations.resized, 3), np.uint8)
        canvas[...] = self.fill
        top, left = (
            (outer - own) // 2 for outer, own in zip(canvas.shape[:2], inner.shape[:2], strict=True)
        )
        canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        return canvas

    def five_crops(self, image: Pixels) -> Pixels:
        """``(5 * height, width, 3)``: the central crop and those of the corners, row by row."""
        operations = self.operations(*image.shape[:2])
        resized = self._canvas(image, operations)
        down, right = (resized.shape[0] - self.height, resized.shape[1] - self.width)
        places = (operations.window[:2], (0, 0), (0, right), (down, 0), (down, right))
        return np.concatenate(
            [resized[top : top + self.height, left : left + self.width] for top, left in places]
        )


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``(x - mean) / std`` in float32, on the images' device (the original's Normalize, HWC2CHW).

    Args:
        images: ``(N, H, W, C)`` uint8.
        mean: ``(C,)``, in grey levels; not copied if it is on the images' device.
        std: ``(C,)``, in grey levels.

    Returns:
        ``(N, C, H, W)`` float32 in channels_last strides.
    """
    N, H, W, C = images.shape
    # Repeated for a row of pixels: with C innermost, torch would loop over only C = 3 values.
    mean, std = (t.to(images.device, torch.float32).repeat(W) for t in (mean, std))
    x = images.reshape(N, H, W * C).sub(mean).div_(std)
    return x.view(N, H, W, C).permute(0, 3, 1, 2)
