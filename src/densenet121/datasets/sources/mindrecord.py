"""MindRecord files of images, as MindSpore writes them; read without MindSpore.

The image is a column of bytes called image, img, picture or data, its class a number or a name in a
column called label (labels, class, fine_label), its path in file_name or filename.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from densenet121.datasets.decoding import MAX_BYTES
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.sources.file_rows import files_of, image_reader, places_of
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.labels import check_labels
from densenet121.datasets.sources.layout import packed_in
from densenet121.datasets.sources.mindrecord_file import Head, numbers, read_head, read_rows
from densenet121.datasets.sources.read_at import read_at
from densenet121.datasets.sources.rows import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    LabelColumns,
    class_of,
    column_of,
    label_notes,
    unique_names,
)
from densenet121.datasets.sources.splits import (
    Split,
    refuse_split_rows,
    required_files,
    split_columns,
)
from densenet121.utils.errors import InputError, one_line

_IMAGES = (*IMAGE_COLUMNS, "data")
_PATHS = ("file_name", "filename", "path")


def read_mindrecords(where: Path, split: Split, *, partial: bool = False) -> ImageDataset:
    """The images of a MindRecord file with all files of its set, or of those of a folder.

    Of a folder whose files are named after splits, those of ``split`` are read; test files are
    taken for validation only if there are no others.

    Args:
        where: the file or the folder.
        split: the files of a folder to read.
        partial: allow missing classes, as validation images may have.

    Raises:
        InputError: a file or its index is damaged or missing, or an image has no class.
        UsageError: the folder has no file of the split.
    """
    rows, notes = _read(where, split)
    first = rows.files[0][0]
    key = column_of(first, list(rows.columns), LABEL_COLUMNS)
    places = rows.places()
    labels = [
        class_of(value, place) for value, place in zip(rows.columns[key], places, strict=True)
    ]
    class_names, found = check_labels(
        labels,
        first.parent / "classes.txt",
        str(where),
        partial=partial,
        place=places.__getitem__,
    )
    for name in split_columns(rows.columns):
        refuse_split_rows(where, f"the column {name}", rows.columns[name])
    notes += label_notes(where, rows.columns, key)
    return rows.dataset(where, class_names, found, notes)


def read_label_mindrecords(where: Path, rules: LabelRules, split: Split) -> ImageDataset:
    """As ``read_mindrecords``, with several labels of each image.

    An array of numbers is a list of labels; other columns are those of a table.

    Raises:
        InputError, UsageError: as ``read_mindrecords``; or a label cannot be used.
    """
    rows, notes = _read(where, split)
    columns = LabelColumns()
    for name, values in rows.columns.items():
        target = columns.nested if isinstance(values[0], list) else columns.cells
        target[name] = values
    classes_file = rows.files[0][0].parent / "classes.txt"
    class_names, labels, cells = columns.labels(where, rows.places(), classes_file, rules)
    return rows.dataset(where, class_names, labels, notes, cells)


def _read(where: Path, split: Split) -> tuple["_Rows", list[str]]:
    files, notes = _files(where, split)
    rows = _Rows()
    for file, head in files:
        rows.add(file, head)
    if not rows.positions:
        raise InputError(f"{where}: no images")
    return rows, notes


def _files(where: Path, split: Split) -> tuple[list[tuple[Path, Head]], list[str]]:
    """The files of a split in the order of their sets, and notes.

    Raises:
        InputError: a file of a set is missing.
        UsageError: no file is named after the split, but others are named after one.
    """
    notes: list[str] = []
    if where.is_file():
        head = read_head(where)
        files = [where.with_name(name) for name in head.names] if len(head.names) > 1 else [where]
        there = {file.name for file in where.parent.iterdir()}
        if missing := [file for file in files if file.name not in there]:
            raise InputError(f"{missing[0]}: is missing; {where.name} is one of {len(files)} files")
    else:
        every = packed_in(where, ".mindrecord")
        files, notes = required_files(where, every, split, "MindRecord")
    sets: dict[tuple[str, ...], dict[int, tuple[Path, Head]]] = {}
    for file in files:
        head = read_head(file)
        own = sets.setdefault(head.names if len(head.names) > 1 else (file.name,), {})
        if head.shard in own:
            raise InputError(f"{file}: is number {head.shard} of its set, as {own[head.shard][0]}")
        own[head.shard] = file, head
    for names, own in sets.items():
        if len(names) > 1 and (absent := sorted(set(range(len(names))) - own.keys())):
            raise InputError(
                f"{files[0].parent}: of the {len(names)} files {names[0]} ... of a set, "
                f"{names[absent[0]]} is missing"
            )
    return [own[number] for own in sets.values() for number in sorted(own)], notes


@dataclass
class _Rows:
    """The rows of the files.

    Attributes:
        files: each file, and the number of rows before it.
        positions: of each image its first byte and its size.
        columns: what the rows have beside the image, by column.
    """

    files: list[tuple[Path, int]] = field(default_factory=list)
    positions: list[tuple[int, int]] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, file: Path, head: Head) -> None:
        """Add the rows of a file.

        Raises:
            InputError: it is damaged, or has other columns than the files before.
        """
        image = column_of(file, head.blobs or ("no column of bytes",), _IMAGES)
        arrays = [
            name
            for name in head.blobs
            if name != image and head.types[name] not in ("bytes", "string")
        ]
        wanted = [name for name in head.types if name not in head.blobs] + arrays
        if not self.files:
            self.columns = {name: [] for name in wanted}
        if set(wanted) != set(self.columns) or head.types[image] != "bytes":
            raise InputError(
                f"{file}: its columns are {', '.join(head.types)}; {image} of bytes and "
                f"{', '.join(self.columns)} are needed"
            )
        self.files.append((file, len(self.positions)))
        for row in read_rows(file, head):
            place = f"{file}, row {len(self.positions) - self.files[-1][1]}"
            if row.blobs[image][1] > MAX_BYTES:
                raise InputError(f"{place}: an image of more than {MAX_BYTES} bytes")
            for name in wanted:
                self.columns[name].append(self._value(file, head, row, name, place))
            self.positions.append(row.blobs[image])

    def _value(self, file: Path, head: Head, row: Any, name: str, place: str) -> Any:
        if name not in head.blobs:
            if name not in row.values:
                raise InputError(f"{place}: has no {name}")
            return row.values[name]
        try:
            return numbers(read_at(file, *row.blobs[name]), head.types[name])
        except ValueError as error:
            raise InputError(f"{place}: {name} is damaged ({one_line(error)})") from None

    def places(self) -> list[str]:
        """File and row of each image, for messages."""
        return places_of(self.files, len(self.positions))

    def dataset(
        self,
        where: Path,
        class_names: tuple[str, ...],
        labels: Any,
        notes: list[str],
        columns: Any = None,
    ) -> ImageDataset:
        """The images with these labels."""
        key = next((name for name in _PATHS if name in self.columns), None)
        paths = [
            str(self.columns[key][index]) if key else f"{file.name}/{index:08d}"
            for index, file in enumerate(files_of(self.files, len(self.positions)))
        ]
        return ImageDataset(
            where,
            class_names,
            unique_names(paths),
            labels,
            np.array([size for _, size in self.positions], dtype=np.int64),
            read_one=image_reader(self.files, self.positions),
            columns=columns or {},
            notes=tuple(notes),
        )
