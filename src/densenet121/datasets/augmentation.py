"""What follows crop, resize, flip and colour: steps on the small image, each off by default.

In this order: the policy, the affine transform, the top-bottom flip, the turn, the erasing. The
fields say which are on. All are pure functions of the image and its random numbers.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.geometry import (
    NUMBERS_OF_ERASING,
    Affine,
    erased_box,
    resample,
    turn,
)
from densenet121.datasets.operations import Pixels
from densenet121.datasets.policies import (
    MOST_OPERATIONS,
    NUMBERS_PER_OPERATION,
    Policy,
    perform,
)

# The use of each random number of an image, after the 32 of transforms.py; fixed like those.
_FLIP, _TURN = 32, 33
_AFFINE = slice(34, 39)
_ERASED = 39
_ERASING = slice(40, 40 + NUMBERS_OF_ERASING)  # to 61
_POLICY = slice(64, 64 + NUMBERS_PER_OPERATION * MOST_OPERATIONS)  # to 93
NUM_UNIFORMS = 96


@dataclass(frozen=True)
class Augmentation:
    """Steps on the resized image.

    Attributes:
        policy: TrivialAugment or RandAugment, or None.
        affine: rotation, shift, scaling and shear.
        vflip_prob: probability of a top-bottom flip.
        turns: whether to take one of the eight flips and quarter turns; the image is then square.
        erase_prob: probability of erasing a box.
        erase_scale: smallest and largest share of the area that the box takes.
        interpolation: bilinear or nearest, of the policy and the affine transform.
        fill: R, G, B of pixels from outside the image, of the policy and the affine transform.
        erased: R, G, B of the erased box. The mean of the images, rounded, is at most 0.01 away
            from 0 after normalisation, which is the value in torchvision's RandomErasing.
    """

    policy: Policy | None = None
    affine: Affine = Affine()  # noqa: RUF009 (frozen)
    vflip_prob: float = 0.0
    turns: bool = False
    erase_prob: float = 0.0
    erase_scale: tuple[float, float] = (0.02, 0.33)
    interpolation: str = "bilinear"
    fill: tuple[int, int, int] = (0, 0, 0)
    erased: tuple[int, int, int] = (0, 0, 0)

    @property
    def is_on(self) -> bool:
        """Whether any step changes an image."""
        return bool(
            self.policy or self.affine.is_on or self.vflip_prob or self.turns or self.erase_prob
        )

    def policy_operations(
        self, height: int, width: int, u: NDArray[np.float64]
    ) -> list[tuple[str, float]]:
        """Operations and strengths of the policy for an image of this size; empty without one."""
        return self.policy.chosen(height, width, u[_POLICY]) if self.policy else []

    def __call__(self, image: Pixels, u: NDArray[np.float64]) -> Pixels:
        """The image after the steps; may be a view of ``image``, which stays as it is.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            u: ``NUM_UNIFORMS`` numbers of ``uniforms``.
        """
        height, width = image.shape[:2]
        operations = self.policy_operations(height, width, u)
        image = perform(image, operations, self.interpolation, self.fill)
        if self.affine.is_on:
            matrix = self.affine.matrix(height, width, u[_AFFINE])
            image = resample(image, matrix, self.interpolation, self.fill)
        if u[_FLIP] < self.vflip_prob:
            image = np.asarray(cv2.flip(image, 0), dtype=np.uint8)
        if self.turns:
            image = turn(image, float(u[_TURN]))
        if u[_ERASED] < self.erase_prob:
            box = erased_box(height, width, self.erase_scale, u[_ERASING])
            if box and min(box[2:]) > 0:
                top, left, h, w = box
                # Both corners are inside.
                corners = (left, top), (left + w - 1, top + h - 1)
                filled = cv2.rectangle(image.copy(), *corners, self.erased, cv2.FILLED)
                image = np.asarray(filled, dtype=np.uint8)
        return image
