"""Pickles are looked through before they are read."""

import collections
import io
import pickle
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from densenet121.utils.pickles import check_pickle

SHARED = ("a", 1)
VALUE = {
    "array": np.zeros((2, 3), np.uint8),
    "labels": list(range(300)),
    SHARED: [SHARED] * 100,
    "kinds": [{1, 2}, frozenset([3]), collections.OrderedDict(a=(1, 2)), 2**80, "\xe4", None, b"b"],
    "namespace": types.SimpleNamespace(a=1),
}


def within(value: bytes, levels: int, name: Callable[[int], bytes]) -> bytes:
    """A tuple of a value twice, in another of it twice, and so on."""
    for level in range(levels):
        value += b"q" + bytes([level]) + name(level) + b"\x86"
    return value


WIDE = within(b"K\1\x85", 60, lambda level: b"h" + bytes([level]))
KEYS = {
    "wide": WIDE,
    "wide by doubling": within(b"K\1\x85", 60, lambda level: b"2"),
    "wide with marks": b"K\1\x85q\0" + b"(h\0h\0tq\0" * 60 + b"h\0",
    "deep": b")" + b"\x85" * 2_000_000,
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_python_pickles_passes_whole(protocol: int) -> None:
    stream = io.BytesIO(pickle.dumps(VALUE, protocol) + b"rest")
    check_pickle(stream)
    assert stream.read() == b"rest"


def test_a_value_that_contains_itself_passes() -> None:
    value: list[Any] = []
    value.append((value, {1: value}))
    check_pickle(io.BytesIO(pickle.dumps(value)))


@pytest.mark.parametrize("key", KEYS)
def test_keys_that_could_not_be_looked_up_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match="values within values more than 10,000,000 times or"):
        check_pickle(io.BytesIO(b"\x80\2}" + KEYS[key] + b"K\1s."))


def test_many_uses_of_one_large_key_are_refused() -> None:
    key = b"K\1\x85q\0" + b"(h\0h\0tq\0" * 18
    with pytest.raises(ValueError, match="values within values"):
        check_pickle(io.BytesIO(b"\x80\2}" + key + b"K\1s" + b"h\0K\1s" * 100 + b"."))


@pytest.mark.parametrize("data", [b"", b"\x80\2", b"\x80\2h\0.", b"\x80\2\x85.", b"t.", b"\xff"])
def test_damage_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="its pickle cannot be read"):
        check_pickle(io.BytesIO(data))
