"""The ``split`` command: lists of images for training and validation, divided by group."""

import csv
import io
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from densenet121.commands import DONE
from densenet121.config import SplitConfig, absolute
from densenet121.datasets.groups import group_ids
from densenet121.datasets.sources.label_table import (
    LabelRules,
    files_of,
    path_column_of,
    read_label_table,
)
from densenet121.datasets.sources.labels import check_labels
from densenet121.datasets.sources.lists import LABEL_COLUMNS, PATH_COLUMNS, SPLIT_COLUMNS
from densenet121.datasets.sources.open import open_splits
from densenet121.datasets.splits import Members, Numbers, assign, best_seed, group_hashes
from densenet121.datasets.tables import Table, read_table
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.files import write_atomic, write_json

_MANY = 40  # labels in the printed table


@dataclass(frozen=True)
class Images:
    """The images to split.

    Attributes:
        root: folder that the paths are relative to.
        paths: path of each image.
        columns: the other columns of the lists to write.
        names: the labels.
        pairs: number of an image and of a label that it has.
        class_names: the classes, if each image has one, else None.
    """

    root: Path
    paths: Sequence[str]
    columns: dict[str, list[str]]
    names: list[str]
    pairs: tuple[Numbers, Numbers]
    class_names: list[str] | None


def split(config: SplitConfig) -> dict[str, Any]:
    """Write the lists and return what split.json says.

    Raises:
        UsageError: the output exists.
        InputError: the images cannot be read or grouped, or a part would be empty.
    """
    output = absolute(config.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"--output {output} already exists; choose a new folder")
    source = absolute(config.source)
    images = read_images(source, config)
    ids: Sequence[str] = images.paths  # each image by itself
    if config.group is not None:
        ids = group_ids(images.paths, images.columns, config.group, str(images.root))
    names, group = np.unique(np.array(list(ids)), return_inverse=True)
    hashes = group_hashes(names.tolist())
    shares = list(config.parts.values())
    seed = config.seed
    # One more label that every image has: the parts' sizes are balanced with the labels.
    every = np.arange(len(ids)), np.full(len(ids), len(images.names))
    image, label = (np.concatenate(both) for both in zip(images.pairs, every, strict=True))
    members = Members(hashes, group[image], label, len(images.names) + 1)
    if config.stratify:
        seed = best_seed(members, shares, seed)
    part_of_group = assign(hashes, shares, seed)
    counts = members.counts(part_of_group, len(shares))
    groups = np.bincount(part_of_group, minlength=len(shares))
    _refuse_empty(config, groups, len(names))
    result = {
        "source": str(source),
        "seed": seed,
        "group": config.group,
        "images": len(ids),
        "groups": len(names),
        "parts": {
            name: {
                "share": shares[part],
                "groups": int(groups[part]),
                "images": int(counts[part, -1]),
                "labels": dict(zip(images.names, counts[part].tolist(), strict=False)),
            }
            for part, name in enumerate(config.parts)
        },
    }
    _write(output, images, part_of_group[group], result)
    return result


def read_images(source: Path, config: SplitConfig) -> Images:
    """The images with their labels and columns.

    Raises:
        InputError, UsageError: they cannot be read, or are not files of their own.
    """
    if config.several_labels:
        dataset = read_label_table(source, LabelRules(**config.rules()))
        image, label = np.nonzero(dataset.labels == 1)
        columns = {name: list(cells) for name, cells in dataset.columns.items()}
        _refuse_column("path", columns, str(source))
        _refuse_splits(columns, str(source))
        names = list(dataset.class_names)
        return Images(dataset.root, dataset.paths, columns, names, (image, label), None)
    if source.is_file() and source.suffix.lower() in (".csv", ".tsv"):
        table = read_table(source)
        if config.path_column or set(PATH_COLUMNS) & {name.lower() for name in table.columns}:
            return _one_class(table, config)
    for field in ("path_column", "label_column"):
        if getattr(config, field) is not None:
            raise InputError(f"{source}: has no columns, so `{field}` means nothing")
    splits = open_splits(source, field="source")
    if len(splits) > 1:
        raise InputError(f"{source}: is split already into train and val")
    dataset = splits["train"]
    if dataset.read_one is not None:
        raise InputError(f"{source}: only images in files of their own can be split into lists")
    classes = list(dataset.class_names)
    columns = {"label": [classes[label] for label in dataset.labels]}
    pairs = np.arange(len(dataset)), dataset.labels
    return Images(dataset.root, dataset.paths, columns, classes, pairs, classes)


def _one_class(table: Table, config: SplitConfig) -> Images:
    """A table with the class of each image in one column, which the lists call label."""
    file = str(table.file)
    path_column = path_column_of(table, config.path_column)
    paths, _ = files_of(table, path_column)
    own = {name.lower(): name for name in table.columns}
    column = config.label_column or next((own[x] for x in LABEL_COLUMNS if x in own), None)
    if column is None:
        raise InputError(
            f"{file}: has no column called label; name the labels by `label_column` or `labels`"
        )
    classes = table.identities(column, "label_column").tolist()
    if several := [name for name in classes if "|" in name]:
        raise UsageError(
            f'{file}, column {column}: "{several[0]}" looks like several labels; pass '
            "`label_separator` |"
        )
    names, numbers = check_labels(classes, table.file.parent / "classes.txt", file)
    columns = {name: cells for name, cells in table.columns.items() if name != path_column}
    _refuse_column("path", columns, file)
    _refuse_splits(columns, file)
    columns.pop(column if column == "label" else "", None)
    _refuse_column("label", columns, file)
    columns = {"label": classes, **columns}
    pairs = np.arange(len(paths)), numbers
    return Images(table.file.parent, paths, columns, list(names), pairs, list(names))


def _refuse_column(name: str, columns: Mapping[str, list[str]], file: str) -> None:
    """Refuse a further column with a name that has a meaning in a list."""
    if name in columns:
        raise InputError(f"{file}: has another column called {name}; rename it")


def _refuse_splits(columns: Mapping[str, list[str]], file: str) -> None:
    """Refuse a column of splits, which the lists would keep and training would obey."""
    found = next((name for name in columns if name.lower() in SPLIT_COLUMNS), None)
    if found is not None:
        raise InputError(
            f"{file}: is split already, by its column {found}, which train and eval obey; rename "
            "the column to split the images anew"
        )


def _refuse_empty(config: SplitConfig, groups: Numbers, total: int) -> None:
    if not groups.all():
        name = list(config.parts)[int(np.argmin(groups))]
        raise InputError(
            f"part {name} would have none of the {total} groups; choose another `seed`, larger "
            "parts or `stratify`"
        )


def _write(output: Path, images: Images, part: Numbers, result: Mapping[str, Any]) -> None:
    """The lists: train, val and test, or those of each fold in a folder of its own."""
    folder = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        for where, lists in _lists(list(result["parts"])).items():
            (folder / where).mkdir(parents=True, exist_ok=True)
            for name, own in lists.items():
                content = _list(images, np.flatnonzero(np.isin(part, own)), output / where)
                write_atomic(folder / where / f"{name}.csv", content)
            if images.class_names is not None:
                names = "".join(f"{name}\n" for name in images.class_names)
                write_atomic(folder / where / "classes.txt", names.encode(errors="surrogateescape"))
        write_json(folder / "split.json", result)
        if output.exists():
            output.rmdir()  # it is empty
        folder.rename(output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lists(parts: list[str]) -> dict[str, dict[str, list[int]]]:
    """Folder to the lists in it, each of some of the parts."""
    number = {name: index for index, name in enumerate(parts)}
    test = {"test": [number["test"]]} if "test" in number else {}
    if "train" in number:
        return {".": {name: [index] for name, index in number.items()}}
    folds = [name for name in parts if name != "test"]
    found = {
        f"fold_{fold}": {
            "train": [number[other] for other in folds if other != fold],
            "val": [number[fold]],
        }
        for fold in folds
    }
    return found | ({".": test} if test else {})


def _list(images: Images, chosen: Numbers, folder: Path) -> bytes:
    """A list whose paths are relative to the folder it will be in."""
    to_root = os.path.relpath(images.root.resolve(), folder.resolve())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", *images.columns])
    for index in chosen.tolist():
        path = Path(os.path.normpath(Path(to_root, images.paths[index]))).as_posix()
        writer.writerow([path, *(cells[index] for cells in images.columns.values())])
    return text.getvalue().encode(errors="surrogateescape")


def text(result: Mapping[str, Any]) -> str:
    """What was written, as a table of images per part and label."""
    parts: dict[str, Any] = result["parts"]
    labels = list(next(iter(parts.values()))["labels"])
    rows = [["", *parts], ["groups", *(str(part["groups"]) for part in parts.values())]]
    rows.append(["images", *(str(part["images"]) for part in parts.values())])
    rows += [
        [name, *(str(part["labels"][name]) for part in parts.values())] for name in labels[:_MANY]
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    if len(labels) > _MANY:
        lines.append(f"and {len(labels) - _MANY} more labels in split.json")
    lines += [
        f"note: no image of {name} in {part}"
        for part, found in parts.items()
        for name, count in found["labels"].items()
        if not count
    ]
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def run(config: SplitConfig) -> int:
    """Split and print the counts."""
    result = split(config)
    print(text(result))  # noqa: T201 (the command's output)
    print(f"seed {result['seed']}; lists are in {absolute(config.output)}")  # noqa: T201
    if config.stratify:
        print(  # noqa: T201
            f"to add images later without moving these: --seed {result['seed']} without --stratify"
        )
    return DONE
