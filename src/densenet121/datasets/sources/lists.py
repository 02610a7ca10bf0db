"""A list of images in a file: one ``path label`` per line, or CSV."""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from densenet121.datasets.decoding import EXTENSIONS
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.packed_strings import Names
from densenet121.datasets.sources.labels import check_labels
from densenet121.datasets.sources.listed_files import bytes_of, plain_path
from densenet121.datasets.sources.splits import (
    SPLIT_COLUMNS,
    Split,
    other_split_notes,
    split_of,
    test_note,
)
from densenet121.datasets.sources.text import csv_rows, lines_of, read_text
from densenet121.utils.errors import InputError

SUFFIXES = (".txt", ".lst", ".csv", ".tsv")
PATH_COLUMNS = ("path", "image", "file", "filename", "file_name", "image_path", "filepath")
LABEL_COLUMNS = ("label", "class", "target", "class_name")

# For the first row of a table without a header.
_NO_HEADER = (
    "if it is a header, call the column of the paths path and that of the classes label; without a "
    "header the first two are these"
)

_HEADER_OF_LINES = "a .txt has no header; remove it, or call the file .csv or .tsv"


@dataclass(frozen=True)
class _Row:
    line: int
    path: str
    label: str
    split: str = ""
    others: tuple[str, ...] = ()
    advice: str = "paths are relative to the list"  # if there is no such file


@dataclass(frozen=True)
class _List:
    """The content of a list.

    ``comments`` are the lines that are none of its images, ``header`` the names of the columns
    whose cells the rows have in ``others``.
    """

    rows: list[_Row]
    comments: list[int]
    has_splits: bool = False
    header: tuple[str, ...] = ()


def read_list(
    file: Path, split: Split, *, partial: bool = False, columns: bool = False
) -> ImageDataset:
    """The images listed in ``file``, in its order.

    Paths are relative to the folder of the list. In ``.txt`` and ``.lst`` the label is the last
    word of the line, so paths may have spaces; empty lines are skipped, and lines that begin with #
    unless they name an image. ``.csv`` and ``.tsv`` have a header that names a path and a label
    column, or two columns. With a column called split only the rows of ``split`` are read.
    ``classes.txt`` beside the list, if it exists, has the class names in order.

    Args:
        file: the list.
        split: the rows to read of a list with a column called split.
        partial: allow missing classes, as validation images may have.
        columns: keep the other columns of a table with a header, as an evaluation by patient needs.

    Raises:
        InputError: no label, no such file, or an image is listed twice; the text names the line.
    """
    found = _parse(file)
    rows, notes = _rows_of(file, found, split)
    root = file.parent
    sizes = _check_files(file, rows)
    if not rows:
        raise InputError(f"{file}: has no images; each line needs a path and a label")
    class_names, numbers = check_labels(
        [row.label for row in rows],
        root / "classes.txt",
        str(file),
        partial=partial,
        place=lambda index: f"{file}, line {rows[index].line}",
    )
    others = _columns(found.header, rows)
    if not found.has_splits:
        notes += other_split_notes(file, others)
    if found.comments:
        notes.append(
            f"{file}: {len(found.comments)} lines that begin with # are comments, first line "
            f"{found.comments[0]}"
        )
    return ImageDataset(
        root,
        class_names,
        Names.of(row.path for row in rows),
        numbers,
        np.array(sizes, dtype=np.int64),
        columns=others if columns else {},
        notes=tuple(notes),
        listed_in=file,
    )


def _columns(header: Sequence[str], rows: Sequence[_Row]) -> dict[str, list[str]]:
    """Column to cell of each row; a short row has blank cells at its end."""
    counts = Counter(header)
    return {
        name: [row.others[at] if at < len(row.others) else "" for row in rows]
        for at, name in enumerate(header)
        if name and counts[name] == 1
    }


def has_own_splits(file: Path) -> bool:
    """Whether a list has a column called split, with rows of training and of others."""
    if file.suffix.lower() not in SUFFIXES or not file.is_file():
        return False
    found = _parse(file)
    splits = {row.split for row in found.rows}
    return found.has_splits and "train" in splits and len(splits) > 1


def _parse(file: Path) -> _List:
    text = read_text(file)
    return _table(file, text) if file.suffix.lower() in (".csv", ".tsv") else _lines(file, text)


def _rows_of(file: Path, found: _List, split: Split) -> tuple[list[_Row], list[str]]:
    """The rows of a split, and notes; all rows if they are of one split."""
    if not found.has_splits or len({row.split for row in found.rows}) == 1:
        return found.rows, []
    rows = [row for row in found.rows if row.split == split]
    notes = []
    if split == "val" and not rows:
        rows = [row for row in found.rows if row.split == "test"]
        notes = [test_note(f"{file}: no row is of the split val")] if rows else []
    if not rows:
        splits = ", ".join(sorted({row.split for row in found.rows}))
        raise InputError(f"{file}: no row is of the split {split}; it has {splits}")
    return rows, notes


def _check_files(file: Path, rows: Sequence[_Row]) -> list[int]:
    """The bytes of each image.

    Raises:
        InputError: there is no such file, or it is listed twice.
    """
    lines: dict[str, _Row] = {}
    sizes = []
    for row in rows:
        path = plain_path(file.parent, row.path)
        if path in lines:
            other = lines[path]
            advice = (
                "remove one of the two lines"
                if other.label == row.label
                else f"with the label {other.label}, and one class per image is needed"
            )
            raise InputError(
                f"{file}, line {row.line}: {row.path} is already in line {other.line}; {advice}"
            )
        lines[path] = row
        where = f"{file}, line {row.line}"
        sizes.append(bytes_of(file.parent, row.path, where, row.advice))
    return sizes


def _lines(file: Path, text: str) -> _List:
    found = _List([], [])
    for number, line in enumerate(lines_of(text), 1):
        if not line.strip():
            continue
        words = line.rsplit(maxsplit=1)
        path = words[0].strip()
        # A folder may be called #food; but a line may also be commented out.
        if line.startswith("#") and not (len(words) == 2 and _exists(file.parent, path)):
            after = path.lstrip("# ")
            if len(words) == 2 and _is_image(path) and not _exists(file.parent, after):
                raise InputError(
                    f"{file}, line {number}: {file.parent / path}: there is no such image; remove "
                    "the line if it is a comment"
                )
            found.comments.append(number)
            continue
        if len(words) != 2:
            raise InputError(f'{file}, line {number}: "{line}" is not a path and a label')
        found.rows.append(_Row(number, path, words[1]))
    if found.rows and found.rows[0].path.lower() in PATH_COLUMNS:
        found.rows[0] = replace(found.rows[0], advice=_HEADER_OF_LINES)
    return found


def _table(file: Path, text: str) -> _List:
    reader = csv_rows(file, text)
    rows: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((reader.line_num, [cell.strip() for cell in row]))
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num}: {error}") from None
    path_at, label_at, split_at = 0, 1, None
    header: tuple[str, ...] = ()
    named: list[str] | None = None  # the columns
    if rows and _is_header(file, rows[0][1]):
        columns = [cells for _, cells in rows]
        rows, named = rows[1:], columns[0]
        path_at = _required(file, columns, PATH_COLUMNS)
        label_at = _required(file, columns, LABEL_COLUMNS)
        split_at = _column(file, columns, SPLIT_COLUMNS)
        header = _others(columns[0], path_at, label_at)
    found = _List([], [], has_splits=split_at is not None, header=header)
    for line, cells in rows:
        may_be_header = named is None and not found.rows
        if len(cells) <= max(path_at, label_at) or not cells[label_at] or not cells[path_at]:
            advice = _how_separated(file, cells) or (may_be_header and _NO_HEADER)
            raise InputError(
                f"{file}, line {line}: no path or no label" + (f"; {advice}" if advice else "")
            )
        if named is not None and any(cells[len(named) :]):
            raise InputError(
                f"{file}, line {line}: has {len(cells)} cells, but the header has {len(named)}; "
                "a cell with a separator in it needs quotation marks"
            )
        split = _split(file, line, cells, split_at)
        others = _others(cells, path_at, label_at) if header else ()
        entry = _Row(line, cells[path_at], cells[label_at], split, others)
        found.rows.append(replace(entry, advice=_NO_HEADER) if may_be_header else entry)
    return found


def _how_separated(file: Path, cells: Sequence[str]) -> str:
    """How cells are separated, for a row that has only one."""
    if len(cells) != 1:
        return ""
    marks = "tabs" if file.suffix.lower() == ".tsv" else "commas, semicolons or tabs"
    return f"its cells have to be separated by {marks}"


def _others(cells: Sequence[str], path_at: int, label_at: int) -> tuple[str, ...]:
    """The cells beside path and label."""
    return tuple(cell for at, cell in enumerate(cells) if at not in (path_at, label_at))


def _is_header(file: Path, cells: Sequence[str]) -> bool:
    """Whether the first row names columns. A class may be called as a column is."""
    header = {cell.lower() for cell in cells}
    has_path, has_label = header & set(PATH_COLUMNS), header & set(LABEL_COLUMNS)
    if has_path and has_label:
        return True
    is_image = any(_is_image(cell) or _exists(file.parent, cell) for cell in cells)
    return bool(has_path or has_label) and not is_image


def _split(file: Path, line: int, cells: Sequence[str], at: int | None) -> str:
    if at is None:
        return ""
    value = cells[at] if at < len(cells) else ""
    found = split_of(value)
    if found is None:
        raise InputError(
            f'{file}, line {line}: the split is "{value}"; it must be train, val (or valid, '
            "validation, dev) or test"
        )
    return found


def _required(file: Path, rows: Sequence[Sequence[str]], names: tuple[str, ...]) -> int:
    found = _column(file, rows, names)
    if found is None:
        raise InputError(
            f"{file}: no column named {', '.join(names)}; it has {', '.join(rows[0])}; rename the "
            f"one that is meant to {names[0]}"
        )
    return found


def _column(file: Path, rows: Sequence[Sequence[str]], names: tuple[str, ...]) -> int | None:
    """The place of the column that is called like one of ``names``; the first row has the names.

    Raises:
        InputError: several are, with other cells.
    """
    places = [at for at, name in enumerate(rows[0]) if name.lower() in names]
    columns = [
        (rows[0][at], [row[at] if at < len(row) else "" for row in rows[1:]]) for at in places
    ]
    one_of(columns, names[0], str(file))
    return places[0] if places else None


def one_of(
    columns: Sequence[tuple[str, Sequence[str]]],
    meaning: str,
    where: str,
    advice: str = "remove or rename all but one",
) -> str | None:
    """The name of the column that has what is looked for; None if there is no candidate.

    Args:
        columns: name and cells of each candidate.
        meaning: what is looked for.
        where: the file, for messages.
        advice: what to do if it cannot be told.

    Raises:
        InputError: there are several, and their cells differ.
    """
    if any(cells != columns[0][1] for _, cells in columns):
        names = ", ".join(name for name, _ in columns)
        raise InputError(f"{where}: the columns {names} could be the {meaning}; {advice}")
    return columns[0][0] if columns else None


def _exists(root: Path, path: str) -> bool:
    try:
        return (root / path).is_file()
    except (OSError, ValueError):
        return False


def _is_image(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in EXTENSIONS  # noqa: PTH122
