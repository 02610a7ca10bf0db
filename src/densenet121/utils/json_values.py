"""Numbers from JSON that somebody else may have written."""

import math
from typing import Any


def number(value: Any) -> float:
    """A float, NaN for null and for what is no finite float32: a diverged loss, say.

    Raises:
        TypeError, ValueError: it is not a number.
    """
    found = math.nan if value is None else float(value)
    return found if abs(found) < 3.4e38 else math.nan


def count(value: Any) -> int:
    """A whole number that a float holds exactly.

    Raises:
        TypeError, ValueError, OverflowError: it is not.
    """
    found = int(value)
    if found != value or not 0 <= found < 2**53:
        raise ValueError(f"{value!r} is not a count")
    return found
