"""A table of images with several labels each: a column a label, or one column that lists them."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.label_cells import (
    LABEL_CELLS,
    Choice,
    labels_of_columns,
    labels_of_lists,
    listed_in,
)
from densenet121.datasets.packed_strings import Names
from densenet121.datasets.sources.list_rows import PATH_COLUMNS
from densenet121.datasets.sources.listed_files import ListedFiles, plain_path
from densenet121.datasets.sources.splits import other_split_notes, split_columns
from densenet121.datasets.sources.text import is_error_value
from densenet121.datasets.tables import Table, read_table
from densenet121.utils.errors import InputError, UsageError, some
from densenet121.utils.strays import refuse_stray

TABLE = "labels.csv"  # in a folder that is named as the source
SUFFIXES = (".csv", ".tsv")
_NO_LABELS = ("id", "age", "fold", "split", "index", "number")  # columns of numbers that are none
_SEPARATORS = "|;,"
# How spreadsheets in other languages and other programs write labels; with decimals below.
_OTHER_WORDS = {"wahr", "falsch", "vrai", "faux", "verdadero", "verdadeiro", "falso", "vero"}
_OTHER_WORDS |= {"y", "n", "ja", "nein", "oui", "non", "+", "-", "pos", "neg"}
_OTHER_WORDS |= {"positive", "negative", "present", "absent"}
_DECIMAL_COMMA = re.compile(r"-?[01],0+")


@dataclass(frozen=True)
class LabelRules:
    """How a table of labels is read.

    Attributes:
        path_column: the column of the paths; None: found by its name.
        image_dir: the folder that paths are relative to; None: that of the table.
        names: the labels, in order; empty: all that the table has.
        label_column: the one column that lists the labels of an image; None: a column a label.
        separator: what separates the labels in that column; None: a cell is one label.
        negative: the word in that column for no label; None: there is none.
        ignored: words in that column that are no label, and are passed over.
        uncertain: what -1 means; None refuses it.
        missing: what a blank cell means; None refuses it.
        partial: whether a label may be unknown for every image, as in a set to evaluate.
    """

    path_column: str | None = None
    image_dir: Path | None = None
    names: tuple[str, ...] = ()
    label_column: str | None = None
    separator: str | None = None
    negative: str | None = None
    ignored: tuple[str, ...] = ()
    uncertain: Choice = None
    missing: Choice = None
    partial: bool = False


def read_label_table(source: Path, rules: LabelRules) -> ImageDataset:
    """The images of a CSV or TSV file, or of ``labels.csv`` in a folder; paths relative to it.

    ``ImageDataset.labels`` is ``(N, K)`` float32: 1, 0, or nan where the label is not known.

    Raises:
        InputError: a path or a label cannot be used; the text names the file and the line.
        UsageError: a setting does not fit the table.
    """
    file = source / TABLE if source.is_dir() else source
    if file.suffix.lower() not in SUFFIXES:
        refuse_stray(file)
        raise InputError(f"{file}: labels are read from .csv or .tsv, or from {TABLE} in a folder")
    table = read_table(file)
    path_column = path_column_of(table, rules.path_column)
    names, labels = labels_of_table(table, rules, path_column)
    paths, sizes, found = files_of(table, path_column, rules.image_dir)
    notes = found + _notes(table, rules, path_column)
    if not split_columns(table.columns):
        others = {name: cells for name, cells in table.columns.items() if name != path_column}
        notes += tuple(other_split_notes(file, others))
    return ImageDataset(
        rules.image_dir or file.parent,
        names,
        Names.of(paths),
        labels,
        np.array(sizes, dtype=np.int64),
        columns={name: cells for name, cells in table.columns.items() if name != path_column},
        notes=notes,
        listed_in=file,
    )


def labels_of_table(
    table: Table, rules: LabelRules, path_column: str = ""
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """The names of the labels, and ``(N, K)``: 1, 0 or nan.

    Raises:
        InputError, UsageError: as ``read_label_table``.
    """
    names = rules.names
    if not names:
        in_columns = rules.label_column is None
        names = _label_columns(table, path_column) if in_columns else _listed(table, rules)
    labels = known_labels(table, names, rules)
    for name, column in zip(names, labels.T, strict=True):
        if np.isnan(column).all() and not rules.partial:
            raise InputError(f"{table.file}: no image has a known value of the label {name}")
    return names, labels.astype(np.float32)


def path_column_of(table: Table, given: str | None = None) -> str:
    """The column of the paths: the given one, or the one that is called like it.

    Raises:
        InputError: there is no such column.
        UsageError: none or several are called like it.
    """
    if given is not None:
        table.cells(given, "path_column")
        return given
    found = [name for name in table.columns if name.lower() in PATH_COLUMNS]
    if len(found) == 1:
        return found[0]
    problem = f"the columns {', '.join(found)} could be" if found else "no column is called like"
    raise UsageError(
        f"{table.file}: {problem} the path; pass `path_column`, one of {some(list(table.columns))}"
    )


def known_labels(table: Table, names: Sequence[str], rules: LabelRules) -> NDArray[np.float64]:
    """``(n, L)``: 1, 0 or nan (unknown) for the labels ``names``.

    Raises:
        InputError: see ``labels_of_columns`` and ``labels_of_lists``.
        UsageError: a choice is for a label that there is not, or a label is ignored.
    """
    for field, choice in (("uncertain", rules.uncertain), ("missing", rules.missing)):
        named = choice if isinstance(choice, Mapping) else {}
        unknown = [name for name in named if name and name not in names]
        if unknown:
            raise UsageError(
                f"{table.file}: `{field}` names {unknown[0]}, which is no label; the labels are "
                f"{some(names, 20)}"
            )
    if rules.label_column is None:
        return labels_of_columns(
            table,
            names,
            uncertain=rules.uncertain,
            missing=rules.missing,
            partial=rules.partial,
        )
    return labels_of_lists(
        table,
        rules.label_column,
        names,
        separator=rules.separator,
        negative=rules.negative,
        ignored=rules.ignored,
        missing=rules.missing,
    )


def _label_columns(table: Table, path_column: str) -> tuple[str, ...]:
    """The columns that have nothing but labels, and a positive one."""
    found, _ = _columns_of_cells(table, path_column)
    if not found:
        raise UsageError(
            f"{table.file}: no column has only labels (1, 0, true, false, yes, no, -1, blank); "
            f"pass `labels`, or `label_column`, of the columns {some(list(table.columns))}"
        )
    return tuple(found)


def _columns_of_cells(table: Table, path_column: str) -> tuple[list[str], list[str]]:
    """The columns with nothing but cells of labels: with a positive one, and without."""
    found: list[str] = []
    never: list[str] = []
    for name, cells in table.columns.items():
        values = {LABEL_CELLS.get(cell.lower()) for cell in cells}
        if name != path_column and not _is_number(name) and None not in values:
            (found if 1.0 in values else never).append(name)
    return found, never


def _is_number(name: str) -> bool:
    """Whether a column is called like one of numbers that are no labels, or not at all."""
    return not name or any(word in _NO_LABELS for word in name.lower().replace("_", " ").split())


def _notes(table: Table, rules: LabelRules, path_column: str) -> tuple[str, ...]:
    """Notes about what may be a mistake, if the labels are those that the table has."""
    if rules.names:
        return ()
    if rules.label_column is not None:
        return _words_not_there(table, rules)
    found, never = _columns_of_cells(table, path_column)
    notes = list(_nearly_labels(table, {*table.columns} - {path_column, *found, *never}))
    if never:
        notes.append(
            f"{table.file}: no cell of {some(never)} is positive, so it is not taken for a label; "
            "if it is one, name all labels by `labels`"
        )
    return tuple(notes)


def _nearly_labels(table: Table, names: Collection[str]) -> Iterator[str]:
    """Notes about columns whose cells would be labels if they were written otherwise.

    A few cells of them are no labels, such as a misspelt one, or all cells are labels as others
    write them, such as WAHR and FALSCH, or where a spreadsheet's formula failed.
    """
    for name in table.columns:
        cells = table.columns[name] if name in names and not _is_number(name) else []
        filled = [cell for cell in cells if cell]
        few_wrong = sum(cell.lower() in LABEL_CELLS for cell in filled) * 2 > len(filled)
        if few_wrong or (len(set(filled)) > 1 and all(map(_is_like_a_label, filled))):
            wrong = [row for row, cell in enumerate(cells) if cell.lower() not in LABEL_CELLS]
            yield (
                f'{table.where(wrong[0], name)}: "{cells[wrong[0]]}" is not 1, 0, -1, blank, true, '
                f"false, yes or no, as are {len(wrong)} of {len(cells)} cells, so {name} is not "
                "taken for a label; correct them if it is one"
            )


def _is_like_a_label(cell: str) -> bool:
    """Whether a cell is a label as this or another program writes it, or a spreadsheet's error."""
    low = cell.lower()
    known = low in LABEL_CELLS or low in _OTHER_WORDS or is_error_value(cell)
    return known or _DECIMAL_COMMA.fullmatch(cell) is not None


def _words_not_there(table: Table, rules: LabelRules) -> tuple[str, ...]:
    """A note about words for no label that no cell of the one column has, as if misspelt."""
    column = str(rules.label_column)
    listed = listed_in(table, column, rules.separator, {rules.negative, *rules.ignored})
    words = {part for parts in listed for part in parts or ()}
    given = ("negative_label", (rules.negative,)), ("ignore_labels", rules.ignored)
    return tuple(
        f"{table.file}: no cell of the column {rules.label_column} has {word} (`{field}`); words "
        "are compared as they are written"
        for field, those in given
        for word in those
        if word is not None and word not in words
    )


def _listed(table: Table, rules: LabelRules) -> tuple[str, ...]:
    """The labels that occur in the one column, sorted."""
    words = {rules.negative, *rules.ignored}
    listed = listed_in(table, str(rules.label_column), rules.separator, words)
    cells = table.columns[str(rules.label_column)]
    if rules.separator is None:
        alone = [cell for cell, parts in zip(cells, listed, strict=True) if parts == [cell]]
        marks = [mark for mark in _SEPARATORS if any(mark in cell for cell in alone)]
        if marks:
            example = next(cell for cell in alone if marks[0] in cell)
            raise UsageError(
                f'{table.file}, column {rules.label_column}: "{example}" looks like several '
                f"labels; pass `label_separator` {marks[0]}, or another that no cell has"
            )
    names = sorted({part for parts in listed for part in parts or ()} - words)
    if not names:
        raise InputError(f"{table.file}: the column {rules.label_column} has no label")
    return tuple(names)


def files_of(
    table: Table, path_column: str, image_dir: Path | None
) -> tuple[list[str], list[int], tuple[str, ...]]:
    """The path of each image, relative to ``image_dir``, its size in bytes, and notes.

    Raises:
        InputError: a path is blank, occurs twice, or is no file.
    """
    cells = table.columns[path_column]
    files = ListedFiles(table.file, image_dir, next(filter(None, cells), ""), "table")
    known: dict[str, int] = {}
    paths, sizes = [], []
    for row, path in enumerate(cells):
        where, line = table.where(row, path_column), table.lines[row]
        if not path:
            raise InputError(f"{where}: no path")
        found, size = files.find(path, where)
        same = plain_path(files.root, found)
        if same in known:
            raise InputError(f"{where}: {path} is already in line {known[same]}")
        known[same] = line
        paths.append(found)
        sizes.append(size)
    return paths, sizes, files.notes(cells[0], paths) if paths else ()
