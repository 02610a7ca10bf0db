"""Damage to bytes and to JSON-like values, drawn from a random generator."""

import json
import random
from collections.abc import Sequence
from typing import Any

# What parsers have stumbled over: ends of ranges, lengths, signs.
_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 16, 63, 64, 127, 128, 255, 256, 32767, 32768, 65535, 2**16)
_LARGE = (2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


def damaged(rng: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """``data`` after one to eight small damages, half of the time near its beginning."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        _damage(rng, result, others)
    return bytes(result)


def _damage(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    size = len(data)
    if not size:
        data += rng.randbytes(rng.randrange(1, 40))
        return
    reach = size if rng.random() < 0.5 else min(size, 300)
    at = rng.randrange(reach)
    kind = rng.randrange(9)
    if kind == 0:
        data[at] = rng.randrange(256)
    elif kind == 1:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 2:  # a number of 2, 4 or 8 bytes
        width = rng.choice((2, 4, 8))
        number = rng.choice(_NUMBERS + _LARGE) % 256**width
        data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
    elif kind == 3:
        del data[at:]
    elif kind == 4:
        del data[at : at + rng.choice((1, 2, 4, 16, 200))]
    elif kind == 5:
        data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16, 100)))
    elif kind == 6:  # a part once more
        part = data[at : at + rng.choice((1, 4, 16, 64, 400))]
        data[at:at] = part * rng.choice((1, 1, 2, 20))
    elif kind == 7:
        data[at : at + rng.choice((1, 4, 16))] = bytes([rng.choice((0, 255, 32, 10))]) * 8
    elif others:  # a part of another file
        other = rng.choice(others)
        start = rng.randrange(len(other)) if other else 0
        part = bytearray(other[start : start + rng.choice((4, 32, 300))])
        data[at : at + len(part)] = part


_WORDS = (
    "",
    "0",
    "-1",
    "a",
    "train",
    "../x",
    "/etc/passwd",
    "nan",
    "1e999",
    "\0",
    "\ud800",
    "é" * 9,
)


def any_value(rng: random.Random, depth: int = 0) -> Any:
    """A value of any of JSON's types."""
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind == 0:
        return rng.choice(_WORDS)
    if kind == 1:
        return rng.choice((*_NUMBERS, *_LARGE, -1, -(2**63), 10**400))
    if kind == 2:
        return rng.choice((0.5, -0.0, 1e300, float("nan"), float("inf")))
    if kind < 6:
        return rng.choice((None, True, False, [], {}))
    inner = [any_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return inner if kind < 8 else {rng.choice(_WORDS): value for value in inner}


def changed(rng: random.Random, value: Any) -> Any:
    """A JSON-like value with one part removed, repeated, or replaced by any other."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        luck = rng.random()
        if luck < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if luck < 0.15:
            return {**value, rng.choice(_WORDS): value[key]}
        return {**value, key: changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        luck = rng.random()
        if luck < 0.1:
            return value[:at] + value[at + 1 :]
        if luck < 0.2:
            return [*value, value[at]]
        return [*value[:at], changed(rng, value[at]), *value[at + 1 :]]
    return any_value(rng)


def json_text(rng: random.Random, value: Any) -> bytes:
    """JSON of a value after a few changes; sometimes its bytes are damaged, or it is very deep."""
    if rng.random() < 0.01:
        depth = rng.choice((100, 1000, 100_000))
        opened, closed = rng.choice((("[", "]"), ('{"a":', "}")))
        return (opened * depth + "1" + closed * depth).encode()
    for _ in range(rng.randrange(1, 4)):
        value = changed(rng, value)
    text = json.dumps(value).encode("utf-8", "replace")
    return damaged(rng, text) if rng.random() < 0.3 else text
