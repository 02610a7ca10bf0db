"""Read text that people and spreadsheets write: lists, class names, paths to exclude."""

import codecs
import csv
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from densenet121.datasets.image_dataset import read_whole
from densenet121.utils.errors import InputError
from densenet121.utils.strays import stray

if TYPE_CHECKING:
    from _csv import Reader

_SEPARATOR = re.compile(r'"?sep=([,;\t|:])"?[\r\n]', re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*"')
# What spreadsheets write where a formula fails (#N/A, #REF!, in German #NV, #WERT!, in Spanish
# #¡VALOR!, Danish #I/T, Turkish #YOK, Hungarian, Russian), and where a column was too narrow.
_ERROR_VALUE = re.compile(
    r"#[¡¿]?[^\W\d]+(/0)?[!?]|#(N/[ABD]|I/T|\u041d/\u0414)[!?]?|#(NV|YOK|HIÁNYZIK)|Err:5\d\d|#{3,}"
)
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(file: Path) -> str:
    """The text of a file; see ``text_of``.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    return text_of(read_whole(file), str(file))


def text_of(
    data: bytes, name: str, other: str = "no text, or UTF-16 without its mark; save it as UTF-8"
) -> str:
    """Text in UTF-8, or in UTF-16 with its byte-order mark.

    Other bytes than UTF-8 become surrogates, as in the names of files.

    Args:
        data: the bytes.
        name: where they are from, for messages.
        other: what bytes that are no text are.

    Raises:
        InputError: it is no text.
    """
    instead = stray(data[:512])
    if instead:
        raise InputError(f"{name}: is {instead}")
    if data.startswith(_UTF_16):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError:
            raise InputError(f"{name}: its UTF-16 is damaged; save it as UTF-8") from None
    if b"\0" in data:
        raise InputError(f"{name}: is {other}")
    return data.decode("utf-8-sig", "surrogateescape")


def is_error_value(cell: str) -> bool:
    """Whether a spreadsheet wrote it in place of a value, as where a lookup found nothing."""
    small = cell[:1] == "#" and cell != cell.upper()
    return not small and _ERROR_VALUE.fullmatch(cell) is not None


def lines_of(text: str) -> list[str]:
    """The lines; unlike ``str.splitlines`` only at line breaks that a file name cannot have."""
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")


def names_of(file: Path) -> list[str]:
    """The lines of a file that are not blank, such as names of classes, without blanks around them.

    Raises:
        InputError: as ``read_text``.
    """
    return [line.strip() for line in lines_of(read_text(file)) if line.strip()]


def csv_rows(file: Path, text: str) -> "Reader":
    """The rows of a CSV or TSV file; blanks after a separator are passed over.

    ``.tsv`` is separated by tabs; anything else by what its first line has most of: commas, or the
    semicolons or tabs that spreadsheets write in many countries. A first line ``sep=;``, which is
    for Excel, says it instead, and is no row. Raises csv.Error.
    """
    said = _SEPARATOR.match(text)
    first = next((line for line in lines_of(text) if line.strip()), "")
    marks = said[1] if said else "\t" if file.suffix.lower() == ".tsv" else ",;\t"
    rows = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=max(marks, key=_QUOTED.sub("", first).count),
        skipinitialspace=True,
        strict=True,
    )
    if said:
        next(rows)
    return rows
