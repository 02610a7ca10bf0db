"""Metrics of decisions: sensitivity, specificity and others at a threshold; several classes.

Source: Wilson 1927 (interval of a share); Cohen 1968 (weighted kappa).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from densenet121.metrics.ranking import quantile
from densenet121.metrics.values import Counts, Floats, Interval, known, ratio


@dataclass(frozen=True)
class Decisions:
    """Positive and negative calls against the truth, as counts of images.

    Attributes:
        tp: positives that are called positive.
        fp: negatives that are called positive.
        tn: negatives that are called negative.
        fn: positives that are called negative.
    """

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def shares(self) -> dict[str, tuple[int, int]]:
        """Numerator and denominator of each share."""
        return {
            "sensitivity": (self.tp, self.tp + self.fn),
            "specificity": (self.tn, self.tn + self.fp),
            "ppv": (self.tp, self.tp + self.fp),
            "npv": (self.tn, self.tn + self.fn),
        }

    @property
    def values(self) -> dict[str, float | None]:
        """The shares, their F1 and balanced accuracy; None where a denominator is 0."""
        found = {name: ratio(*share) for name, share in self.shares.items()}
        found["f1"] = ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)
        both = found["sensitivity"], found["specificity"]
        found["balanced_accuracy"] = None
        if both[0] is not None and both[1] is not None:
            found["balanced_accuracy"] = (both[0] + both[1]) / 2
        return found


def threshold_text(value: float, form: str = "g") -> str:
    """Four digits, or decimals with the ``form`` "f"; more where these would be 0 or 1.

    Whoever takes a threshold of 0.99996 for 1 finds no positive.
    """
    for digits in range(4, 17):
        text = f"{value:.{digits}{form}}"
        if 0 < float(text) < 1 or not 0 < value < 1:
            return text
    return repr(value)


def decisions(truth: Floats, probability: Floats, threshold: float) -> Decisions:
    """Call an image positive if its probability is ``threshold`` or more."""
    truth, probability = known(truth, probability)
    return decisions_of(truth, probability >= threshold)


def decisions_of(truth: Floats, called: NDArray[np.bool_]) -> Decisions:
    """Count calls that were made in another way; ``truth`` is 1, 0 or nan (unknown)."""
    called, truth = called[~np.isnan(truth)], truth[~np.isnan(truth)]
    positive = truth == 1
    return Decisions(
        tp=int((called & positive).sum()),
        fp=int((called & ~positive).sum()),
        tn=int((~called & ~positive).sum()),
        fn=int((~called & positive).sum()),
    )


def wilson_interval(part: float, whole: float, level: float = 0.95) -> Interval | None:
    """Interval of the share ``part / whole``; None if ``whole`` is 0."""
    if whole == 0:
        return None
    share, z = part / whole, quantile(level)
    middle = share + z * z / (2 * whole)
    half = z * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    scale = 1 + z * z / whole
    # At 0 and at 1 an end is exactly that; rounding would miss it.
    low = 0.0 if part == 0 else max(0.0, (middle - half) / scale)
    return Interval(low, 1.0 if part == whole else min(1.0, (middle + half) / scale))


def mean_recall(right: Counts, images: Counts) -> float | None:
    """Mean of ``right / images`` over the classes that have images; None without images."""
    present = images > 0
    if not present.any():
        return None
    return float((right[present] / images[present]).mean())


def grades(names: Sequence[str]) -> Counts:
    """The place of each class among the classes as grades, from 0.

    By the number in their names where these differ in it alone (6, 7, 10, or grade_9, grade_10),
    which byte order puts elsewhere; else the order of the classes.
    """
    parts = [re.fullmatch(r"(\D*)(\d{1,18})(\D*)", name, re.ASCII) for name in names]
    numbers = [int(part[2]) for part in parts if part]
    around = {(part[1], part[3]) for part in parts if part}
    if len(set(numbers)) < len(names) or len(around) != 1:
        return np.arange(len(names))
    return np.argsort(np.argsort(numbers))


def quadratic_kappa(labels: Counts, predicted: Counts, times: Counts) -> float | None:
    """Cohen's kappa with weights (i - j)^2, for ordered classes such as grades.

    From sums of the grades and of their squares, in whole numbers: a table of all pairs of 21841
    classes would need 4 GB.

    Args:
        labels: ``(n,)`` number of each image's class.
        predicted: ``(n,)`` number of the class that is predicted.
        times: ``(n,)`` how often each image counts.

    Returns:
        None if chance alone would agree entirely: no images, or one class in labels and
        predictions.
    """
    images, observed = int(times.sum()), int((times * (labels - predicted) ** 2).sum())
    squares = int((times * (labels**2 + predicted**2)).sum())
    by_chance = images * squares - 2 * int((times * labels).sum()) * int((times * predicted).sum())
    return 1 - images * observed / by_chance if by_chance else None
