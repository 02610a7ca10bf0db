"""Images in rows, as tables and records of others have them: their classes, or several labels.

A row has an image and values of any type. Its class is a number or a name. Several labels are a
list or an object in one column, or a column each.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.packed_strings import Names
from densenet121.datasets.sources.label_table import LabelRules, labels_of_table
from densenet121.datasets.sources.labelled_rows import Rows, labels_of_rows
from densenet121.datasets.tables import Table
from densenet121.utils.errors import InputError, UsageError, one_line, some

IMAGE_COLUMNS = ("image", "img", "picture")
LABEL_COLUMNS = ("label", "labels", "class", "fine_label")
Label = int | str


def column_of(file: Path, names: Sequence[str], wanted: tuple[str, ...]) -> str:
    """The first of some columns that a file has.

    Raises:
        InputError: it has none of them.
    """
    for name in wanted:
        if name in names:
            return name
    raise InputError(
        f"{file}: no column {' or '.join(wanted)}; it has {one_line(', '.join(names))}"
    )


def label_notes(
    where: Path, names: Collection[str], key: str, wanted: tuple[str, ...] = LABEL_COLUMNS
) -> list[str]:
    """A note, if the classes are those of ``key`` but other columns could have them as well."""
    others = [name for name in wanted if name in names and name != key]
    if not others:
        return []
    return [
        f"{where}: the classes are those of the column {key}, not of {some(others)}; rename {key} "
        f"to read {others[0]}"
    ]


def unique_names(paths: Sequence[str]) -> Names:
    """The paths, each different: the hub stores only file names, without folders."""
    if len(set(paths)) == len(paths):
        return Names.of(paths)
    return Names.of(f"{index:08d}/{path}" for index, path in enumerate(paths))


def class_of(value: Any, place: str) -> Label:
    """A class as a number or a name.

    Raises:
        InputError: it is none, several, or of another kind.
    """
    if isinstance(value, float) and value.is_integer():  # pandas, where another label is none
        value = int(value)
    if isinstance(value, bytes):
        value = value.decode(errors="surrogateescape")
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int) or (isinstance(value, str) and value.strip()):
        return value
    if isinstance(value, list | dict):
        raise InputError(
            f"{place}: the label is a {type(value).__name__} ({value!s:.40}); one class "
            "per image is needed, or `task` multilabel"
        )
    raise InputError(
        f"{place}: the label is {value!r}, which is no class; leave such images out "
        "(test sets are often published without labels)"
    )


def numbers_of(
    labels: Sequence[Label], names: Sequence[str], place: Callable[[int], str]
) -> NDArray[np.int64]:
    """Numbers of classes whose names are known.

    Raises:
        InputError: a number has no name.
    """
    numbers = np.array(labels, dtype=np.int64)
    wrong = np.flatnonzero((numbers < 0) | (numbers >= len(names)))
    if len(wrong):
        raise InputError(
            f"{place(int(wrong[0]))}: the label is {numbers[wrong[0]]}, but the file names the "
            f"classes 0 to {len(names) - 1}; leave such images out ({len(wrong)} of {len(numbers)})"
        )
    return numbers


@dataclass
class LabelColumns:
    """What rows have beside their images.

    Attributes:
        cells: columns of texts and numbers.
        nested: columns of lists or of objects.
        names: names of the numbers in those columns, if they are known.
    """

    cells: dict[str, list[Any]] = field(default_factory=dict)
    nested: dict[str, list[Any]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)

    def labels(
        self, where: Path, places: Sequence[str], classes_file: Path, rules: LabelRules
    ) -> tuple[tuple[str, ...], NDArray[np.float32], Mapping[str, Sequence[str]]]:
        """The names of the labels, ``(N, K)`` of 1, 0 or nan, and all columns of texts.

        Labels are in a column of lists called label (labels, class), or named by ``label_column``.
        Without one, each label has a column, as in a table.

        Args:
            where: the source, for messages.
            places: where each row is, for messages.
            classes_file: names of the numbers in lists, where the columns know none.
            rules: how labels are read.

        Raises:
            UsageError: a setting does not fit, or several columns could have the labels.
            InputError: a label cannot be used; the text names its row.
        """
        if rules.path_column is not None:
            raise UsageError(
                f"`path_column` is for tables of text; {where} has the images themselves"
            )
        columns = {name: [_cell(value) for value in values] for name, values in self.cells.items()}
        key = rules.label_column or self._default_key(where, rules.names)
        if key in self.nested:
            known = tuple(self.names.get(key, ()))
            rows = Rows(where, key, self.nested[key], columns, places, classes_file, known)
            return *labels_of_rows(rows, rules), columns
        table = Table(where, columns, range(len(places)), places)
        return *labels_of_table(table, rules), columns

    def _default_key(self, where: Path, names: Sequence[str]) -> str | None:
        """The nested column that holds the labels; None if each of them has a column.

        Raises:
            UsageError: several could, and they differ.
        """
        found = [name for name in LABEL_COLUMNS if name in self.nested]
        if not found or (names and set(names) <= set(self.cells)):
            return None
        if any(self.nested[name] != self.nested[found[0]] for name in found):
            raise UsageError(
                f"{where}: the columns {some(found)} could be the labels; pass one as "
                "`label_column`"
            )
        return found[0]


def _cell(value: Any) -> str:
    return "" if value is None or value != value else str(value).strip()
