"""The ``pack`` command: write images of any source into tar shards with an index."""

import io
import json
import math
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from densenet121.commands import DONE, print_notes
from densenet121.config import PackConfig, absolute
from densenet121.datasets.decoding import format_of
from densenet121.datasets.image_dataset import Encoded, ImageDataset
from densenet121.datasets.packed_strings import Names
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.labels import class_lines
from densenet121.datasets.sources.list_rows import ListRules
from densenet121.datasets.sources.open import open_training
from densenet121.datasets.sources.open_table import open_labelled_training, refuse_label_table
from densenet121.datasets.sources.shard_labels import OWN_KEYS, label_text
from densenet121.datasets.sources.shards import CLASSES, INDEX, Index
from densenet121.datasets.sources.splits import SPLIT_COLUMNS
from densenet121.engine.images import check_apart
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.files import is_taken, new_folder, write_atomic
from densenet121.utils.plural import plural
from densenet121.utils.progress import progress_bar

_EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp"} | {
    "TIFF": "tif",
    "PPM": "ppm",
}


def pack(config: PackConfig) -> str:
    """Write the shards and return a message for the user.

    The folder appears only when it is complete; if packing fails or stops, it is removed.

    Raises:
        UsageError: the output exists, or is among the class folders.
        InputError: an image cannot be read, there are no images, or a class has a blank at an end
            of its name, or a line break.
    """
    output = absolute(config.output)
    if is_taken(output):
        raise UsageError(f"--output {output} already exists; choose a new folder")
    train, val = _open(config)
    check_apart(output, "output", train, val)
    print_notes((*train.notes, *(val.notes if val else ())))
    with new_folder(output) as folder:
        parts = (
            [(train, folder)] if val is None else [(train, folder / "train"), (val, folder / "val")]
        )
        total = sum(len(dataset) for dataset, _ in parts)
        shards = 0
        with progress_bar("pack", total, unit="image") as advance:
            for dataset, where in parts:
                where.mkdir(exist_ok=True)
                name = where.name if val is not None else "pictures"
                shards += _write(dataset, where, name, config.shard_megabytes * 10**6, advance)
    size = sum(file.stat().st_size for file in output.rglob("*.tar"))
    shown = f"{size / 1e6:.0f} MB" if size >= 1e7 else f"{size / 1e3:.0f} kB"
    return f"{total} images in {plural(shards, 'shard')}, {shown}, in {output}"


def _open(config: PackConfig) -> tuple[ImageDataset, ImageDataset | None]:
    """The training and validation images, without what their .json cannot hold.

    Raises:
        UsageError: a column of a table has a name that means something else in a .json.
    """
    source = absolute(config.source)
    exclude = absolute(config.exclude) if config.exclude else None
    if config.task == "single_label":
        refuse_label_table(source)
        return open_training(
            source, exclude=exclude, field="source", rules=ListRules(**config.list_rules())
        )
    rules = LabelRules(**config.rules())
    train, val = open_labelled_training(source, None, rules, exclude, field="source")
    left_out = {*train.class_names, rules.label_column}
    kept = [
        name for name in train.columns if name not in left_out and name.lower() not in SPLIT_COLUMNS
    ]
    taken = [name for name in kept if name in OWN_KEYS]
    if taken:
        raise UsageError(
            f"{train.source}: the column {taken[0]} would be taken for the labels in a .json; "
            "rename it, or name it as `label_column`"
        )
    first, second = (
        side and replace(side, columns={name: side.columns[name] for name in kept})
        for side in (train, val)
    )
    assert first is not None
    return first, second


def _write(
    dataset: ImageDataset, folder: Path, name: str, shard_bytes: int, advance: Callable[[], None]
) -> int:
    """Write shards, class names and index of one split; returns the number of shards.

    Raises:
        InputError: an image cannot be read, or the file of class names cannot hold a name.
    """
    classes = class_lines(dataset.class_names, dataset.source)
    shards: list[Path] = []
    shard, offsets, sizes = [], [], []
    at = 0
    while at < len(dataset):
        file = folder / f"{name}-{len(shards):06d}.tar"
        with file.open("wb") as out:
            with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                while at < len(dataset) and tar.offset < shard_bytes:
                    offset, size = _add_sample(tar, dataset, at)
                    shard.append(len(shards))
                    offsets.append(offset)
                    sizes.append(size)
                    at += 1
                    advance()
            out.flush()
            os.fsync(out.fileno())
        shards.append(file)
    index = Index(
        tuple(file.name for file in shards),
        np.array([file.stat().st_size for file in shards], dtype=np.int64),
        np.array(shard, dtype=np.int32),
        np.array(offsets, dtype=np.int64),
        np.array(sizes, dtype=np.int64),
        Names.of(dataset.paths),
        Names.of(_label(dataset, index) for index in range(len(dataset))),
    )
    write_atomic(folder / CLASSES, classes)
    write_atomic(folder / INDEX, index.to_npz())
    return len(shards)


def _label(dataset: ImageDataset, index: int) -> str:
    """The label of an image in an index: a number, or the text of several."""
    return label_text(_note(dataset, index)) if _several(dataset) else str(dataset.labels[index])


def _note(dataset: ImageDataset, index: int) -> dict[str, Any]:
    """The .json of an image."""
    path = dataset.paths[index]
    if not _several(dataset):
        return {"path": path, "label": int(dataset.labels[index])}
    values = dataset.labels[index].tolist()
    labels = {
        name: None if math.isnan(value) else int(value)
        for name, value in zip(dataset.class_names, values, strict=True)
    }
    columns = {name: cells[index] for name, cells in dataset.columns.items()}
    return {"path": path, "labels": labels, **columns}


def _several(dataset: ImageDataset) -> bool:
    return dataset.labels.ndim == 2


def _add_sample(tar: tarfile.TarFile, dataset: ImageDataset, index: int) -> tuple[int, int]:
    """Add an image with its label and path; returns offset and number of its bytes."""
    try:
        data, extension = _encoded(dataset.read(index), dataset.paths[index])
    except InputError as error:
        raise InputError(f"{dataset.name(index)}: {error}") from None
    note = _note(dataset, index)
    members = [(extension, data), ("json", json.dumps(note).encode())]
    if not _several(dataset):
        members.insert(1, ("cls", str(note["label"]).encode()))
    place = tar.offset + tarfile.BLOCKSIZE
    for suffix, content in members:
        member = tarfile.TarInfo(f"{index:09d}.{suffix}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return place, len(data)


def _encoded(image: Encoded, path: str) -> tuple[bytes, str]:
    """The bytes of an image and the extension of their format; pixels become PNG."""
    if isinstance(image, bytes):
        if format_of(image) == "DICOM":
            raise InputError(
                "DICOM may say who the patient is, so it is not copied; write it as a 16-bit PNG"
            )
        own = os.path.splitext(path)[1].lower().lstrip(".")  # noqa: PTH122
        return image, _EXTENSIONS.get(format_of(image) or "", own)
    done, data = cv2.imencode(".png", image[:, :, ::-1])
    assert done
    return data.tobytes(), "png"


def run(config: PackConfig) -> int:
    """Pack images and print the result."""
    print(pack(config))  # noqa: T201 (the command's output)
    return DONE
