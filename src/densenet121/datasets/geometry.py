"""Affine transforms, turns and erased boxes, each as a function of random numbers in [0, 1)."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densenet121.datasets.operations import Pixels, flip
from densenet121.native.images import image_kernel

INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}

Matrix = tuple[float, float, float, float, float, float]
_QUARTERS = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)
_ATTEMPTS = 10
NUMBERS_OF_ERASING = 2 * _ATTEMPTS + 2
_ERASED_RATIO = (0.3, 3.3)  # height / width


@dataclass(frozen=True)
class Affine:
    """A random rotation, shift, scaling and shear about the centre: torchvision's RandomAffine.

    Attributes:
        rotate: largest angle in degrees; uniform in ``[-rotate, rotate]``.
        translate: largest shift, as a share of the width and of the height; whole pixels.
        scale: smallest and largest factor; above 1 enlarges.
        shear: largest angle in degrees between the vertical edges and the vertical.
    """

    rotate: float = 0.0
    translate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0

    @property
    def is_on(self) -> bool:
        """Whether it changes any image."""
        return self != Affine()

    def matrix(self, height: int, width: int, u: NDArray[np.float64]) -> Matrix:
        """From pixels of the result to those of the image, for five numbers in ``[0, 1)``."""
        angle, right, down, scale, shear = (float(number) for number in u)
        return inverse_affine(
            (width * 0.5, height * 0.5),
            angle=_between(-self.rotate, self.rotate, angle),
            translate=(
                round(_between(-self.translate * width, self.translate * width, right)),
                round(_between(-self.translate * height, self.translate * height, down)),
            ),
            scale=_between(*self.scale, scale),
            shear=(_between(-self.shear, self.shear, shear), 0.0),
        )


def _between(low: float, high: float, u: float) -> float:
    return low + u * (high - low)


def inverse_affine(
    centre: tuple[float, float],
    *,
    angle: float = 0.0,
    translate: tuple[int, int] = (0, 0),
    scale: float = 1.0,
    shear: tuple[float, float] = (0.0, 0.0),
) -> Matrix:
    """The matrix that Pillow needs: from a place in the result to one in the image.

    Forward, with the origin at the centre, a place is sheared along x by ``-tan(shear[0])``, along
    y by ``-tan(shear[1])``, scaled, rotated clockwise by ``angle`` and then shifted: torchvision's
    ``affine``. Rounding is like theirs, since the operations and their order are.

    Args:
        centre: x and y in pixels, the origin of all but the shift.
        angle: degrees.
        translate: pixels to the right and down.
        scale: factor.
        shear: degrees along x and along y.
    """
    angle, shear_x, shear_y = (math.radians(degrees) for degrees in (angle, *shear))
    turned = angle - shear_y
    a = math.cos(turned) / math.cos(shear_y)
    b = -math.cos(turned) * math.tan(shear_x) / math.cos(shear_y) - math.sin(angle)
    c = math.sin(turned) / math.cos(shear_y)
    d = -math.sin(turned) * math.tan(shear_x) / math.cos(shear_y) + math.cos(angle)
    # The determinant is 1, so this is the inverse.
    a, b, c, d = d / scale, -b / scale, -c / scale, a / scale
    (x, y), (right, down) = centre, translate
    e = a * (-x - right) + b * (-y - down)
    f = c * (-x - right) + d * (-y - down)
    return a, b, e + x, c, d, f + y


def rotation(height: int, width: int, degrees: float) -> Matrix:
    """The matrix of Pillow's ``Image.rotate``: anticlockwise about the centre, rounded like its."""
    angle = -math.radians(degrees % 360.0)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2.0, height / 2.0
    return cos, sin, cos * -x + sin * -y + x, -sin, cos, -sin * -x + cos * -y + y


def resample(
    image: Pixels, matrix: Matrix, interpolation: str, fill: tuple[int, int, int]
) -> Pixels:
    """The image at the places of ``matrix``; ``fill`` where they are outside.

    By the image kernel if it is available; Pillow gives the same bits.
    """
    kernel = image_kernel()
    if interpolation == "bilinear" and not isinstance(kernel, str):
        return kernel.affine(image, matrix, fill)
    found = Image.fromarray(image)
    return np.asarray(
        found.transform(
            found.size,
            Image.Transform.AFFINE,
            matrix,
            INTERPOLATIONS[interpolation],
            fillcolor=fill,
        )
    )


def turn(image: Pixels, u: float) -> Pixels:
    """One of the eight flips and quarter turns of a square image.

    0 to 3 are quarter turns anticlockwise, 4 to 7 the same after a left-right flip.
    """
    number = int(u * 8)
    if number >= 4:
        image = flip(image)
    quarter = _QUARTERS[number % 4]
    return image if quarter is None else np.asarray(cv2.rotate(image, quarter), dtype=np.uint8)


def erased_box(
    height: int, width: int, scale: tuple[float, float], u: NDArray[np.float64]
) -> tuple[int, int, int, int] | None:
    """Top, left, height, width of a box to erase; None if none of ten fits. It may be empty.

    As in torchvision's RandomErasing (Zhong et al. 2017): the area is uniform in ``scale``, the
    logarithm of height / width uniform between those of 0.3 and 3.3, the place uniform, and the box
    is smaller than the image in both directions.

    Args:
        height: of the image.
        width: of the image.
        scale: smallest and largest share of the image's area.
        u: ``NUMBERS_OF_ERASING`` numbers in ``[0, 1)``.
    """
    low, high = (math.log(ratio) for ratio in _ERASED_RATIO)
    for attempt in range(_ATTEMPTS):
        area = height * width * _between(*scale, float(u[2 * attempt]))
        ratio = math.exp(_between(low, high, float(u[2 * attempt + 1])))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h < height and w < width:
            top, left = (float(number) for number in u[2 * _ATTEMPTS : NUMBERS_OF_ERASING])
            return int(top * (height - h + 1)), int(left * (width - w + 1)), h, w
    return None
