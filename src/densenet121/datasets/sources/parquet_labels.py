"""Parquet files of images with several labels each: a column of lists, or a column a label."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.parquet import (
    ImageRows,
    class_names_of,
    read_files,
    same_names,
)
from densenet121.datasets.sources.rows import IMAGE_COLUMNS, LabelColumns, column_of
from densenet121.datasets.sources.splits import Split
from densenet121.utils.errors import InputError


def read_label_parquet(where: Path, rules: LabelRules, split: Split | None = None) -> ImageDataset:
    """The images of a Parquet file, or of those of a folder, with their labels.

    The labels are in a column of lists called label (labels, class), or named by ``label_column``;
    numbers in it are those of the schema's names or of ``classes.txt``. Without one, each label has
    a column, as in a table.

    Args:
        where: the file or the folder.
        rules: how labels are read.
        split: as in ``read_parquet``.

    Raises:
        UsageError: pyarrow is not installed, or a setting does not fit.
        InputError: a label cannot be used; the text names file and row.
    """
    found = _Columns()
    files, notes = read_files(where, split, found.add)
    if not found.paths:
        raise InputError(f"{where}: no images")
    places = [found.place(index) for index in range(len(found.paths))]
    class_names, labels, columns = found.columns.labels(
        where, places, files[0].parent / "classes.txt", rules
    )
    return ImageDataset(
        where,
        class_names,
        found.names_of_images(),
        labels,
        np.array(found.sizes, dtype=np.int64),
        read_one=found.reader(),
        columns=columns,
        notes=tuple(notes),
    )


@dataclass
class _Columns(ImageRows):
    """The images with all other columns."""

    columns: LabelColumns = field(default_factory=LabelColumns)

    def add(self, file: Path, reader: Any) -> None:
        """Add the rows of a file."""
        from pyarrow import types

        schema = reader.schema_arrow
        image = column_of(file, schema.names, IMAGE_COLUMNS)
        others = [column for column in schema if column.name != image]
        first = not self.files
        self.files.append((file, len(self.paths)))
        for column in others:
            is_nested = types.is_nested(column.type)
            if not is_nested and (
                types.is_binary(column.type) or types.is_large_binary(column.type)
            ):
                continue
            target = self.columns.nested if is_nested else self.columns.cells
            if first:
                target[column.name] = []
            known = self.columns.names.get(column.name, [])
            found = class_names_of(schema.metadata or {}, column.name)
            self.columns.names[column.name] = same_names(file, column.name, known, found)
        wanted = [*self.columns.nested, *self.columns.cells]
        for name in wanted:
            column_of(file, schema.names, (name,))  # raises if it is missing
        for rows in self.add_file(file, reader, image, wanted):
            for target in (self.columns.nested, self.columns.cells):
                for name, values in target.items():
                    values += rows.column(name).to_pylist()
