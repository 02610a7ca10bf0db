"""Read MessagePack, as far as JSON goes (github.com/msgpack/msgpack, spec.md)."""

import struct
from typing import Any

_NUMBERS = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
_WORDS = {0xC0: None, 0xC2: False, 0xC3: True}
_TEXTS = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
_LISTS = {0xDC: ">H", 0xDD: ">I"}
_MAPS = {0xDE: ">H", 0xDF: ">I"}
_DEEPEST = 32


def unpack(data: bytes) -> Any:
    """The value of a message, which has to end with ``data``.

    Raises:
        ValueError: it is damaged, or of a kind that JSON does not have.
    """
    try:
        value, at = _value(data, 0, 0)
    except (struct.error, IndexError, UnicodeDecodeError, TypeError):
        raise ValueError("its values are damaged") from None
    if at != len(data):
        raise ValueError("its values do not fill it")
    return value


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > _DEEPEST:
        raise ValueError("its values are nested too deeply")
    kind = data[at]
    at += 1
    if kind < 0x80:
        return kind, at
    if kind >= 0xE0:
        return kind - 256, at
    if kind in _WORDS:
        return _WORDS[kind], at
    if kind in _NUMBERS:
        return _number(_NUMBERS[kind], data, at)
    if 0xA0 <= kind < 0xC0:
        return _text(data, at, kind - 0xA0)
    if kind in _TEXTS:
        return _text(data, *reversed(_number(_TEXTS[kind], data, at)))
    if kind < 0x90 or kind in _MAPS:
        size, at = (kind - 0x80, at) if kind < 0x90 else _number(_MAPS[kind], data, at)
        found = {}
        for _ in range(size):
            key, at = _value(data, at, depth + 1)
            found[key], at = _value(data, at, depth + 1)
        return found, at
    if kind < 0xA0 or kind in _LISTS:
        size, at = (kind - 0x90, at) if kind < 0xA0 else _number(_LISTS[kind], data, at)
        values = []
        for _ in range(size):
            value, at = _value(data, at, depth + 1)
            values.append(value)
        return values, at
    raise ValueError(f"its values have the unknown kind {kind:#04x}")


def _number(form: str, data: bytes, at: int) -> tuple[Any, int]:
    return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)


def _text(data: bytes, at: int, size: int) -> tuple[str, int]:
    if at + size > len(data):
        raise ValueError("a text is cut short")
    return data[at : at + size].decode(), at + size
