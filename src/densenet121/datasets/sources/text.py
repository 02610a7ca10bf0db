"""Read text that people and spreadsheets write: lists, class names, paths to exclude."""

import codecs
import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from densenet121.datasets.image_dataset import read_whole
from densenet121.utils.errors import InputError
from densenet121.utils.strays import stray

if TYPE_CHECKING:
    from _csv import Reader

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(file: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its byte-order mark.

    Other bytes than UTF-8 become surrogates, as in the names of files.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    data = read_whole(file)
    instead = stray(data[:512])
    if instead:
        raise InputError(f"{file}: is {instead}")
    if data.startswith(_UTF_16):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError:
            raise InputError(f"{file}: its UTF-16 is damaged; save it as UTF-8") from None
    if b"\0" in data:
        raise InputError(f"{file}: is no text, or UTF-16 without its mark; save it as UTF-8")
    return data.decode("utf-8-sig", "surrogateescape")


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

    ``.tsv`` is separated by tabs; anything else by commas, or by the semicolons or tabs of its
    first line, as spreadsheets write them in many countries. Raises csv.Error.
    """
    first = next((line for line in lines_of(text) if line.strip()), "")
    marks = "\t" if file.suffix.lower() == ".tsv" else ",;\t"
    return csv.reader(
        io.StringIO(text, newline=""),
        delimiter=next((mark for mark in marks if mark in first), marks[0]),
        skipinitialspace=True,
        strict=True,
    )
