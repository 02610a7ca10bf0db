"""From samples of more than 8 bits to grey levels, through a window of their values."""

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from densenet121.utils.errors import InputError, UsageError

_NUMBER = r"([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"
_MOST = 65535  # of 16 bits


@dataclass(frozen=True)
class Window:
    """The values that become black and white.

    Attributes:
        kind: full (all that the bits can hold), values, percentile (of each image), or index (a
            window of a DICOM file; for other formats it is full).
        low: value that becomes 0, or a percentile.
        high: value that becomes 255, or a percentile.
        index: number of the window in a DICOM file, from 0.
    """

    kind: Literal["full", "values", "percentile", "index"]
    low: float = 0.0
    high: float = float(_MOST)
    index: int = 0

    def limits(self, samples: NDArray[np.uint16] | NDArray[np.float64]) -> tuple[float, float]:
        """The two values for an image; percentiles are interpolated as by ``numpy.percentile``."""
        if self.kind != "percentile":
            return self.low, self.high
        low, high = np.percentile(samples, (self.low, self.high))
        return float(low), float(high)


@dataclass(frozen=True)
class Reading:
    """How image files with samples of more than 8 bits are read.

    Attributes:
        depth: 8 keeps the high byte of 16-bit samples, as the original; 16 uses all of their bits.
        window: the values that become black and white; None for all that 16 bits can hold, and
            for the window of a DICOM file.
    """

    depth: int = 8
    window: Window | None = None

    def grey_levels(self, samples: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Grey levels of 16-bit grey samples of any shape.

        Raises:
            InputError: there is a window, but only the high bytes are to be used.
        """
        if self.depth == 8:
            if self.window is not None:
                raise InputError(
                    "it has 16-bit samples, of which `depth` 8 keeps the high byte, but `window` "
                    "needs all bits; pass `depth` 16, or omit `window`"
                )
            return (samples >> 8).astype(np.uint8)
        low, high = self.window.limits(samples) if self.window else (0.0, float(_MOST))
        table = grey_levels(np.arange(_MOST + 1, dtype=np.float64), low, high)
        return np.asarray(table[samples])


AS_BYTES = Reading()


def grey_levels(
    values: NDArray[np.floating | np.integer], low: float, high: float
) -> NDArray[np.uint8]:
    """``floor((x - low) / (high - low) * 255 + 0.5)``, at least 0 and at most 255.

    If the two limits are equal, as in an image of one value, what is above them is white.
    """
    if high <= low:
        return np.where(values > low, 255, 0).astype(np.uint8)
    scaled = (np.asarray(values, dtype=np.float64) - low) / (high - low) * 255
    return np.clip(np.floor(scaled + 0.5), 0, 255).astype(np.uint8)


def make_reading(depth: int, window: str | None) -> Reading:
    """The reading for the settings ``depth`` and ``window``.

    Raises:
        UsageError: a value is not allowed.
    """
    if depth not in (8, 16):
        raise UsageError(f"`depth` must be one of 8, 16, got {depth}")
    return Reading(depth, None if window is None else parse_window(window))


def parse_window(text: str) -> Window:
    """Parse ``full``, ``LOW,HIGH`` (values), ``percentile:LOW,HIGH`` or ``index:N``.

    Raises:
        UsageError: the text is none of these, or the limits are not in order.
    """
    if text == "full":
        return Window("full")
    if numbered := re.fullmatch(r"index:([0-9]{1,4})", text):
        return Window("index", index=int(numbered[1]))
    found = re.fullmatch(rf"(percentile:)?{_NUMBER},{_NUMBER}", text)
    if found is None:
        raise UsageError(
            "`window` must be full, LOW,HIGH (values that become black and white), "
            f'percentile:LOW,HIGH or index:N (DICOM), got "{text}"'
        )
    low, high, by_rank = float(found[2]), float(found[3]), found[1] is not None
    if not (low < high and math.isfinite(high - low)):
        raise UsageError(f'`window` needs a low value below its high one, got "{text}"')
    if by_rank and not (low >= 0 and high <= 100):
        raise UsageError(f'`window` needs percentiles from 0 to 100, got "{text}"')
    return Window("percentile" if by_rank else "values", low, high)
