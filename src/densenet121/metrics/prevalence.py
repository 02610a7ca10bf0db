"""PPV and NPV where another share of the images is positive, as in the clinic where they are used.

Source: Bayes' theorem with sensitivity and specificity, which are taken to be the same there
(Altman and Bland 1994, "Diagnostic tests 2: predictive values"). The interval comes from that of
the likelihood ratio, a ratio of two independent shares, of whose Wilson limits MOVER makes one
(Donner and Zou 2012, "Closed-form confidence intervals for functions of the normal mean and
standard deviation", section 4).
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from densenet121.metrics.decisions import wilson_interval
from densenet121.metrics.values import Floats, Interval

PREDICTIVE = ("ppv_at_prevalence", "npv_at_prevalence")
METHOD = "MOVER of Wilson's limits"


def predictive_values(
    sensitivity: ArrayLike, specificity: ArrayLike, prevalence: ArrayLike
) -> dict[str, Floats]:
    """PPV and NPV, in the shape of the arguments; nan where no image gets such a call.

    Args:
        sensitivity: share of the positives that are called positive; nan without positives.
        specificity: share of the negatives that are called negative; nan without negatives.
        prevalence: share of the images that are positive, between 0 and 1.
    """
    hits, rejections = np.asarray(sensitivity, np.float64), np.asarray(specificity, np.float64)
    positive = np.asarray(prevalence, np.float64)
    tp, fn = positive * hits, positive * (1 - hits)
    tn, fp = (1 - positive) * rejections, (1 - positive) * (1 - rejections)
    with np.errstate(invalid="ignore", divide="ignore"):
        return dict(zip(PREDICTIVE, (tp / (tp + fp), tn / (tn + fn)), strict=True))


def predictive_intervals(
    sensitivity: tuple[float, float], specificity: tuple[float, float], prevalence: float
) -> dict[str, Interval | None]:
    """Their intervals at 95 %; None where a share is of nothing, or no image gets such a call.

    Args:
        sensitivity: positives that are called positive, and positives.
        specificity: negatives that are called negative, and negatives.
        prevalence: share of the images that are positive, between 0 and 1.
    """
    (hits, positives), (rejections, negatives) = sensitivity, specificity
    # The odds of a positive after a positive call, and of a negative after a negative one.
    called = _ratio_interval((hits, positives), (negatives - rejections, negatives))
    passed = _ratio_interval((rejections, negatives), (positives - hits, positives))
    found = _after(called, prevalence), _after(passed, 1 - prevalence)
    return dict(zip(PREDICTIVE, found, strict=True))


def _after(likelihood_ratio: Interval | None, share: float) -> Interval | None:
    """What a share becomes after evidence of this likelihood ratio."""
    if likelihood_ratio is None:
        return None
    # Not by odds, which overflow for the smallest shares.
    low, high = (
        1.0 if math.isinf(ratio) else ratio * share / (ratio * share + (1 - share))
        for ratio in likelihood_ratio
    )
    return Interval(low, high)


def _ratio_interval(above: tuple[float, float], below: tuple[float, float]) -> Interval | None:
    """Interval of the ratio of two independent shares, each as part and whole."""
    limits, others = wilson_interval(*above), wilson_interval(*below)
    if limits is None or others is None or above[0] == below[0] == 0:
        return None
    share, other = above[0] / above[1], below[0] / below[1]
    # With a = share, b = other: (ab -+ sqrt((ab)^2 - cd)) / d, where c is low (2a - low) and d is
    # high_b (2b - high_b), or for the upper end the reverse. The lower end is written as
    # c / (ab + sqrt(...)), which has no 0 / 0 where d is 0.
    product = share * other
    c, d = _between(limits.low, share), _between(others.high, other)
    low = c / (product + math.sqrt(product * product - c * d)) if c else 0.0
    c, d = _between(limits.high, share), _between(others.low, other)
    root = math.sqrt(max(0.0, product * product - c * d))
    return Interval(low, (product + root) / d if d else math.inf)


def _between(limit: float, share: float) -> float:
    return limit * (2 * share - limit)
