"""TFRecord files, written by the definitions of the format: bit by bit, and without packing."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Value = bytes | str | int | float


def crc32c(data: bytes) -> int:
    """RFC 3720's sum, a bit at a time."""
    found = 0xFFFFFFFF
    for byte in data:
        found ^= byte
        for _ in range(8):
            found = found >> 1 ^ (0x82F63B78 if found & 1 else 0)
    return found ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    found = crc32c(data)
    return struct.pack("<I", ((found >> 15 | found << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF)


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def message(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(values: Sequence[Value], *, packed: bool = True) -> bytes:
    if not values:
        return b""
    if isinstance(values[0], bytes | str):
        parts = [value.encode() if isinstance(value, str) else value for value in values]
        return message(1, b"".join(message(1, part) for part in parts))  # type: ignore[arg-type]
    if isinstance(values[0], float):
        floats = [struct.pack("<f", value) for value in values]
        inner = message(1, b"".join(floats)) if packed else b"".join(b"\x0d" + f for f in floats)
        return message(2, inner)
    numbers = [varint(int(value)) for value in values]
    inner = message(1, b"".join(numbers)) if packed else b"".join(b"\x08" + n for n in numbers)
    return message(3, inner)


def example(features: Mapping[str, Value | Sequence[Any]], *, packed: bool = True) -> bytes:
    entries = []
    for name, value in features.items():
        values: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
        inner = message(1, name.encode()) + message(2, feature(values, packed=packed))
        entries.append(message(1, inner))
    return message(1, b"".join(entries))


def write_tfrecord(file: Path, rows: Iterable[Mapping[str, Any]], *, packed: bool = True) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(record(example(row, packed=packed)) for row in rows))
    return file
