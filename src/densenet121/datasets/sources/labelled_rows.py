"""Labels of images that a .json or a row of a Parquet file has: a list or an object for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.label_cells import labels_of_columns, labels_of_findings
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.text import names_of
from densenet121.datasets.tables import Table
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.json_values import is_text


@dataclass(frozen=True)
class Rows:
    """The labels of some images, as they were read.

    Attributes:
        where: the source, for messages.
        key: what holds the labels, for messages.
        labels: of each image a list of its labels (names, or numbers of ``classes_file``), an
            object of label to 1, 0, None or -1, or None for not known.
        columns: what else is known of each image, by column.
        places: where each image is, for messages.
        classes_file: names of the labels in order, one per line; it need not exist.
        names: the names of numbers in lists, if the source has them; empty if not.
    """

    where: Path
    key: str
    labels: Sequence[Any]
    columns: Mapping[str, Sequence[str]]
    places: Sequence[str]
    classes_file: Path
    names: tuple[str, ...] = field(default=())


def labels_of_rows(rows: Rows, rules: LabelRules) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """The names of the labels, and ``(N, K)``: 1, 0 or nan.

    Raises:
        InputError: a label cannot be used; the text names the image.
        UsageError: a setting does not fit.
    """
    if rules.separator is not None or rules.path_column is not None:
        name = "label_separator" if rules.separator is not None else "path_column"
        raise UsageError(f"`{name}` is for tables of text; {rows.where} has no need of it")
    _check_names(rows)
    table = Table(rows.where, {}, range(len(rows.labels)), rows.places)
    kinds = {_kind(row, place) for row, place in zip(rows.labels, rows.places, strict=True)}
    given = rows.names or _names_in(rows.classes_file)
    if len(kinds - {"null"}) > 1:
        first = next(i for i, row in enumerate(rows.labels) if isinstance(row, dict))
        raise InputError(
            f"{rows.places[first]}: its {rows.key} are an object, those of other images are lists; "
            "all need the same form"
        )
    if "object" in kinds:
        names, found = _of_objects(rows, rules, table, given)
    else:
        names, found = _of_lists(rows, rules, table, given)
    for name, column in zip(names, found.T, strict=True):
        if np.isnan(column).all() and not rules.partial:
            raise InputError(f"{rows.where}: no image has a known value of the label {name}")
    return names, found.astype(np.float32)


def _check_names(rows: Rows) -> None:
    """Refuse labels with half a character, as JSON may have, which no file could hold."""
    for row, place in zip(rows.labels, rows.places, strict=True):
        names = row if isinstance(row, list | dict) else ()
        if not all(is_text(name) for name in names if isinstance(name, str)):
            raise InputError(f"{place}: a label has half a character")


def _kind(row: Any, place: str) -> str:
    if row is None:
        return "null"
    if isinstance(row, dict):
        return "object"
    if isinstance(row, list):
        return "list"
    raise InputError(
        f"{place}: its labels are {row!r:.40}; a list of the labels that the image has is needed, "
        "or an object of 1, 0 and null"
    )


def _of_objects(
    rows: Rows, rules: LabelRules, table: Table, given: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Labels of objects: a label that an object lacks is blank."""
    objects = [row or {} for row in rows.labels]
    for setting, value in (("negative_label", rules.negative), ("ignore_labels", rules.ignored)):
        if value:
            raise UsageError(f"`{setting}` is for lists of labels; {rows.where} has 1, 0 and null")
    known = dict.fromkeys(name for row in objects for name in row)
    _refuse_unknown(rows, set(known), given)
    names = tuple(rules.names or given or known)
    columns = {
        name: [_cell(row.get(name)) for row in objects] for name in dict.fromkeys((*known, *names))
    }
    missing = [name for name in names if name not in known]
    if missing and not given:
        raise InputError(
            f"{rows.where}: no image has the label {missing[0]}; it has {', '.join(known)}"
        )
    found = Table(table.file, columns, table.lines, table.places)
    return names, labels_of_columns(
        found,
        names,
        uncertain=rules.uncertain,
        missing=rules.missing,
        partial=rules.partial,
    )


def _cell(value: Any) -> str:
    return "" if value is None or value != value else str(value)  # nan: pandas has it for null


def _of_lists(
    rows: Rows, rules: LabelRules, table: Table, given: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Labels of lists: what a list does not name is negative."""
    if rules.uncertain is not None:
        raise UsageError(f"`uncertain` is for objects of 1, 0 and -1; {rows.where} has lists")
    listed = [
        None if row is None else [_name(value, row, given, place) for value in row]
        for row, place in zip(rows.labels, rows.places, strict=True)
    ]
    occurring = {name for row in listed if row for name in row}
    _refuse_pairs(rows)
    ignored = {rules.negative, *rules.ignored}
    _refuse_unknown(rows, occurring - ignored, given)
    names = tuple(rules.names or given or sorted(occurring - ignored))
    if not names:
        raise InputError(f"{rows.where}: no image has a label")
    return names, labels_of_findings(
        table,
        rows.key,
        listed,
        names,
        negative=rules.negative,
        ignored=rules.ignored,
        missing=rules.missing,
    )


def _refuse_pairs(rows: Rows) -> None:
    """Refuse lists that all are 0, 1 or 1, 0: the numbers of both labels, or one hot."""
    found = {tuple(row) for row in rows.labels if row is not None}
    if (1, 0) in found and found <= {(0, 1), (1, 0)}:
        raise InputError(
            f"{rows.where}: every list in {rows.key} is 0, 1 or 1, 0; that may be the numbers of "
            "both labels, or 1 and 0 for each of two; write lists of names, or a column for each"
        )


def _name(value: Any, row: Sequence[Any], given: Sequence[str], place: str) -> str:
    """The name of an element of a list."""
    if isinstance(value, str) and value.strip():
        return value.strip()
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(
            f"{place}: the label {value!r:.40} in a list is neither a name nor a number"
        )
    if len(set(row)) < len(row):
        raise InputError(
            f"{place}: the numbers {row!s:.60} repeat, but a list holds the numbers of the labels "
            "that the image has; one number for each label is written as an object of label and 1, "
            "0 or null"
        )
    if not 0 <= value < len(given):
        known = f"there are names for 0 to {len(given) - 1}" if given else "there are no names"
        raise InputError(
            f"{place}: the label is the number {value}, but {known}; write them into classes.txt, "
            "one per line"
        )
    return given[value]


def _refuse_unknown(rows: Rows, occurring: set[str], given: Sequence[str]) -> None:
    unknown = sorted(occurring - set(given))
    if given and unknown:
        raise InputError(
            f"{rows.where}: the label {unknown[0]} is not among those of "
            f"{rows.classes_file if not rows.names else 'its schema'} ({', '.join(given[:20])})"
        )


def _names_in(file: Path) -> tuple[str, ...]:
    if not file.is_file():
        return ()
    names = tuple(names_of(file))
    if len(set(names)) < len(names):
        raise InputError(f"{file}: a name occurs twice")
    return names
