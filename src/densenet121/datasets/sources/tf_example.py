"""Parse ``tf.train.Example`` strictly, without TensorFlow or protobuf.

``Example { Features features = 1 }``, ``Features { map<string, Feature> feature = 1 }``,
``Feature { oneof { BytesList = 1; FloatList = 2; Int64List = 3 } }``, each list ``repeated value =
1``, packed or not. Unknown fields, a feature that occurs twice and lengths that do not fit are
errors, where protobuf would pass over them or take the last.
"""

import struct
from collections.abc import Container, Iterator

# Positions of byte strings, (start, end) each; or numbers.
Positions = list[tuple[int, int]]
Values = Positions | list[int] | list[float]

_BYTES, _FLOATS, _INTEGERS = 1, 2, 3
_VARINT, _DELIMITED, _FIXED32 = 0, 2, 5


class NotAnExampleError(ValueError):
    """The bytes are no Example; the text is the reason only."""


def parse_example(
    data: bytes, start: int, end: int, wanted: Container[str] | None = None
) -> dict[str, Values]:
    """The features of the Example in ``data[start:end]``.

    Args:
        data: bytes, or an mmap; values of byte strings are positions in it.
        start: the first byte.
        end: the byte after the last.
        wanted: names of the features to parse; None for all.

    Raises:
        NotAnExampleError: it is none.
    """
    found: dict[str, Values] = {}
    for count, (number, at, stop) in enumerate(_messages(data, start, end)):
        if number != 1:
            kind = "a SequenceExample" if number == 2 else f"unknown field {number}"
            raise NotAnExampleError(f"{kind} in place of the features")
        if count:
            raise NotAnExampleError("features twice")
        for entry, first, last in _messages(data, at, stop):
            if entry != 1:
                raise NotAnExampleError(f"unknown field {entry} among the features")
            _add_entry(found, data, first, last, wanted)
    return found


def _add_entry(
    found: dict[str, Values], data: bytes, start: int, end: int, wanted: Container[str] | None
) -> None:
    name, value = None, (end, end)
    for number, at, stop in _messages(data, start, end):
        if number == 1 and name is None:
            try:
                name = data[at:stop].decode()
            except UnicodeDecodeError:
                raise NotAnExampleError("the name of a feature is no text") from None
        elif number == 2 and value == (end, end):
            value = at, stop
        else:
            raise NotAnExampleError(f"field {number} in a feature, unknown or twice")
    name = name or ""
    if name in found:
        raise NotAnExampleError(f"the feature {name} twice")
    if wanted is None or name in wanted:
        found[name] = _values(data, *value)


def _values(data: bytes, start: int, end: int) -> Values:
    """The values of a feature; none if it is empty."""
    lists = list(_messages(data, start, end))
    if not lists:
        return []
    (kind, at, stop), *others = lists
    if others or kind not in (_BYTES, _FLOATS, _INTEGERS):
        raise NotAnExampleError(f"a feature with {len(lists)} lists or of the unknown kind {kind}")
    if kind == _BYTES:
        return list(_strings(data, at, stop))
    if kind == _FLOATS:
        return _floats(data, at, stop)
    return _integers(data, at, stop)


def _strings(data: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    for number, first, last in _messages(data, at, end):
        if number != 1:
            raise NotAnExampleError(f"unknown field {number} in a list of bytes")
        yield first, last


def _floats(data: bytes, at: int, end: int) -> list[float]:
    found: list[float] = []
    while at < end:
        tag, at = _varint(data, at, end)
        if tag == (1 << 3 | _DELIMITED):
            size, at = _varint(data, at, end)
        elif tag == (1 << 3 | _FIXED32):
            size = 4
        else:
            raise NotAnExampleError(f"unknown field {tag >> 3} in a list of floats")
        if size % 4 or at + size > end:
            raise NotAnExampleError("a list of floats that does not end where it should")
        found += struct.unpack(f"<{size // 4}f", data[at : at + size])
        at += size
    return found


def _integers(data: bytes, at: int, end: int) -> list[int]:
    found: list[int] = []
    while at < end:
        tag, at = _varint(data, at, end)
        stop = at
        if tag == (1 << 3 | _DELIMITED):
            size, at = _varint(data, at, end)
            stop = at + size
        elif tag != (1 << 3 | _VARINT):
            raise NotAnExampleError(f"unknown field {tag >> 3} in a list of numbers")
        if stop > end:
            raise NotAnExampleError("a list of numbers that does not end where it should")
        one = stop == at and tag & 7 == _VARINT
        while at < stop or one:
            value, at = _varint(data, at, end if one else stop)
            found.append(value - (1 << 64) if value >> 63 else value)
            one = False
    return found


def _messages(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, first byte and end of each field of a message, all with a length."""
    while at < end:
        tag, at = _varint(data, at, end)
        if tag & 7 != _DELIMITED or tag < 8:
            raise NotAnExampleError(f"the byte {tag & 255:#04x} where a field should begin")
        size, at = _varint(data, at, end)
        if size > end - at:
            raise NotAnExampleError("a field that is longer than what it is in")
        yield tag >> 3, at, at + size
        at += size


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end:
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            if value >> 64:
                raise NotAnExampleError("a number of more than 64 bits")
            return value, at
        shift += 7
        if shift > 63:
            raise NotAnExampleError("a number of more than 64 bits")
    raise NotAnExampleError("a number that does not end")
