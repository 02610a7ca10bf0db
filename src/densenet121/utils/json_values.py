"""Read numbers from JSON that may be wrong."""

import math
from typing import Any


def number(value: Any) -> float:
    """A float; NaN for null and for values outside float32, such as a diverged loss.

    Raises:
        TypeError, ValueError: it is not a number.
    """
    found = math.nan if value is None else float(value)
    return found if abs(found) < 3.4e38 else math.nan


def count(value: Any) -> int:
    """A count: an integer from 0 that a float represents exactly.

    Raises:
        TypeError, ValueError, OverflowError: it is not a count.
    """
    found = int(value)
    if found != value or not 0 <= found < 2**53:
        raise ValueError(f"{value!r} is not a count")
    return found
