"""Augmentation of training images: presets, and settings that override them one by one."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from densenet121.config.shared import NumberList, Settings, Switch
from densenet121.config.values import at_least, between, numbers
from densenet121.utils.errors import UsageError

# The original's, with everything off that it does not have.
_ORIGINAL: dict[str, Any] = {
    "crop_scale": "0.08,1.0",
    "crop_ratio": "0.75,1.333",
    "flip_prob": 0.5,
    "color_jitter": "0.4,0.4,0.4",
    "policy": "none",
    "rand_operations": 2,
    "rand_magnitude": 9,
    "rotate": 0.0,
    "translate": 0.0,
    "scale": "1.0,1.0",
    "shear": 0.0,
    "vflip_prob": 0.0,
    "turns": 0,
    "erase_prob": 0.0,
    "erase_scale": "0.02,0.33",
    "augment_fill": "mean",
    "augment_interpolation": "bilinear",
    "mixup": 0.0,
    "cutmix": 0.0,
    "mix_off_epochs": 0,
}
_NO_COLOUR = {"color_jitter": "0,0,0"}
PRESETS: dict[str, dict[str, Any]] = {
    # Of a shape within a ratio that wide, the whole area is the whole image.
    "none": _ORIGINAL
    | _NO_COLOUR
    | {"crop_scale": "1,1", "crop_ratio": "0.0001,10000", "flip_prob": 0.0},
    "light": _ORIGINAL | {"crop_scale": "0.5,1.0", "color_jitter": "0.2,0.2,0.2"},
    "original": _ORIGINAL,
    "trivial": _ORIGINAL | _NO_COLOUR | {"policy": "trivial"},
    "rand": _ORIGINAL | _NO_COLOUR | {"policy": "rand"},
}
# Setting to those of which one must be on, or it would have no effect.
_NEEDS = {
    "erase_scale": ("erase_prob",),
    "augment_fill": ("policy", "rotate", "translate", "scale", "shear"),
    "augment_interpolation": ("policy", "rotate", "translate", "scale", "shear"),
    "mix_off_epochs": ("mixup", "cutmix"),
}


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings(Settings):
    """Augmentation of training images.

    Attributes:
        augment: values of all other augmentation settings, each of which overrides it (a recipe's
            do not): original (the original's crop, flip and colour), none (the whole image,
            resized), light (crops of half the image and more, flip, half the colour), trivial
            (crop, flip and TrivialAugmentWide in place of colour), rand (crop, flip and RandAugment
            in its place).
        crop_scale: smallest and largest share of an image's area that a training crop takes
            (default: as --augment; original: 0.08,1.0).
        crop_ratio: narrowest and widest aspect ratio (width/height) of a training crop (default: as
            --augment; original: 0.75,1.333).
        flip_prob: probability of mirroring a training image left to right (default: as --augment;
            original: 0.5).
        color_jitter: largest relative change of brightness, contrast and saturation (default: as
            --augment; original: 0.4,0.4,0.4).
        policy: random operations on the resized image, as torchvision defines them: trivial
            (TrivialAugmentWide: one operation of any strength) or rand (RandAugment) (default: as
            --augment; original: none).
        rand_operations: operations of RandAugment on an image (default: as --augment; original: 2).
        rand_magnitude: strength of RandAugment's operations, 0 to 30 (default: as --augment;
            original: 9).
        rotate: largest rotation in degrees, either way (default: as --augment; original: 0).
        translate: largest shift, as a share of the width and of the height (default: as --augment;
            original: 0).
        scale: smallest and largest factor by which the resized image is scaled (default: as
            --augment; original: 1.0,1.0).
        shear: largest shear in degrees, either way (default: as --augment; original: 0).
        vflip_prob: probability of a top-bottom flip (default: as --augment; original: 0).
        turns: 1 takes one of the eight flips and quarter turns of a square image (default: as
            --augment; original: 0).
        erase_prob: probability of erasing a random box (default: as --augment; original: 0).
        erase_scale: smallest and largest share of the image that is erased (default: as --augment;
            original: 0.02,0.33).
        augment_fill: what a rotation, shift or shear fills in from outside the image: the mean of
            the preprocessing, rounded, or black (default: as --augment; original: mean).
        augment_interpolation: how rotations, shifts and shears read pixels (default: as --augment;
            original: bilinear).
        mixup: alpha of mixup, 0 is off: each image and its loss are mixed with those of another of
            the batch, with a share from the distribution Beta(alpha, alpha) (default: as --augment;
            original: 0).
        cutmix: alpha of CutMix, 0 is off: a box of another image of the batch, with a share from
            Beta(alpha, alpha); with both on, each batch takes one of them at random (default: as
            --augment; original: 0).
        mix_off_epochs: last epochs without mixup and CutMix (default: as --augment; original: 0).
    """

    section: ClassVar[str] = "augmentation"
    presets: ClassVar[Mapping[str, Collection[str]]] = {"augment": tuple(_ORIGINAL)}
    augment: Literal["none", "light", "original", "trivial", "rand"] = "original"
    crop_scale: NumberList | None = None
    crop_ratio: NumberList | None = None
    flip_prob: float | None = None
    color_jitter: NumberList | None = None
    policy: Literal["none", "trivial", "rand"] | None = None
    rand_operations: int | None = None
    rand_magnitude: int | None = None
    rotate: float | None = None
    translate: float | None = None
    scale: NumberList | None = None
    shear: float | None = None
    vflip_prob: float | None = None
    turns: Switch | None = None
    erase_prob: float | None = None
    erase_scale: NumberList | None = None
    augment_fill: Literal["mean", "black"] | None = None
    augment_interpolation: Literal["bilinear", "nearest"] | None = None
    mixup: float | None = None
    cutmix: float | None = None
    mix_off_epochs: int | None = None

    def check(self) -> None:
        """Refuse values out of range, and those that contradict each other."""
        for name in ("flip_prob", "vflip_prob", "erase_prob", "translate"):
            between(name, getattr(self, name), 0, 1)
        between("rand_operations", self.rand_operations, 1, 10)
        between("rand_magnitude", self.rand_magnitude, 0, 30)
        between("rotate", self.rotate, 0, 180)
        between("shear", self.shear, 0, 90, upper_open=True)
        for name in ("mixup", "cutmix", "mix_off_epochs"):
            at_least(name, getattr(self, name), 0)
        for name in ("crop_scale", "erase_scale"):
            low, high = self.pair(name)
            if not 0 < low <= high <= 1:
                raise UsageError(f"--{name} must be 0 < smallest <= largest <= 1, got {low},{high}")
        low, high = self.pair("crop_ratio")
        if not 0 < low <= high:
            raise UsageError(f"--crop_ratio must be 0 < narrowest <= widest, got {low},{high}")
        low, high = self.pair("scale")
        if not 0.1 <= low <= high <= 10:
            raise UsageError(f"--scale must be 0.1 <= smallest <= largest <= 10, got {low},{high}")
        if not all(0 <= amount <= 1 for amount in self.jitter_amounts):
            raise UsageError(
                f"--color_jitter must be three numbers in [0, 1], got {self.color_jitter}"
            )
        self._check_together()

    def _check_together(self) -> None:
        for name, needed in _NEEDS.items():
            if getattr(self, name) is not None and not any(map(self.is_on, needed)):
                raise UsageError(
                    f"--{name} has no effect without --{' or --'.join(needed)}; omit it"
                )
        for name in ("rand_operations", "rand_magnitude"):
            if getattr(self, name) is not None and self.chosen("policy") != "rand":
                raise UsageError(
                    f"--{name} needs --policy rand, got --policy {self.chosen('policy')}"
                )
        if self.chosen("turns") and self.vflip_prob:
            raise UsageError(
                f"--vflip_prob {self.vflip_prob} has no effect with --turns 1, whose eight turns "
                "include it; omit it"
            )

    def chosen(self, name: str) -> Any:
        """The value of a setting of this group, from the preset if it is not given."""
        value = getattr(self, name)
        return PRESETS[self.augment][name] if value is None else value

    def is_on(self, name: str) -> bool:
        """Whether a setting does something."""
        return bool(self.chosen(name) not in (0, "none") and not self._is_one(name))

    def _is_one(self, name: str) -> bool:
        return name == "scale" and self.pair(name) == (1.0, 1.0)

    def pair(self, name: str) -> tuple[float, float]:
        """The smallest and the largest value of a range."""
        low, high = numbers(name, self.chosen(name), count=2)
        return low, high

    @property
    def jitter_amounts(self) -> tuple[float, float, float]:
        """Brightness, contrast, saturation."""
        amounts = numbers("color_jitter", self.chosen("color_jitter"), count=3)
        brightness, contrast, saturation = amounts
        return brightness, contrast, saturation


def effective(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with the values of the preset in place of None.

    Those of a run from before the presets are the original's.
    """
    preset = PRESETS.get(settings.get("augment", "original"), _ORIGINAL)
    chosen = {
        name: value if settings.get(name) is None else settings[name]
        for name, value in preset.items()
    }
    return {**settings, **chosen}
