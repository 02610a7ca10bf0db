"""MindRecord files in small pages, laid out as MindSpore 2.10 writes them."""

import json
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HEADER, PAGE = 4096, 16384
TYPES = {bytes: "bytes", str: "string", int: "int64", float: "float64", list: "int64"}


def pack(value: Any) -> bytes:
    """MessagePack of a small value."""
    if isinstance(value, dict):
        parts = [pack(key) + pack(inner) for key, inner in value.items()]
        return bytes([0x80 + len(value)]) + b"".join(parts)
    if isinstance(value, str):
        data = value.encode()
        return (
            bytes([0xA0 + len(data)]) if len(data) < 32 else b"\xd9" + bytes([len(data)])
        ) + data
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    return bytes([value % 256]) if -32 <= value < 128 else b"\xd3" + struct.pack(">q", value)


def packed_integers(values: Sequence[int]) -> bytes:
    """All of them in 2 bytes each, as the kind 1 says."""
    kinds = bytes([0b01010101]) * -(-len(values) // 4)
    numbers = b"".join(struct.pack("<h", value) for value in values)
    return struct.pack(">I", len(values)) + kinds + numbers


def write_mindrecord(
    file: Path, rows: Sequence[Mapping[str, Any]], *, shard: int = 0, names: Sequence[str] = ()
) -> Path:
    """One file with the index beside it; bytes and lists are in the pages of blobs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    blobs = sorted(name for name, value in rows[0].items() if isinstance(value, bytes | list))
    pages: list[bytearray] = [bytearray()]
    kinds, starts, ends, places = ["BLOB_DATA"], [0], [0], []
    for number, row in enumerate(rows):
        parts = [row[n] if isinstance(row[n], bytes) else packed_integers(row[n]) for n in blobs]
        if len(parts) > 1:
            parts = [struct.pack(">Q", len(part)) + part for part in parts]
        data = b"".join(parts)
        if len(pages[-1]) + 8 + len(data) > PAGE:
            pages.append(bytearray())
            kinds.append("BLOB_DATA")
            starts.append(number)
            ends.append(number)
        places.append((len(pages) - 1, len(pages[-1]), len(pages[-1]) + 8 + len(data)))
        pages[-1] += struct.pack("<Q", len(data)) + data
        ends[-1] = number + 1
    raw = bytearray()
    index = []
    for number, row in enumerate(rows):
        data = pack({name: value for name, value in row.items() if name not in blobs})
        place = (len(pages), len(raw), len(raw) + 8 + len(data))
        raw += struct.pack("<Q", len(data)) + data
        index.append((number, *place, *places[number]))
    schema = {name: {"type": TYPES[type(value)]} for name, value in sorted(rows[0].items())}
    spans = zip([*kinds, "RAW_DATA"], [*starts, 0], [*ends, 0], strict=True)
    head = {
        "header_size": HEADER,
        "page": [{"page_type": k, "start_row_id": a, "end_row_id": b} for k, a, b in spans],
        "page_size": PAGE,
        "schema": [{"blob_fields": blobs, "schema": schema}],
        "shard_addresses": list(names) or [file.name],
        "shard_id": shard,
    }
    text = json.dumps(head).encode()
    assert len(text) + 8 <= HEADER and len(raw) <= PAGE
    body = b"".join(bytes(page).ljust(PAGE, b"\0") for page in pages) + bytes(raw)
    file.write_bytes((struct.pack("<Q", len(text)) + text).ljust(HEADER, b"\0") + body)
    write_index(file, index)
    return file


def write_index(file: Path, index: Sequence[tuple[Any, ...]]) -> None:
    database = file.with_name(file.name + ".db")
    database.unlink(missing_ok=True)
    with sqlite3.connect(database) as opened:
        columns = "ROW_ID, PAGE_ID_RAW, PAGE_OFFSET_RAW, PAGE_OFFSET_RAW_END, PAGE_ID_BLOB, "
        columns += "PAGE_OFFSET_BLOB, PAGE_OFFSET_BLOB_END"
        opened.execute("PRAGMA journal_mode = MEMORY")
        opened.execute(f"CREATE TABLE INDEXES({columns.replace(',', ' INT,')} INT)")
        opened.executemany(f"INSERT INTO INDEXES VALUES({','.join('?' * 7)})", index)
    opened.close()
