"""Tar shards of images with several labels each, in a .json beside each image.

``{"path": ..., "labels": {"Edema": 1, "Mass": 0, "Nodule": null}, "patient": ...}``: 1 or true, 0
or false, null for not known, -1 for uncertain. ``{"labels": ["Edema", "Mass"]}`` lists what an
image has; numbers in a list are those of the lines of ``classes.txt``, from 0. Other texts and
numbers of the .json are columns, as those of a table.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.packed_strings import Names
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.labelled_rows import Rows, labels_of_rows
from densenet121.datasets.sources.shards import (
    CLASSES,
    INDEX,
    Index,
    chosen_shards,
    confirm,
    image_names,
    index_beside,
    newest,
    reader,
    shard_notes,
)
from densenet121.datasets.sources.splits import Split
from densenet121.datasets.sources.tar_samples import Members, notes_of_images, read_members
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.json_values import parse_json

OWN_KEYS = ("path", "label", "labels")  # keys of a .json that are no columns


def read_label_shards(where: Path, rules: LabelRules, split: Split | None = None) -> ImageDataset:
    """The images of the shards in a folder, or of one shard, in their order, with their labels.

    Args:
        where: the folder or the file.
        rules: how labels are read; a ``label_column`` is the key that lists them.
        split: as in ``find_shards``.

    Raises:
        InputError: a shard is damaged, or a label cannot be used; the text names the image.
        UsageError: a setting does not fit the shards.
    """
    files, notes = chosen_shards(where, split)
    index = index_label_shards(where, files)
    contents = [_content(text, where) for text in index.labels]
    places = [
        f"{files[number]}: {path}" for number, path in zip(index.shard, index.paths, strict=True)
    ]
    key = rules.label_column or _key(contents, where)
    names = sorted(
        {name for content in contents for name in content if name not in (*OWN_KEYS, key)}
    )
    rows = Rows(
        where,
        key,
        [_labels(content, key, place) for content, place in zip(contents, places, strict=True)],
        {name: [_cell(content.get(name)) for content in contents] for name in names},
        places,
        files[0].parent / CLASSES,
    )
    class_names, labels = labels_of_rows(rows, rules)
    return ImageDataset(
        where,
        class_names,
        index.paths,
        labels,
        index.sizes,
        read_one=reader(files, index),
        columns=rows.columns,
        notes=(*notes, *shard_notes(files)),
    )


def index_label_shards(where: Path, files: Sequence[Path]) -> Index:
    """Positions and labels of the images: from the index beside the shards, else from all of them.

    Raises:
        InputError: an image has no .json, or the shards have one class per image.
    """
    if not files:
        raise InputError(f"{where}: no tar files")
    index = index_beside(where, files)
    if index is not None and index.has_several_labels:
        return index
    time = newest(files)
    samples = [
        (number, *image, note.path or image[0], label_text(note.content or {}))
        for number, shard in enumerate(map(read_members, files))
        for image, note in zip(shard.images, _notes(files[number], shard), strict=True)
    ]
    if not samples:
        raise InputError(f"{where}: no images in {', '.join(file.name for file in files[:8])}")
    shard, _, offsets, sizes, paths, labels = zip(*samples, strict=True)
    found = Index(
        tuple(file.name for file in files),
        np.array([file.stat().st_size for file in files], dtype=np.int64),
        np.array(shard, dtype=np.int32),
        np.array(offsets, dtype=np.int64),
        np.array(sizes, dtype=np.int64),
        image_names(files, shard, paths),
        Names.of(labels),
    )
    confirm(files, found, time)
    return found


def _notes(file: Path, shard: Members) -> list[Any]:
    return list(notes_of_images(file, shard)) if shard.images else []


def label_text(content: Mapping[str, Any]) -> str:
    """What an index has of a .json: the JSON text of all but the path."""
    return json.dumps({name: value for name, value in content.items() if name != "path"})


def _key(contents: Sequence[Mapping[str, Any]], where: Path) -> str:
    """The key of the labels: ``labels``, or ``label`` where no .json has the other.

    Raises:
        UsageError: a .json has labels under both, and they differ.
    """
    pairs = [(content.get("labels"), content.get("label")) for content in contents]
    if any(isinstance(a, list | dict) and isinstance(b, list | dict) and a != b for a, b in pairs):
        raise UsageError(
            f"{where}: labels and label in a .json could be the labels; pass one as `label_column`"
        )
    return "labels" if any("labels" in content for content in contents) else "label"


def _labels(content: Mapping[str, Any], key: str, place: str) -> Any:
    if key not in content:
        raise InputError(
            f'{place}: its .json has no "{key}"; it needs the labels, as a list of those that the '
            "image has or as an object of 1, 0 and null"
        )
    return content[key]


def _content(text: str, where: Path) -> dict[str, Any]:
    """The .json of an image, from the index."""
    try:
        content = parse_json(text)
    except ValueError as error:
        content = error
    if not isinstance(content, dict):
        raise InputError(f"{where}: damaged {INDEX} ({content!s:.60}); remove it")
    return content


def _cell(value: Any) -> str:
    return str(value) if isinstance(value, str | int | float) else ""
