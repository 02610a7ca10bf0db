"""Images divided into parts, such as train and val or folds, and the lists of each part."""

import io
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.class_names import name_notes
from densenet121.datasets.groups import group_ids
from densenet121.datasets.label_cells import class_of_columns
from densenet121.datasets.sources.label_table import (
    LabelRules,
    files_of,
    path_column_of,
    read_label_table,
)
from densenet121.datasets.sources.labels import check_labels, class_lines
from densenet121.datasets.sources.list_rows import (
    BY_NAMES,
    LABEL_COLUMNS,
    PATH_COLUMNS,
    ListRules,
    one_of,
)
from densenet121.datasets.sources.listed_files import plain_path
from densenet121.datasets.sources.open import open_splits
from densenet121.datasets.sources.open_table import refuse_label_table
from densenet121.datasets.sources.splits import SPLIT_COLUMNS
from densenet121.datasets.splits import Members, Numbers, assign, best_seed, group_hashes
from densenet121.datasets.tables import Table, read_table
from densenet121.utils.csv_lines import csv_writer
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.files import real_path


@dataclass(frozen=True)
class Images:
    """The images to divide.

    Attributes:
        root: folder that the paths are relative to.
        paths: path of each image.
        columns: the other columns of the lists to write.
        names: the classes or labels.
        labels: as those of ``ImageDataset``: ``(n,)`` numbers of classes, or ``(n, L)`` 1, 0 or
            nan.
        notes: what a user should know about the way they were found.
    """

    root: Path
    paths: Sequence[str]
    columns: dict[str, list[str]]
    names: list[str]
    labels: NDArray[Any]
    notes: tuple[str, ...] = ()

    @property
    def several_labels(self) -> bool:
        """Whether an image may have several labels, or none; else each has one class."""
        return self.labels.ndim == 2

    @property
    def pairs(self) -> tuple[Numbers, Numbers]:
        """Number of an image and of a label that it has."""
        if self.several_labels:
            image, label = np.nonzero(self.labels == 1)
            return image, label
        return np.arange(len(self.labels)), self.labels

    def without(self, excluded: Collection[str]) -> "Images":
        """The images that are not at these paths."""
        kept = np.array([path not in excluded for path in self.paths], dtype=np.bool_)
        return replace(
            self,
            paths=[self.paths[index] for index in np.flatnonzero(kept).tolist()],
            columns={
                name: [cell for cell, keep in zip(cells, kept, strict=True) if keep]
                for name, cells in self.columns.items()
            },
            labels=self.labels[kept],
        )


@dataclass(frozen=True)
class Division:
    """Which part each image is in.

    Attributes:
        ids: id of each image's group.
        part: ``(n,)`` number of each image's part.
        summary: the seed, and of each part the numbers of groups, images and labels.
    """

    ids: Sequence[str]
    part: Numbers
    summary: dict[str, Any]

    @property
    def groups(self) -> list[int]:
        """Number of groups in each part."""
        return [part["groups"] for part in self.summary["parts"].values()]


def images_with_labels(source: Path, rules: LabelRules) -> Images:
    """The images of a table of labels.

    Raises:
        InputError, UsageError: see ``read_label_table``; or a column has the name of one in a list.
    """
    dataset = read_label_table(source, rules)
    columns = {name: list(cells) for name, cells in dataset.columns.items()}
    _refuse_column("path", columns, str(source))
    _refuse_splits(columns, str(source))
    names, dataset = list(dataset.class_names), dataset.with_name_notes()
    return Images(dataset.root, dataset.paths, columns, names, dataset.labels, dataset.notes)


def images_with_class(
    source: Path,
    *,
    field: str = "source",
    rules: ListRules = BY_NAMES,
) -> Images:
    """Images that each have one class: of class folders, a list, or a table.

    Args:
        source: the folder or file.
        field: what messages call it.
        rules: how a list or a table is read.

    Raises:
        InputError, UsageError: they cannot be read, or are not files of their own.
    """
    if source.is_file() and source.suffix.lower() in (".csv", ".tsv"):
        table = read_table(source)
        if rules.path_column or set(PATH_COLUMNS) & {name.lower() for name in table.columns}:
            return _of_table(table, rules)
    if rules.columns_given:
        raise InputError(f"{source}: has no columns, so `{rules.columns_given[0]}` means nothing")
    refuse_label_table(source, "name the file itself to split its images")
    splits = open_splits(source, field=field, rules=rules)
    if len(splits) > 1:
        # Of train/ with val/ beside it, the folder that holds both.
        beside = splits["train"].source == source != splits["val"].source
        whole = source.parent if beside else source
        raise InputError(
            f"{whole}: is split already into train and val; to divide the images anew, put those "
            "of each class into one folder, or pass one list of paths and classes"
        )
    dataset = splits["train"]
    if dataset.read_one is not None:
        raise InputError(f"{source}: only images in files of their own can be split into lists")
    classes = list(dataset.class_names)
    columns = {"label": [classes[label] for label in dataset.labels]}
    return Images(dataset.root, dataset.paths, columns, classes, dataset.labels, dataset.notes)


def _of_table(table: Table, rules: ListRules) -> Images:
    """A table with the class of each image in one column, which the lists call label."""
    file = str(table.file)
    path_column = path_column_of(table, rules.path_column)
    paths, _, found = files_of(table, path_column, rules.image_dir)
    column, classes = _classes_of(table, rules)
    _refuse_unlike(table, path_column, PATH_COLUMNS, "path")
    names, numbers = check_labels(
        classes,
        table.file.parent / "classes.txt",
        file,
        place=lambda row: table.where(row, column or "of the class"),
    )
    columns = {name: cells for name, cells in table.columns.items() if name != path_column}
    _refuse_column("path", columns, file)
    _refuse_splits(columns, file)
    columns.pop(column if column == "label" else "", None)
    _refuse_column("label", columns, file)
    columns = {"label": classes, **columns}
    notes = (*found, *name_notes(file, names))
    return Images(rules.image_dir or table.file.parent, paths, columns, list(names), numbers, notes)


def _classes_of(table: Table, rules: ListRules) -> tuple[str | None, list[str]]:
    """The column of the classes, None if each class has one, and the class of each row."""
    if names := rules.class_columns:
        cells = [table.cells(name, "labels") for name in names]
        rows = zip(table.lines, zip(*cells, strict=True), strict=True)
        return None, [
            class_of_columns(names, row, f"{table.file}, line {line}") for line, row in rows
        ]
    own = [one for one in table.columns.items() if one[0].lower() in LABEL_COLUMNS]
    column = rules.label_column or one_of(own, "label", str(table.file))
    if column is None:
        raise InputError(
            f"{table.file}: has no column called label; name the labels by `label_column` or "
            "`labels`"
        )
    _refuse_unlike(table, column, LABEL_COLUMNS, "label")
    classes = table.identities(column, "label_column").tolist()
    if several := [name for name in classes if "|" in name]:
        raise UsageError(
            f'{table.file}, column {column}: "{several[0]}" looks like several labels; pass '
            "`label_separator` |"
        )
    return column, classes


def _refuse_unlike(table: Table, column: str, names: Collection[str], meaning: str) -> None:
    """Refuse another column that could be the path or the label of the lists that are written."""
    cells = table.cells(column, f"{meaning}_column")
    for name, others in table.columns.items():
        if name.lower() in names and others != cells:
            raise InputError(
                f"{table.file}: has another column called {name}; rename it, since training could "
                f"not tell whether it or {column} is the {meaning}"
            )


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


def divide(
    images: Images, parts: Mapping[str, float], *, group: str | None, stratify: bool, seed: int
) -> Division:
    """Divide images into parts, without a group in two of them.

    Args:
        images: the images.
        parts: name and share of each part; the shares sum to 1.
        group: column or regular expression of the groups (``group_ids``); None: each image alone.
        stratify: choose the seed that divides the labels most evenly (``best_seed``).
        seed: the assignment is a function of it and the group.

    Raises:
        InputError: an image has no group.
    """
    ids: Sequence[str] = images.paths  # each image by itself
    if group is not None:
        ids = group_ids(images.paths, images.columns, group, str(images.root))
    names, number = np.unique(np.array(list(ids)), return_inverse=True)
    hashes = group_hashes(names.tolist())
    shares = list(parts.values())
    # One more label that every image has: the parts' sizes are balanced with the labels.
    every = np.arange(len(ids)), np.full(len(ids), len(images.names))
    image, label = (np.concatenate(both) for both in zip(images.pairs, every, strict=True))
    members = Members(hashes, number[image], label, len(images.names) + 1)
    if stratify:
        seed = best_seed(members, shares, seed)
    part_of_group = assign(hashes, shares, seed)
    counts = members.counts(part_of_group, len(shares))
    groups = np.bincount(part_of_group, minlength=len(shares))
    summary = {
        "seed": seed,
        "group": group,
        "images": len(ids),
        "groups": len(names),
        "parts": {
            name: {
                "share": shares[part],
                "groups": int(groups[part]),
                "images": int(counts[part, -1]),
                "labels": dict(zip(images.names, counts[part].tolist(), strict=False)),
            }
            for part, name in enumerate(parts)
        },
    }
    return Division(ids, part_of_group[number], summary)


def lists_of(images: Images, division: Division, folder: Path) -> dict[str, bytes]:
    """The files to write into ``folder``: train, val and test, or those of each fold.

    Returns:
        Path in the folder to content: lists, and the names of the classes beside them.

    Raises:
        InputError: the name of a class begins or ends with a blank, or has a line break.
    """
    found: dict[str, bytes] = {}
    for where, lists in _parts_of_lists(list(division.summary["parts"])).items():
        for name, own in lists.items():
            chosen = np.flatnonzero(np.isin(division.part, own))
            found[os.path.join(where, f"{name}.csv")] = _list(images, chosen, folder / where)  # noqa: PTH118
        if not images.several_labels:
            file = os.path.join(where, "classes.txt")  # noqa: PTH118
            found[file] = class_lines(images.names, images.root)
    return found


def _parts_of_lists(parts: list[str]) -> dict[str, dict[str, list[int]]]:
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
    folder = real_path(folder)
    to_root = os.path.relpath(real_path(images.root), folder)
    text = io.StringIO()
    writer = csv_writer(text)
    writer.writerow(["path", *images.columns])
    for index in chosen.tolist():
        path = plain_path(folder, Path(to_root, images.paths[index]).as_posix())
        writer.writerow([path, *(cells[index] for cells in images.columns.values())])
    return text.getvalue().encode(errors="surrogateescape")
