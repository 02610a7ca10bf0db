"""The augmentation of a run, made from its settings."""

from collections.abc import Sequence

from densenet121.config import AugmentationSettings
from densenet121.datasets.augmentation import Augmentation
from densenet121.datasets.geometry import Affine
from densenet121.datasets.policies import Policy, RandAugment, TrivialAugment
from densenet121.datasets.transforms import TrainTransform
from densenet121.losses.mixing import Mixing
from densenet121.utils.errors import UsageError


def make_transform(
    settings: AugmentationSettings, height: int, width: int, mean: Sequence[float]
) -> TrainTransform:
    """From an image to a training image of ``height`` x ``width`` pixels.

    Args:
        settings: what is on, and how much.
        height: of the result, in pixels.
        width: of the result, in pixels.
        mean: R, G, B in grey levels, of the preprocessing.

    Raises:
        UsageError: `turns` needs a square.
    """
    chosen = settings.chosen
    if chosen("turns") and height != width:
        raise UsageError(
            f"`turns` needs square images, but `image_size` or `small_size` is {height},{width}"
        )
    red, green, blue = (round(level) for level in mean)
    policies: dict[str, Policy | None] = {
        "none": None,
        "trivial": TrivialAugment(),
        "rand": RandAugment(chosen("rand_operations"), chosen("rand_magnitude")),
    }
    after = Augmentation(
        policy=policies[chosen("policy")],
        affine=Affine(
            chosen("rotate"), chosen("translate"), settings.pair("scale"), chosen("shear")
        ),
        vflip_prob=chosen("vflip_prob"),
        turns=bool(chosen("turns")),
        erase_prob=chosen("erase_prob"),
        erase_scale=settings.pair("erase_scale"),
        interpolation=chosen("augment_interpolation"),
        fill=(red, green, blue) if chosen("augment_fill") == "mean" else (0, 0, 0),
        erased=(red, green, blue),
    )
    return TrainTransform(
        height=height,
        width=width,
        crop_scale=settings.pair("crop_scale"),
        crop_ratio=settings.pair("crop_ratio"),
        flip_prob=chosen("flip_prob"),
        color_jitter=settings.jitter_amounts,
        after=after,
    )


def make_mixing(settings: AugmentationSettings, num_classes: int, batch_size: int) -> Mixing | None:
    """Mixup and CutMix of the settings; None if both are off.

    Raises:
        UsageError: there is nothing to mix.
    """
    mixing = Mixing(settings.chosen("mixup"), settings.chosen("cutmix"))
    if not mixing.is_on:
        return None
    name = "mixup" if mixing.mixup else "cutmix"
    if num_classes < 2:
        raise UsageError(f"`{name}` needs at least 2 classes, but the data has {num_classes}")
    if batch_size < 2:
        raise UsageError(
            f"`{name}` mixes the images of a batch, but `per_batch_size` is {batch_size}; pass 2 "
            "or more"
        )
    return mixing
