"""Types and helpers that the metrics share."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def known(truth: Floats, *scores: Floats) -> tuple[Floats, ...]:
    """``truth`` and ``scores`` without the images whose truth is unknown (nan).

    Raises:
        ValueError: the lengths differ, a truth is not 0, 1 or nan, or a score is not finite.
    """
    truth = np.asarray(truth, dtype=np.float64)
    parts = [np.asarray(score, dtype=np.float64) for score in scores]
    if any(part.shape != truth.shape for part in parts) or truth.ndim != 1:
        raise ValueError("truth and scores must be vectors of one length")
    if not ((truth == 0) | (truth == 1) | np.isnan(truth)).all():
        raise ValueError("truth must be 0, 1 or nan")
    if not all(np.isfinite(part).all() for part in parts):
        raise ValueError("scores must be finite")
    keep = ~np.isnan(truth)
    return (truth[keep], *(part[keep] for part in parts))


def ratio(part: float, whole: float) -> float | None:
    """``part / whole``; None if ``whole`` is 0."""
    return float(part) / float(whole) if whole else None
