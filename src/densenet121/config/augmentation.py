"""Augmentation of training images."""

from dataclasses import dataclass
from typing import ClassVar

from densenet121.config.shared import NumberList, Settings
from densenet121.config.values import between, numbers
from densenet121.utils.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings(Settings):
    """Augmentation of training images.

    Attributes:
        crop_scale: smallest and largest share of an image's area that a training crop takes.
        crop_ratio: narrowest and widest aspect ratio (width/height) of a training crop.
        flip_prob: probability of mirroring a training image left to right.
        color_jitter: largest relative change of brightness, contrast and saturation.
    """

    section: ClassVar[str] = "augmentation"
    crop_scale: NumberList = "0.08,1.0"
    crop_ratio: NumberList = "0.75,1.333"
    flip_prob: float = 0.5
    color_jitter: NumberList = "0.4,0.4,0.4"

    def check(self) -> None:
        """Refuse values out of range."""
        between("flip_prob", self.flip_prob, 0, 1)
        low, high = self.crop_scale_range
        if not 0 < low <= high <= 1:
            raise UsageError(f"--crop_scale must be 0 < smallest <= largest <= 1, got {low},{high}")
        low, high = self.crop_ratio_range
        if not 0 < low <= high:
            raise UsageError(f"--crop_ratio must be 0 < narrowest <= widest, got {low},{high}")
        if not all(0 <= amount <= 1 for amount in self.jitter_amounts):
            raise UsageError(
                f"--color_jitter must be three numbers in [0, 1], got {self.color_jitter}"
            )

    @property
    def crop_scale_range(self) -> tuple[float, float]:
        """Smallest and largest share of the area."""
        low, high = numbers("crop_scale", self.crop_scale, count=2)
        return low, high

    @property
    def crop_ratio_range(self) -> tuple[float, float]:
        """Narrowest and widest aspect ratio."""
        low, high = numbers("crop_ratio", self.crop_ratio, count=2)
        return low, high

    @property
    def jitter_amounts(self) -> tuple[float, float, float]:
        """Brightness, contrast, saturation."""
        brightness, contrast, saturation = numbers("color_jitter", self.color_jitter, count=3)
        return brightness, contrast, saturation
