"""The augmentation of a run, made from its settings."""

from densenet121.config import AugmentationSettings
from densenet121.datasets.augmentation import Augmentation
from densenet121.datasets.geometry import Affine
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.policies import Policy, RandAugment, TrivialAugment
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.transforms import TrainTransform
from densenet121.losses.mixing import Mixing
from densenet121.utils.errors import UsageError


def make_transform(
    settings: AugmentationSettings,
    height: int,
    width: int,
    preprocessing: Preprocessing,
) -> TrainTransform:
    """From an image to a training image of ``height`` x ``width`` pixels.

    Args:
        settings: what is on, and how much.
        height: of the result, in pixels.
        width: of the result, in pixels.
        preprocessing: how files are decoded, and the mean that fills what is empty.

    Raises:
        UsageError: `turns` needs a square.
    """
    chosen = settings.chosen
    if chosen("turns") and height != width:
        raise UsageError(
            f"`turns` needs square images, but `image_size` or `small_size` is {height},{width}"
        )
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
        fill=preprocessing.mean_pixel if chosen("augment_fill") == "mean" else (0, 0, 0),
        erased=preprocessing.mean_pixel,
    )
    return TrainTransform(
        height=height,
        width=width,
        crop_scale=settings.pair("crop_scale"),
        crop_ratio=settings.pair("crop_ratio"),
        flip_prob=chosen("flip_prob"),
        color_jitter=settings.jitter_amounts,
        after=after,
        reading=preprocessing.reading,
        grey=preprocessing.channels == 1,
    )


def make_mixing(
    settings: AugmentationSettings, dataset: ImageDataset, batch_size: int
) -> Mixing | None:
    """Mixup and CutMix of the settings; None if both are off.

    Raises:
        UsageError: there is nothing to mix: every image has the same class, or is alone.
    """
    mixing = Mixing(settings.chosen("mixup"), settings.chosen("cutmix"))
    if not mixing.is_on:
        return None
    name = "mixup" if mixing.mixup else "cutmix"
    if dataset.labels.ndim == 1 and len(dataset.class_names) < 2:
        raise UsageError(f"`{name}` needs at least 2 classes, but {dataset.root} has 1")
    if batch_size < 2:
        raise UsageError(
            f"`{name}` mixes the images of a batch, but `per_batch_size` is {batch_size}; pass 2 "
            "or more"
        )
    return mixing


def describe(settings: AugmentationSettings) -> list[str]:
    """The augmentation in words, in the order of its steps."""
    chosen = settings.chosen
    (least, most), (narrow, wide) = settings.pair("crop_scale"), settings.pair("crop_ratio")
    crop = (
        f"a crop of {_percent(least)} to {_percent(most)} of the area, "
        f"as wide as {narrow:g} to {wide:g} times its height"
    )
    words = [f"{'the whole image' if least == 1 and wide >= 1000 else crop}, resized"]
    words += _with("a left-right flip", chosen("flip_prob"))
    if any(settings.jitter_amounts):
        amounts = ", ".join(map(_percent, settings.jitter_amounts))
        words.append(f"brightness, contrast and saturation by up to {amounts}, in random order")
    if chosen("policy") == "trivial":
        words.append("TrivialAugmentWide: one random operation of random strength")
    elif chosen("policy") == "rand":
        words.append(
            f"RandAugment: {chosen('rand_operations')} random operations of strength "
            f"{chosen('rand_magnitude')} of 30"
        )
    affine = []
    if chosen("rotate"):
        affine.append(f"rotated by up to {chosen('rotate'):g} degrees")
    if chosen("translate"):
        affine.append(f"shifted by up to {_percent(chosen('translate'))} of each side")
    if settings.is_on("scale"):
        smallest, largest = settings.pair("scale")
        affine.append(f"scaled by {smallest:g} to {largest:g}")
    if chosen("shear"):
        affine.append(f"sheared by up to {chosen('shear'):g} degrees")
    if affine:
        words.append(", ".join(affine))
    if affine or settings.is_on("policy"):
        fill = "the mean" if chosen("augment_fill") == "mean" else "black"
        words[-1] += f"; {chosen('augment_interpolation')}, filled with {fill}"
    words += _with("a top-bottom flip", chosen("vflip_prob"))
    if chosen("turns"):
        words.append("one of the eight flips and quarter turns")
    low, high = settings.pair("erase_scale")
    box = f"a box of {_percent(low)} to {_percent(high)} of the area erased"
    words += _with(box, chosen("erase_prob"))
    return words + _mixing_in_words(settings)


def _mixing_in_words(settings: AugmentationSettings) -> list[str]:
    kinds = {"mixup": "mixup", "cutmix": "CutMix"}
    shown = [
        f"{word} with alpha {settings.chosen(name):g}"
        for name, word in kinds.items()
        if settings.is_on(name)
    ]
    if not shown:
        return []
    off = settings.chosen("mix_off_epochs")
    return [
        f"each batch: {' or '.join(shown)}" + (f", but in the last {off} epochs" if off else "")
    ]


def _with(what: str, probability: float) -> list[str]:
    return [f"{what} with probability {probability:g}"] if probability else []


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
