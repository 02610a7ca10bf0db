"""Metrics of the order of the scores: AUROC and average precision, ties grouped.

Sources: Mann and Whitney 1947; DeLong, DeLong and Clarke-Pearson 1988 (variance of an AUROC and of
the difference of two); Sun and Xu 2014 (the same from midranks, in O(n log n)).
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from densenet121.metrics.values import Counts, Floats, Interval, known


class PairedTest(NamedTuple):
    """Two models on the same images: B - A.

    Attributes:
        auroc_a: AUROC of A.
        auroc_b: AUROC of B.
        difference: ``auroc_b - auroc_a``.
        standard_error: of the difference.
        interval: of the difference; None without variance.
        p_value: two-sided, for no difference; 1 for two scores with one order, None for a
            difference without variance.
    """

    auroc_a: float
    auroc_b: float
    difference: float
    standard_error: float
    interval: Interval | None
    p_value: float | None


def midranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def auroc(truth: Floats, score: Floats) -> float | None:
    """Probability that a positive scores higher than a negative; equal scores count one half.

    None if there are no positives or no negatives. Sums of ranks are exact in float64, so the only
    rounding is that of the division.
    """
    truth, score = known(truth, score)
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return None
    above = midranks(score)[truth == 1].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def average_precision(truth: Floats, score: Floats) -> float | None:
    """Sum of precision times step of recall, as scikit-learn has it; equal scores are one step.

    None if there are no positives.
    """
    truth, score = known(truth, score)
    positives = truth.sum()
    if not positives:
        return None
    _, found, called = calls_at_each_score(truth, score)
    steps = np.diff(found, prepend=0.0)
    return float((steps * found / called).sum() / positives)


def calls_at_each_score(truth: Floats, score: Floats) -> tuple[Floats, Floats, Counts]:
    """What is called positive if each score in turn is the threshold, the highest first.

    Equal scores are called together.

    Args:
        truth: ``(n,)``, 1 or 0.
        score: ``(n,)``.

    Returns:
        The different scores, and at each the number of positives and of images that are called.
    """
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
    return ordered[last], np.cumsum(truth[order])[last], last + 1


def placements(truth: Floats, score: Floats) -> tuple[Floats, Floats]:
    """Share of the other class that each positive, and each negative, is on the right side of.

    DeLong's structural components V10 and V01; the mean of either is the AUROC.
    """
    wins, losses = _wins_and_losses(truth, score)
    return wins / len(losses), 1.0 - losses / len(wins)


def _wins_and_losses(truth: Floats, score: Floats) -> tuple[Floats, Floats]:
    """Negatives below each positive, and positives below each negative; equal ones are a half.

    These numbers are exact, the shares of ``placements`` rounded.
    """
    ranks = midranks(score)
    wins, losses = (ranks[truth == k] - midranks(score[truth == k]) for k in (1, 0))
    return wins, losses


def delong_interval(truth: Floats, score: Floats, level: float = 0.95) -> Interval | None:
    """DeLong's interval of the AUROC, computed on the logit scale and therefore inside (0, 1).

    The plain interval covers too little above an AUROC of 0.85 and with few images (95 % nominal
    is 83 % at 20 + 20 images and 0.95, against 94 % on the logit scale).

    None with fewer than two positives or two negatives, and where the estimated variance is 0, as
    at an AUROC of exactly 1.
    """
    truth, score = known(truth, score)
    if min((truth == 1).sum(), (truth == 0).sum()) < 2:
        return None
    v10, v01 = placements(truth, score)
    area = float(v10.mean())
    error = math.sqrt(v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01))
    if error == 0.0 or not 0.0 < area < 1.0:
        return None
    middle = math.log(area / (1 - area))
    half = quantile(level) * error / (area * (1 - area))
    return Interval(_logistic(middle - half), _logistic(middle + half))


def delong_test(truth: Floats, a: Floats, b: Floats, level: float = 0.95) -> PairedTest | None:
    """DeLong's test of two scores of the same images.

    The interval is that of the plain difference, clipped to [-1, 1]. Two scores with one order
    have difference 0, error 0 and p 1, and no interval: one without width would say that they agree
    on all other images, too. A difference whose estimated variance is 0, as between a perfect and a
    constant score, has neither interval nor p: few images do not make it certain.

    None with fewer than two positives or two negatives.
    """
    truth, a, b = known(truth, a, b)
    if min((truth == 1).sum(), (truth == 0).sum()) < 2:
        return None
    # The variance of a difference is that of the differences of the components. Of whole and half
    # numbers it is 0 where all are alike; of rounded shares it might be 1e-34, and p be 0.
    (a_wins, a_losses), (b_wins, b_losses) = (_wins_and_losses(truth, one) for one in (a, b))
    pairs = len(a_wins) * len(a_losses)
    a_area, b_area = (float((wins / len(a_losses)).mean()) for wins in (a_wins, b_wins))
    spread = (b_wins - a_wins).var(ddof=1) * len(a_wins)
    spread += (b_losses - a_losses).var(ddof=1) * len(a_losses)
    difference, error = b_area - a_area, math.sqrt(spread) / pairs
    interval: Interval | None = None
    p_value = None if difference else 1.0
    if error:
        half = quantile(level) * error
        interval = Interval(max(-1.0, difference - half), min(1.0, difference + half))
        p_value = math.erfc(abs(difference) / error / math.sqrt(2))
    return PairedTest(
        auroc_a=a_area,
        auroc_b=b_area,
        difference=difference,
        standard_error=error,
        interval=interval,
        p_value=p_value,
    )


def quantile(level: float) -> float:
    """Two-sided quantile of the normal distribution: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + level) / 2)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
