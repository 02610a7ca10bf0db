"""TrivialAugmentWide and RandAugment as torchvision defines them, on ``(H, W, 3)`` uint8 RGB.

Both draw from the same 14 operations, in torchvision's order. The operations are Pillow's, with the
arguments that torchvision gives them, so that an image equals torchvision's (with Pillow) for the
same draws. timm's RandAugment is another one: other operations, each with a probability of its own.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from densenet121.datasets.geometry import inverse_affine, resample, rotation
from densenet121.datasets.operations import Pixels
from densenet121.native.images import image_kernel

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "auto_contrast",
    "equalize",
)
BINS = 31  # magnitudes 0 to 30
MOST_OPERATIONS = 10  # of one image
NUMBERS_PER_OPERATION = 3  # which operation, magnitude, sign

_ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
}


@dataclass(frozen=True)
class TrivialAugment:
    """One operation with a random magnitude (Mueller and Hutter 2021, the wide space)."""

    def chosen(self, height: int, width: int, u: NDArray[np.float64]) -> list[tuple[str, float]]:
        """The operation and its magnitude, for three numbers in ``[0, 1)``."""
        name = OPERATIONS[int(u[0] * len(OPERATIONS))]
        levels = _wide(name)
        return [(name, _signed(name, levels[int(u[1] * len(levels))], u[2]))]


@dataclass(frozen=True)
class RandAugment:
    """Several operations of one magnitude (Cubuk et al. 2020, section 3).

    Attributes:
        num_operations: drawn independently, so that one may come twice.
        magnitude: 0 to 30; the strength of all operations that have one.
    """

    num_operations: int = 2
    magnitude: int = 9

    def chosen(self, height: int, width: int, u: NDArray[np.float64]) -> list[tuple[str, float]]:
        """The operations and their magnitudes, for three numbers in ``[0, 1)`` each."""
        found = []
        for first in range(0, NUMBERS_PER_OPERATION * self.num_operations, NUMBERS_PER_OPERATION):
            name = OPERATIONS[int(u[first] * len(OPERATIONS))]
            levels = _rand(name, height, width)
            # An operation without a magnitude has one level.
            magnitude = levels[self.magnitude] if len(levels) > 1 else levels[0]
            found.append((name, _signed(name, magnitude, u[first + 2])))
        return found


Policy = TrivialAugment | RandAugment


def perform(
    image: Pixels,
    operations: list[tuple[str, float]],
    interpolation: str,
    fill: tuple[int, int, int],
) -> Pixels:
    """The image after operations of a policy, one after the other.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        operations: the result of ``chosen``.
        interpolation: bilinear or nearest, of shears, shifts and rotations.
        fill: R, G, B of pixels from outside the image.
    """
    for name, magnitude in operations:
        image = _perform(image, name, magnitude, interpolation, fill)
    return image


def _perform(
    image: Pixels, name: str, magnitude: float, interpolation: str, fill: tuple[int, int, int]
) -> Pixels:
    height, width = image.shape[:2]
    kernel = image_kernel()
    match name:
        case "identity":
            return image
        case "shear_x" | "shear_y":
            angle = math.degrees(math.atan(magnitude))
            shear = (angle, 0.0) if name == "shear_x" else (0.0, angle)
            matrix = inverse_affine((0.0, 0.0), shear=shear)  # about the corner
            return resample(image, matrix, interpolation, fill)
        case "translate_x" | "translate_y":
            pixels = int(magnitude)
            shift = (pixels, 0) if name == "translate_x" else (0, pixels)
            matrix = inverse_affine((width * 0.5, height * 0.5), translate=shift)
            return resample(image, matrix, interpolation, fill)
        case "rotate" if magnitude % 90 != 0:  # Pillow turns an image by these without resampling
            return resample(image, rotation(height, width, magnitude), interpolation, fill)
        case "sharpness" if not isinstance(kernel, str):
            return kernel.sharpen(image, 1.0 + magnitude)
    return np.asarray(_by_pillow(Image.fromarray(image), name, magnitude, fill))


def _by_pillow(
    image: Image.Image, name: str, magnitude: float, fill: tuple[int, int, int]
) -> Image.Image:
    if name in _ENHANCERS:
        return _ENHANCERS[name](image).enhance(1.0 + magnitude)
    match name:
        case "rotate":
            return image.rotate(magnitude, fillcolor=fill)
        case "posterize":
            return ImageOps.posterize(image, int(magnitude))
        case "solarize":
            return ImageOps.solarize(image, magnitude)  # type: ignore[arg-type]
        case "auto_contrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
    raise ValueError(f"unknown operation {name}")


def _signed(name: str, magnitude: float, u: float) -> float:
    """Shears, shifts, rotations and enhancements go either way."""
    return -magnitude if name in OPERATIONS[1:10] and u < 0.5 else magnitude


@functools.cache
def _wide(name: str) -> tuple[float, ...]:
    """Magnitudes of TrivialAugmentWide."""
    if name in _ENHANCERS or name in ("shear_x", "shear_y"):
        return _levels(0.0, 0.99)
    if name in ("translate_x", "translate_y"):
        return _levels(0.0, 32.0)  # pixels, at any size
    return _levels(0.0, 135.0) if name == "rotate" else _common(name, bits=6)


@functools.cache
def _rand(name: str, height: int, width: int) -> tuple[float, ...]:
    """Magnitudes of RandAugment."""
    if name in _ENHANCERS:
        return _levels(0.0, 0.9)
    if name in ("shear_x", "shear_y"):
        return _levels(0.0, 0.3)
    if name in ("translate_x", "translate_y"):
        return _levels(0.0, 150.0 / 331.0 * (width if name == "translate_x" else height))
    return _levels(0.0, 30.0) if name == "rotate" else _common(name, bits=4)


def _common(name: str, bits: int) -> tuple[float, ...]:
    """Magnitudes of operations on levels; ``bits``: how many posterize takes away at most."""
    if name == "posterize":
        bins = torch.arange(BINS, dtype=torch.float32, device="cpu")
        taken = (bins / ((BINS - 1) / bits)).round()
        return tuple((8 - taken.int()).tolist())
    return _levels(255.0, 0.0) if name == "solarize" else (0.0,)


def _levels(first: float, last: float) -> tuple[float, ...]:
    """In float32, like torchvision's: a shift is rounded down from these."""
    return tuple(torch.linspace(first, last, BINS, dtype=torch.float32, device="cpu").tolist())
