"""Checks of flags' values, each with one line that names the flag."""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from densenet121.utils.errors import UsageError


def known_choices(config: Any) -> None:
    """Refuse a value that is not among the choices of a dataclass's Literal field.

    The command line checks this by itself; from Python nothing else would.

    Raises:
        UsageError: naming the flag and the choices.
    """
    for name, hint in get_type_hints(type(config)).items():
        kinds = [hint, *get_args(hint)]
        choices = [c for kind in kinds if get_origin(kind) is Literal for c in get_args(kind)]
        value = getattr(config, name)
        if choices and value is not None and value not in choices:
            raise UsageError(f"--{name} must be one of {', '.join(map(str, choices))}, got {value}")


def numbers(
    flag: str, value: int | str, *, count: int | None = None, whole: bool = False
) -> Sequence[float]:
    """The numbers of a comma list; ``whole`` takes integers only, ``count`` asks for so many.

    Raises:
        UsageError: anything else, nan or infinity.
    """
    parts = str(value).split(",")
    kind = "whole numbers" if whole else "numbers"
    try:
        found = [int(part) if whole else float(part) for part in parts]
    except ValueError:
        raise UsageError(f"--{flag} must be {kind} separated by commas, got {value!r}") from None
    if count is not None and len(found) != count:
        raise UsageError(f"--{flag} must be {count} {kind} separated by commas, got {value!r}")
    if not all(abs(number) < math.inf for number in found):
        raise UsageError(f"--{flag} must be finite, got {value!r}")
    return found


def at_least(flag: str, value: float | None, least: float, unit: str = "") -> None:
    """Refuse a value below ``least``, nan or infinity; None passes.

    Raises:
        UsageError: naming the flag and what is allowed.
    """
    if value is not None and not least <= value < math.inf:
        raise UsageError(f"--{flag} must be at least {f'{least} {unit}'.strip()}, got {value}")


def between(flag: str, value: float, low: float, high: float, *, upper_open: bool = False) -> None:
    """Refuse a value outside ``[low, high]``, or ``[low, high)``.

    Raises:
        UsageError: naming the flag and what is allowed.
    """
    if not (low <= value <= high) or (upper_open and value == high):
        end = "below" if upper_open else "at most"
        raise UsageError(f"--{flag} must be at least {low} and {end} {high}, got {value}")
