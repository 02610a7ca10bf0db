"""The rows of a list of images: ``path label`` lines, or a table in CSV or TSV."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from densenet121.datasets.decoding import EXTENSIONS
from densenet121.datasets.label_cells import class_of_columns
from densenet121.datasets.sources.splits import SPLIT_COLUMNS, split_of
from densenet121.datasets.sources.text import csv_rows, lines_of, read_text
from densenet121.utils.errors import InputError, UsageError

SUFFIXES = (".txt", ".lst", ".csv", ".tsv")
PATH_COLUMNS = ("path", "image", "file", "filename", "file_name", "image_path", "filepath")
LABEL_COLUMNS = ("label", "class", "target", "class_name")

# For the first row of a table without a header.
_NO_HEADER = (
    "if it is a header, name the columns of the paths and of the classes by `path_column` and "
    "`label_column`; without a header the first two are these"
)

_HEADER_OF_LINES = "a .txt has no header; remove it, or call the file .csv or .tsv"


@dataclass(frozen=True)
class ListRules:
    """How a list is read.

    Attributes:
        path_column, label_column: columns of a table; None: found by their names.
        class_columns: a column for each class, with a 1 in that of the class of an image and a 0 in
            the others; empty: one column has the class.
        image_dir: the folder that paths are relative to; None: that of the list.
    """

    path_column: str | None = None
    label_column: str | None = None
    class_columns: tuple[str, ...] = ()
    image_dir: Path | None = None

    @property
    def columns_given(self) -> list[str]:
        """The settings that name columns."""
        given = {"path_column": self.path_column, "label_column": self.label_column}
        return [name for name, value in given.items() if value is not None] + (
            ["labels"] if self.class_columns else []
        )

    @property
    def given(self) -> list[str]:
        """The settings that only a list can have."""
        return self.columns_given + (["image_dir"] if self.image_dir else [])


BY_NAMES = ListRules()


@dataclass(frozen=True)
class Row:
    """A row of a list; ``others`` are the cells of its other columns."""

    line: int
    path: str
    label: str
    split: str = ""
    others: tuple[str, ...] = ()
    advice: str = ""  # if there is no such file


@dataclass(frozen=True)
class ParsedList:
    """The content of a list.

    ``comments`` are the lines that are none of its images, ``header`` the names of the columns
    whose cells the rows have in ``others``.
    """

    rows: list[Row]
    comments: list[int]
    has_splits: bool = False
    header: tuple[str, ...] = ()


def parse_list(file: Path, rules: ListRules) -> ParsedList:
    """The rows of a list, as it says them: no image is looked for, but where a header may be one.

    Raises:
        InputError: a line is no path and label; the text names it.
        UsageError: ``rules`` name columns of a list that has none.
    """
    text = read_text(file)
    if file.suffix.lower() in (".csv", ".tsv"):
        return _table(file, text, rules)
    if rules.columns_given:
        raise UsageError(f"{file}: has no columns, so `{rules.columns_given[0]}` means nothing")
    return _lines(file, text, rules.image_dir or file.parent)


def _lines(file: Path, text: str, root: Path) -> ParsedList:
    found = ParsedList([], [])
    for number, line in enumerate(lines_of(text), 1):
        if not line.strip():
            continue
        words = line.rsplit(maxsplit=1)
        path = words[0].strip()
        # A folder may be called #food; but a line may also be commented out.
        if line.startswith("#") and not (len(words) == 2 and _exists(root, path)):
            after = path.lstrip("# ")
            if len(words) == 2 and _is_image(path) and not _exists(root, after):
                raise InputError(
                    f"{file}, line {number}: {root / path}: there is no such image; remove "
                    "the line if it is a comment"
                )
            found.comments.append(number)
            continue
        if len(words) != 2:
            raise InputError(f'{file}, line {number}: "{line}" is not a path and a label')
        found.rows.append(Row(number, path, words[1]))
    if found.rows and found.rows[0].path.lower() in PATH_COLUMNS:
        found.rows[0] = replace(found.rows[0], advice=_HEADER_OF_LINES)
    return found


def _table(file: Path, text: str, rules: ListRules) -> ParsedList:
    reader = csv_rows(file, text)
    rows: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((reader.line_num, [cell.strip() for cell in row]))
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num}: {error}") from None
    path_at, label_at, split_at = 0, [1], None
    header: tuple[str, ...] = ()
    named: list[str] | None = None  # the columns
    if rows and _is_header(file, rows[0][1], rules):
        columns = [cells for _, cells in rows]
        rows, named = rows[1:], columns[0]
        path_at = _required(file, columns, PATH_COLUMNS, "path_column", rules.path_column)
        label_at = _label_places(file, columns, rules)
        split_at = _column(file, columns, SPLIT_COLUMNS)
        header = _others(columns[0], path_at, label_at)
    found = ParsedList([], [], has_splits=split_at is not None, header=header)
    for line, cells in rows:
        may_be_header = named is None and not found.rows
        if len(cells) <= max(path_at, *label_at) or not (cells[label_at[0]] and cells[path_at]):
            advice = _how_separated(file, cells) or (may_be_header and _NO_HEADER)
            raise InputError(
                f"{file}, line {line}: no path or no label" + (f"; {advice}" if advice else "")
            )
        if named is not None and any(cells[len(named) :]):
            raise InputError(
                f"{file}, line {line}: has {len(cells)} cells, but the header has {len(named)}; "
                "a cell with a separator in it needs quotation marks"
            )
        label = cells[label_at[0]]
        if rules.class_columns:
            own = [cells[at] for at in label_at]
            label = class_of_columns(rules.class_columns, own, f"{file}, line {line}")
        split = _split(file, line, cells, split_at)
        others = _others(cells, path_at, label_at) if header else ()
        entry = Row(line, cells[path_at], label, split, others)
        found.rows.append(replace(entry, advice=_NO_HEADER) if may_be_header else entry)
    return found


def _label_places(file: Path, rows: Sequence[Sequence[str]], rules: ListRules) -> list[int]:
    """The place of the column of the class, or of those of all classes."""
    if rules.class_columns:
        return [_required(file, rows, (), "labels", name) for name in rules.class_columns]
    return [_required(file, rows, LABEL_COLUMNS, "label_column", rules.label_column)]


def _how_separated(file: Path, cells: Sequence[str]) -> str:
    """How cells are separated, for a row that has only one."""
    if len(cells) != 1:
        return ""
    marks = "tabs" if file.suffix.lower() == ".tsv" else "commas, semicolons or tabs"
    return f"its cells have to be separated by {marks}"


def _others(cells: Sequence[str], path_at: int, label_at: Sequence[int]) -> tuple[str, ...]:
    """The cells beside path and label."""
    return tuple(cell for at, cell in enumerate(cells) if at != path_at and at not in label_at)


def _is_header(file: Path, cells: Sequence[str], rules: ListRules) -> bool:
    """Whether the first row names columns. A class may be called as a column is."""
    if rules.columns_given:
        return True
    header = {cell.lower() for cell in cells}
    has_path, has_label = header & set(PATH_COLUMNS), header & set(LABEL_COLUMNS)
    if has_path and has_label:
        return True
    is_image = any(
        _is_image(cell) or _exists(rules.image_dir or file.parent, cell) for cell in cells
    )
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


def _required(
    file: Path,
    rows: Sequence[Sequence[str]],
    names: tuple[str, ...],
    field: str,
    given: str | None,
) -> int:
    """The place of a column: the one that is ``given``, else the one called like it."""
    if given is not None:
        if rows[0].count(given) != 1:
            found = "no column" if given not in rows[0] else "several columns"
            raise InputError(
                f"{file}: {found} named {given} (`{field}`); it has {', '.join(rows[0])}"
            )
        return rows[0].index(given)
    found_at = _column(file, rows, names)
    if found_at is None:
        several = ", or a column for each class as `labels`" if field == "label_column" else ""
        raise InputError(
            f"{file}: no column named {', '.join(names)}; it has {', '.join(rows[0])}; pass the "
            f"one that is meant as `{field}`{several}"
        )
    return found_at


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
