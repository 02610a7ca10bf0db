"""Read numbers from JSON that may be wrong."""

import json
import math
import os
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text from outside.

    Raises:
        ValueError: it is not JSON, or nested so deeply that the reader gives up.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def is_text(value: Any) -> bool:
    """Whether it is text that can be written, as a name of a file or into one.

    JSON may have half of a character (a lone surrogate), which cannot. The stand-ins for bytes of a
    name that are not UTF-8 can.
    """
    try:
        return isinstance(value, str) and os.fsencode(value) is not None
    except UnicodeEncodeError:
        return False


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
