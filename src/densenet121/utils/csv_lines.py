"""Write CSV whose rows end in a line feed."""

import csv
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from _csv import Writer

_END = "\r\n"


class _Lines:
    """Writes rows that end in both characters as rows that end in a line feed."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out

    def write(self, row: str) -> int:
        return self._out.write(f"{row.removesuffix(_END)}\n")


def csv_writer(out: IO[str]) -> "Writer":
    """A writer of rows that every reader reads back, also a name with a carriage return.

    The csv module quotes the characters that end its rows, and no other line breaks.
    """
    return csv.writer(_Lines(out), lineterminator=_END)
