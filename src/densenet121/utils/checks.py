"""Checks of values that a caller in Python passes, and numbers in text.

The checks of flags are in ``config``.
"""

import operator
import os
import reprlib
from pathlib import Path
from types import NoneType
from typing import Any

from densenet121.utils.errors import UsageError


def check_type(field: str, value: Any, *types: type) -> None:
    """Refuse what is of none of these types.

    Raises:
        UsageError: the text has the field, the types and the value, cut where it is long.
    """
    if not isinstance(value, types):
        names = ("None" if kind is NoneType else kind.__name__ for kind in types)
        raise UsageError(
            f"`{field}` must be of type {' or '.join(names)}, got {reprlib.repr(value)}"
        )


def checked_path(field: str, value: Any) -> Path:
    """The path that a caller passes as text or as a path.

    Raises:
        UsageError: it is neither; the text has the field and the value.
    """
    check_type(field, value, str, os.PathLike)
    return Path(value)


def check_whole(field: str, value: Any, least: int) -> None:
    """Refuse what is not a whole number from ``least``; None passes.

    Raises:
        UsageError: the text has the field and what is allowed.
    """
    try:
        fits = value is None or (not isinstance(value, bool) and operator.index(value) >= least)
    except TypeError:
        fits = False
    if not fits:
        raise UsageError(f"`{field}` must be a whole number from {least}, got {value!r}")


def check_share(field: str, value: Any, *, ends: bool) -> None:
    """Refuse what is not a number from 0 to 1, with or without the ends; None passes.

    Raises:
        UsageError: the text has the field and what is allowed.
    """
    try:
        fits = value is None or (0 <= value <= 1 if ends else 0 < value < 1)
    except TypeError:
        fits = False
    if not fits:
        allowed = "from 0 to 1" if ends else "between 0 and 1"
        raise UsageError(f"`{field}` must be a number {allowed}, got {value!r}")


def number_in(text: str) -> float:
    """The number that a text is, in ASCII and without the underscores that Python allows in one.

    Raises:
        ValueError: it is something else.
    """
    return float(_plain(text))


def whole_number_in(text: str, base: int = 10) -> int:
    """The whole number that a text is; as ``number_in``."""
    return int(_plain(text), base)


def _plain(text: str) -> str:
    if "_" in text or not text.isascii():
        raise ValueError(f"{text!r} is no number")
    return text
