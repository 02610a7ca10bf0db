"""The ``show`` command: images as training will show them to the network, on one page."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from densenet121.checkpoint.load import read_weights
from densenet121.commands import DONE
from densenet121.config import ShowConfig, absolute
from densenet121.datasets.decoding import decode, not_readable
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.preparation import training_images
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.reading import Reading
from densenet121.datasets.transforms import TrainTransform, uniforms
from densenet121.engine.augmentation import describe, make_mixing, make_transform
from densenet121.engine.images import find_datasets
from densenet121.engine.plan import train_sizes
from densenet121.engine.setup import pick_preprocessing
from densenet121.losses.mixing import Mixing
from densenet121.pages.markup import bullets, card, escape, section
from densenet121.pages.sheet import CSS as SHEET_CSS
from densenet121.pages.sheet import SheetImage, row
from densenet121.pages.style import CSS
from densenet121.utils.errors import InputError
from densenet121.utils.files import check_output, write_atomic
from densenet121.utils.plural import plural

Pixels = NDArray[np.uint8]

_SIDE = 240  # longest side of the whole image, in pixels
_SMALL = 96  # images up to this side are shown as they are, without losses


def show(config: ShowConfig) -> Path:
    """Write the page and return its path.

    Raises:
        InputError: the data or one of the images cannot be used; a UsageError for a setting.
    """
    output = absolute(config.output)
    check_output(output, "output")
    dataset, _ = find_datasets(config.training)
    weights = read_weights(absolute(config.pretrained)) if config.pretrained else None
    weights = weights.with_channels(config.training.channels) if weights else None
    preprocessing = pick_preprocessing(config.training, None, weights, dataset)
    height, width = preprocessing.image_size
    transforms = _transforms(config, preprocessing)
    mixing = make_mixing(config, dataset, 2)
    count = min(config.images, len(dataset))
    indices = np.linspace(0, len(dataset) - 1, count).round().astype(np.int64)
    batches = versions(dataset, transforms, indices, config.seed)
    sections = [
        _section(
            dataset,
            int(index),
            preprocessing,
            [(transform, batch[i]) for transform, batch in zip(transforms, batches, strict=True)],
            config.seed,
        )
        for i, index in enumerate(indices)
    ]
    if mixing and count > 1:
        sections.append(_mixed(batches, mixing, preprocessing, config.seed))
    cards = (
        card(config.augment, "preset", main=True),
        card(f"{width} x {height}", "network's input, pixels"),
        *_small_card(config, transforms[0]),
        card(plural(count, "image"), f"of {len(dataset)}"),
        card(str(config.seed), "seed"),
    )
    page = _page(str(dataset.root), cards, describe(config), sections)
    write_atomic(output, page.encode(errors="backslashreplace"))
    return output


def _transforms(config: ShowConfig, preprocessing: Preprocessing) -> list[TrainTransform]:
    """That of each of the first epochs, which train on smaller images if ``small_size`` is set."""
    small, full = (
        make_transform(config, *size, preprocessing)
        for size in train_sizes(config.training, preprocessing)
    )
    return [small if epoch < config.small_epochs else full for epoch in range(config.versions)]


def _small_card(config: ShowConfig, first: TrainTransform) -> list[str]:
    if not config.small_epochs:
        return []
    epochs = plural(config.small_epochs, "epoch")
    return [card(f"{first.width} x {first.height}", f"in the first {epochs}, pixels")]


def versions(
    dataset: ImageDataset,
    transforms: Sequence[TrainTransform],
    indices: NDArray[np.int64],
    seed: int,
) -> list[Pixels]:
    """``(images, H, W, 3)`` of each epoch: the images as they are in the first epochs of training.

    Args:
        dataset: the images.
        transforms: that of each epoch; it has the height and width.
        indices: the images to show.
        seed: of the augmentation.
    """
    batches = []
    for epoch, transform in enumerate(transforms):
        out = np.empty((len(indices), transform.height, transform.width, 3), np.uint8)
        prepare = training_images(dataset, transform, seed, epoch)
        for i, index in enumerate(indices):
            prepare(int(index), out[i])
        batches.append(out)
    return batches


def _section(
    dataset: ImageDataset,
    index: int,
    preprocessing: Preprocessing,
    after: Sequence[tuple[TrainTransform, Pixels]],
    seed: int,
) -> str:
    """One image: as it is, as evaluation sees it, and its versions with their transforms."""
    height, width = preprocessing.image_size
    evaluated = np.empty((height, width, 3), np.uint8)
    preprocessing.reader(dataset)(index, evaluated)
    shown = [
        _whole(dataset, index, preprocessing.reading),
        _encoded(evaluated, "evaluation", before=True),
    ]
    for epoch, (transform, image) in enumerate(after):
        caption = f"epoch {epoch}"
        if (transform.height, transform.width) != (height, width):
            caption += f", {transform.width} x {transform.height} pixels"
        u = uniforms(seed, epoch, index, transform.num_uniforms)
        drawn = transform.after.policy_operations(transform.height, transform.width, u)
        if drawn:
            caption += ": " + ", ".join(_named(name, strength) for name, strength in drawn)
        shown.append(_encoded(image, caption))
    return section(_labels(dataset, index), dataset.paths[index], row(shown))


def _labels(dataset: ImageDataset, index: int) -> str:
    """The class of an image, or all of its labels."""
    if dataset.labels.ndim == 1:
        return dataset.class_names[int(dataset.labels[index])]
    positive = np.flatnonzero(dataset.labels[index] == 1)
    return ", ".join(dataset.class_names[int(label)] for label in positive) or "no label"


def _named(operation: str, strength: float) -> str:
    words = operation.replace("_", " ")
    return f"{words} {strength:.3g}" if strength else words


def _whole(dataset: ImageDataset, index: int, reading: Reading) -> SheetImage:
    try:
        data = dataset.read(index)
        pixels = decode(data, reading=reading) if isinstance(data, bytes) else data
    except InputError as error:
        raise not_readable(dataset.name(index), error) from error
    high, wide = pixels.shape[:2]
    scale = min(1.0, _SIDE / max(high, wide))
    size = max(1, round(wide * scale)), max(1, round(high * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return _encoded(np.asarray(small, dtype=np.uint8), f"the whole image, {wide} x {high}")


def _mixed(
    batches: Sequence[Pixels], mixing: Mixing, preprocessing: Preprocessing, seed: int
) -> str:
    """The images as one batch, mixed as in the first step of each epoch."""
    shown = []
    mean = torch.tensor(preprocessing.mean, dtype=torch.float32)
    std = torch.tensor(preprocessing.std, dtype=torch.float32)
    for epoch, batch in enumerate(batches):
        mix = mixing.draw(batch.shape[1:3], seed=seed, epoch=epoch, step=0, rank=0, part=0)
        x = mix.images(preprocessing.normalise(torch.from_numpy(batch))).permute(0, 2, 3, 1)
        mixed = (x * std + mean).round_().clamp_(0, 255).to(torch.uint8)
        mixed = mixed.expand(*mixed.shape[:3], 3)  # also where there is one channel
        kind = "CutMix" if mix.box else "mixup"
        caption = f"epoch {epoch}: {kind}, {100 * mix.share:.0f} % its own label"
        shown += [_encoded(image, caption) for image in mixed.numpy()]
    text = (
        "The images above as one batch: each is mixed with the one before it, the first with the "
        "last. In training, a batch has other images."
    )
    return section("Mixed batches", text, row(shown))


def _encoded(pixels: Pixels, caption: str, *, before: bool = False) -> SheetImage:
    small = max(pixels.shape[:2]) <= _SMALL
    kind, flags = ("png", []) if small else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, 90])
    _, data = cv2.imencode(f".{kind}", np.ascontiguousarray(pixels[:, :, ::-1]), flags)
    return SheetImage(data.tobytes(), kind, caption, before, enlarged=small)


def _page(source: str, cards: tuple[str, ...], words: list[str], sections: list[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Augmentation</title><style>{CSS}{SHEET_CSS}</style></head><body><main>"
        "<header><p>densenet121 show</p><h1>What the network will see</h1>"
        f'<p>{escape(source)}</p></header><div class="cards">{"".join(cards)}</div>'
        f"{bullets('steps', 'In this order', words)}{''.join(sections)}</main></body></html>\n"
    )


def run(config: ShowConfig) -> int:
    """Write the page and print where it is."""
    print(f"sheet: {show(config)}")  # noqa: T201 (the command's output)
    return DONE
