"""One MindRecord file: its head, its index beside it, and the rows.

A file is a head (its length in 8 bytes, JSON, zeros up to ``header_size``) and pages of
``page_size`` bytes. The SQLite file of the same name with ``.db`` says of each row where its parts
begin and end: texts and numbers as MessagePack in one page, bytes and arrays in another. Each part
has its length before it (little-endian). Of several columns of bytes each has its own length before
it (big-endian). Arrays of integers are packed: their number, 2 bits each for 1, 2, 4 or 8 bytes,
then the integers.
"""

import itertools
import mmap
import sqlite3
import struct
import urllib.parse
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from densenet121.utils.errors import InputError, one_line
from densenet121.utils.json_values import parse_json
from densenet121.utils.messagepack import unpack
from densenet121.utils.strays import refuse_stray

_MOST_HEAD = 2**31
_ROWS = (
    "SELECT ROW_ID, PAGE_ID_RAW, PAGE_OFFSET_RAW, PAGE_OFFSET_RAW_END, PAGE_ID_BLOB, "
    "PAGE_OFFSET_BLOB, PAGE_OFFSET_BLOB_END FROM INDEXES"
)
# Of SQLite, for the statement above and the text of the table: they need less.
_MOST_TEXT, _MOST_STEPS = 2**20, 1000


@dataclass(frozen=True)
class Head:
    """What the head of a file says.

    Attributes:
        header_size: bytes before the first page.
        page_size: bytes of a page.
        shard: number of the file in its set, from 0.
        names: the names of all files of the set.
        blobs: the columns of bytes and arrays, in the order in which they are stored.
        types: the type of every column.
        rows: number of rows.
    """

    header_size: int
    page_size: int
    shard: int
    names: tuple[str, ...]
    blobs: tuple[str, ...]
    types: dict[str, str]
    rows: int


@dataclass(frozen=True)
class Row:
    """A row: texts and numbers, and first byte and size of each column of bytes."""

    values: dict[str, Any]
    blobs: dict[str, tuple[int, int]]


def read_head(file: Path) -> Head:
    """The head of a file.

    Raises:
        InputError: it is no MindRecord file, damaged, or has several schemas.
    """
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            if not 2 <= size <= min(_MOST_HEAD, file.stat().st_size):
                raise ValueError("its head is cut short, or the file is encrypted")
            return _head(parse_json(opened.read(size)), size)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        refuse_stray(file)
        reason = f"no {error}" if isinstance(error, KeyError) else one_line(error)
        raise InputError(f"{file}: not a MindRecord file, or damaged ({reason})") from None


def _head(content: Any, size: int) -> Head:
    schemas = content["schema"]
    if len(schemas) != 1:
        raise ValueError(f"it has {len(schemas)} schemas")
    blobs = tuple(schemas[0]["blob_fields"])
    columns = schemas[0]["schema"]
    head = Head(
        content["header_size"],
        content["page_size"],
        content["shard_id"],
        tuple(content["shard_addresses"]),
        blobs,
        {name: column["type"] for name, column in columns.items()},
        sum(
            page["end_row_id"] - page["start_row_id"]
            for page in content["page"]
            if page["page_type"] == "BLOB_DATA"
        ),
    )
    numbers = (head.header_size, head.page_size, head.shard, head.rows)
    if not all(isinstance(n, int) and 0 <= n < 2**62 for n in numbers) or not head.page_size:
        raise ValueError("its sizes are no numbers")
    if size + 8 > head.header_size or not set(blobs) <= set(head.types):
        raise ValueError("its parts are inconsistent")
    if not all(isinstance(name, str) for name in (*head.names, *head.types.values())):
        raise ValueError("its names are no texts")
    if not all(name and Path(name).name == name for name in head.names):
        raise ValueError("it names files outside its folder")
    return head


def read_rows(file: Path, head: Head) -> Iterator[Row]:
    """The rows of a file, in their order; the bytes of images are not touched.

    Raises:
        InputError: the index is missing, damaged or of another file, or a row is damaged.
    """
    places = _index(file, head)
    if not places:
        return
    try:
        with (
            file.open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            for number, (raw_page, raw, raw_end, page, blob, blob_end) in enumerate(places):
                try:
                    values = unpack(data[slice(*_part(data, head, raw_page, raw, raw_end))])
                    if not isinstance(values, dict):
                        raise ValueError("its values have no names")
                    start, end = _part(data, head, page, blob, blob_end)
                    yield Row(values, dict(_columns(data, head, start, end)))
                except (ValueError, struct.error) as error:
                    raise InputError(
                        f"{file}, row {number}: is damaged ({one_line(error)})"
                    ) from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None


def integers(data: bytes) -> list[int]:
    """The integers of a packed array.

    Raises:
        ValueError: it is damaged.
    """
    if len(data) < 4:
        raise ValueError("an array is cut short")
    count = int.from_bytes(data[:4], "big")
    at = 4 + -(-count // 4)
    if at + count > len(data):
        raise ValueError("an array is cut short")
    found = []
    for index in range(count):
        width = 1 << (data[4 + index // 4] >> 6 - index % 4 * 2 & 3)
        if at + width > len(data):
            raise ValueError("an array is cut short")
        found.append(int.from_bytes(data[at : at + width], "little", signed=True))
        at += width
    if at != len(data):
        raise ValueError("an array is too long")
    return found


def numbers(data: bytes, kind: str) -> list[int] | list[float]:
    """The numbers of an array of a column's type.

    Raises:
        ValueError: it is damaged, or of another type.
    """
    if kind in ("int32", "int64"):
        return integers(data)
    if kind in ("float32", "float64"):
        values = np.frombuffer(data, "<f4" if kind == "float32" else "<f8").tolist()
        return [float(value) for value in values]
    raise ValueError(f"it is of the type {kind}")


def _index(file: Path, head: Head) -> list[tuple[int, ...]]:
    """The page, first byte and end of the parts of each row."""
    index = file.with_name(file.name + ".db")
    if not index.is_file():
        raise InputError(
            f"{file}: its index {index.name} is not beside it; copy it from where the file was "
            "written, or write the file anew"
        )
    address = urllib.parse.quote(bytes(index.resolve()))
    try:
        with closing(sqlite3.connect(f"file:{address}?mode=ro&immutable=1", uri=True)) as opened:
            opened.set_authorizer(_plain_columns_only)
            opened.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_TEXT)
            opened.setlimit(sqlite3.SQLITE_LIMIT_VDBE_OP, _MOST_STEPS)
            found = opened.execute(_ROWS)
            rows: list[tuple[int, ...]] = []
            for row in itertools.islice(found, head.rows):
                if not all(isinstance(value, int) for value in row):
                    raise InputError(f"{index}: is damaged (a position is no number)")
                rows.append(row)
            count = len(rows) + sum(1 for _ in found)
    except (sqlite3.Error, UnicodeDecodeError, OverflowError, MemoryError) as error:
        refuse_stray(index)
        raise InputError(
            f"{index}: is no index of MindRecord, or damaged ({one_line(error)})"
        ) from None
    rows.sort()
    if count != head.rows or any(row[0] != number for number, row in enumerate(rows)):
        raise InputError(
            f"{index}: has {count} rows, but {file.name} has {head.rows}; they are of "
            "different files, or damaged"
        )
    return [row[1:] for row in rows]


def _plain_columns_only(
    action: int, table: str | None, column: str | None, database: str | None, view: str | None
) -> int:
    """What SQLite asks before it runs a statement: may it?

    The name of a table may stand for a statement in the file, which computes rows without end.
    """
    plain = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ) and view is None
    return sqlite3.SQLITE_OK if plain else sqlite3.SQLITE_DENY


def _part(data: mmap.mmap, head: Head, page: int, start: int, end: int) -> tuple[int, int]:
    """First byte and end of a part, after its length."""
    first = head.header_size + page * head.page_size
    if not (page >= 0 and start >= 0 and start + 8 <= end <= head.page_size):
        raise ValueError("its place is outside its page")
    if first + end > len(data):
        raise ValueError("the file is cut short")
    if int.from_bytes(data[first + start : first + start + 8], "little") != end - start - 8:
        raise ValueError("its length is not that of the index")
    return first + start + 8, first + end


def _columns(
    data: mmap.mmap, head: Head, start: int, end: int
) -> Iterator[tuple[str, tuple[int, int]]]:
    """First byte and size of each column of bytes."""
    if len(head.blobs) == 1:
        yield head.blobs[0], (start, end - start)
        return
    for name in head.blobs:
        size = int.from_bytes(data[start : start + 8], "big")
        if size > end - start - 8:
            raise ValueError(f"{name} is longer than the row")
        yield name, (start + 8, size)
        start += 8 + size
    if start != end:
        raise ValueError("its columns do not fill it")
