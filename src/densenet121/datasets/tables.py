"""Tables in CSV and TSV files: columns by name, every error with file, line and column."""

import csv
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.sources.text import csv_rows, read_text
from densenet121.utils.checks import number_in
from densenet121.utils.errors import InputError, some


@dataclass(frozen=True)
class Table:
    """The rows of a file, as text.

    Attributes:
        file: the file.
        columns: column to its cells, one per row, without spaces around them.
        lines: line of the file in which each row ends, for messages.
        places: where each row is, if it is not a line of a file.
    """

    file: Path
    columns: dict[str, list[str]]
    lines: Sequence[int]
    places: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.lines)

    def cells(self, column: str, field: str) -> list[str]:
        """The cells of a column; ``field`` is the setting that names it.

        Raises:
            InputError: there is no such column; the text has those there are.
        """
        if column not in self.columns:
            raise InputError(
                f"{self.file}: no column named {column} (`{field}`); it has "
                f"{some(list(self.columns), 20)}"
            )
        return self.columns[column]

    def where(self, row: int, column: str) -> str:
        """Place of a cell, for messages."""
        if self.places is not None:
            return f"{self.places[row]}, label {column}"
        return f"{self.file}, line {self.lines[row]}, column {column}"

    def identities(self, column: str, field: str) -> NDArray[np.str_]:
        """The cells of a column that has to name something in every row, such as a patient.

        Raises:
            InputError: no such column, or a blank cell.
        """
        cells = self.cells(column, field)
        blank = [row for row, cell in enumerate(cells) if not cell]
        if blank:
            raise InputError(
                f"{self.where(blank[0], column)}: is blank, as are {len(blank)} of {len(self)} "
                f"rows; `{field}` needs a value in every row"
            )
        return np.array(cells)

    def probabilities(self, column: str, field: str) -> NDArray[np.float64]:
        """The numbers of a column, each in [0, 1].

        Raises:
            InputError: no such column, or a cell is blank, no number, or outside.
        """
        found = np.empty(len(self))
        for row, cell in enumerate(self.cells(column, field)):
            try:
                found[row] = number_in(cell)
            except ValueError:
                found[row] = math.nan
            if math.isnan(found[row]):
                raise InputError(
                    f'{self.where(row, column)}: "{cell}" is not a probability{_in_point(cell)}'
                )
        outside = np.flatnonzero((found < 0) | (found > 1))
        if len(outside):
            first = int(outside[0])
            raise InputError(
                f"{self.where(first, column)}: {self.columns[column][first]} is outside 0 to 1, as "
                f"are {len(outside)} of {len(self)} rows; logits must become probabilities first, "
                "and what rounding put outside be cut off"
            )
        return found


def _in_point(cell: str) -> str:
    """What to do with a number of a spreadsheet; empty for anything else."""
    if re.fullmatch(r"\d*,\d+", cell):
        return "; write decimals with a point"
    return "; divide per cent by 100" if re.fullmatch(r"[\d.,]+ *%", cell) else ""


def read_table(file: Path) -> Table:
    """Read a file with a header; see ``csv_rows``.

    Raises:
        InputError: the file cannot be read, has no rows, a column twice, or a row of another
            length.
    """
    reader = csv_rows(file, read_text(file))
    names: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if not names:
                names = [cell.strip() for cell in row]
                continue
            if len(row) != len(names):
                raise InputError(
                    f"{file}, line {reader.line_num}: has {len(row)} cells, but the header has "
                    f"{len(names)}"
                )
            rows.append([cell.strip() for cell in row])
            lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num}: {error}") from None
    names, rows = _without_blank(names, rows)
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InputError(f"{file}: the header has {twice[0] or 'a blank name'} twice")
    if not rows:
        raise InputError(f"{file}: has no rows; a header and one line per image are needed")
    cells = [list(column) for column in zip(*rows, strict=True)]
    return Table(file, dict(zip(names, cells, strict=True)), lines)


def _without_blank(names: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Names and rows without columns that have neither name nor cells, if several have no name.

    Spreadsheets write such columns where cells were deleted.
    """
    if names.count("") < 2:
        return names, rows
    kept = [at for at, name in enumerate(names) if name or any(row[at] for row in rows)]
    return [names[at] for at in kept], [[row[at] for at in kept] for row in rows]
