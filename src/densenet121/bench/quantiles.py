"""Quantiles of few measurements."""

from collections.abc import Sequence

import numpy as np

Quartiles = tuple[float, float, float]


def quartiles(values: Sequence[float]) -> Quartiles:
    """First quartile, median and third quartile, between measurements and never beyond them."""
    low, middle, high = quantiles(values, (0.25, 0.5, 0.75))
    return low, middle, high


def quantiles(values: Sequence[float], shares: Sequence[float]) -> list[float]:
    """The quantile at each of the shares, in 0..1; of one measurement all are that one."""
    # Not those of the statistics module, which by default lie beyond the extremes of few values.
    found: list[float] = np.quantile(values, shares).tolist()
    return found
