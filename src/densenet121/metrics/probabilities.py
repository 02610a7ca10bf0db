"""Metrics of probabilities as such: Brier score, log loss, calibration error."""

import math
from statistics import NormalDist

import numpy as np

from densenet121.metrics.values import Counts, Floats, known

_LEAST = float(np.finfo(np.float64).eps)
_NEAR_1 = 1e-9  # probabilities this near have no more than seven digits of their distance to 1
_EXACT = 1e-15  # by which a sum of probabilities with all digits may miss 1


def brier(truth: Floats, probability: Floats) -> float | None:
    """Mean squared distance of the probability from 0 or 1; None without images."""
    return _mean(brier_of_each(*known(truth, probability)))


def brier_of_each(truth: Floats, probability: Floats) -> Floats:
    """The squared distance of each image."""
    return (probability - truth) ** 2


def log_loss(truth: Floats, probability: Floats) -> float | None:
    """Mean of -ln of the probability of the truth, in nats; None without images.

    Probabilities are kept 2.2e-16 away from 0 and 1, as in scikit-learn; otherwise one confident
    error would make the mean infinite.
    """
    return _mean(log_loss_of_each(*known(truth, probability)))


def log_loss_of_each(truth: Floats, probability: Floats) -> Floats:
    """The loss of each image, in nats."""
    inside = np.clip(probability, _LEAST, 1 - _LEAST)
    loss: Floats = -(truth * np.log(inside) + (1 - truth) * np.log(1 - inside))
    return loss


def calibration_error(truth: Floats, probability: Floats, bins: int = 15) -> float | None:
    """Expected calibration error of the probability of being positive; None without images.

    Mean over the images of ``|share of positives - mean probability|`` in their bin. The bins have
    equal widths, and (lower, upper] belongs to a bin, 0 to the first.
    """
    truth, probability = known(truth, probability)
    if not len(truth):
        return None
    edges = np.linspace(0.0, 1.0, bins + 1)
    number = np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, bins - 1)
    gaps = np.bincount(number, weights=truth - probability, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))


def class_scores(probability: Floats) -> Floats:
    """Scores with the order of the probabilities, where each image has one of the classes.

    float64 rounds 1 - 1e-17 to 1, so that sure answers would be equal that are not, and of two
    classes, whose AUROCs are the same, one would have ties and the other none. The sum of the other
    classes has all the digits, and orders the probabilities near 1. Where such a row does not sum
    to 1 to the last digit, as if it was rounded, all stay as they are.

    Args:
        probability: ``(n, C)``.

    Returns:
        ``(n, C)``: the probabilities, or above 1 those near 1.
    """
    if not probability.size:
        return probability
    near = np.flatnonzero(probability.max(axis=1) > 1 - _NEAR_1)
    if not len(near):
        return probability
    others = probability[near]
    rows, top = np.arange(len(near)), others.argmax(axis=1)
    own = others[rows, top]
    others[rows, top] = 0
    rest = others.sum(axis=1)
    if (np.abs(1 - own - rest) > _EXACT).any():
        return probability
    scores = probability.copy()
    scores[near, top] = -np.log(np.maximum(rest, np.nextafter(0, 1)))  # 20 or more
    return scores


def mean_is_off(
    truth: Floats, probability: Floats, tests: int = 1, group: Counts | None = None
) -> bool:
    """Whether the mean probability differs from the share of positives by more than chance.

    Were the probabilities right, the number of positives would have the variance sum p (1 - p). By
    chance one of ``tests`` such questions together is answered with yes in 1,000. A number of rare
    events reaches further up than the normal law has it, and one of rare exceptions further down:
    to that side the limit is moved by the skewness (Cornish and Fisher 1938, first term). Images
    count as independent, or with groups (numbers, of images whose truth is known) these, if the
    variance is larger then.
    """
    truth, probability = known(truth, probability)
    limit = NormalDist().inv_cdf(1 - 0.0005 / tests)
    variance = probability * (1 - probability)
    total, gap = float(variance.sum()), float((truth - probability).sum())
    skew = float((variance * (1 - 2 * probability)).sum()) / total if total else 0.0
    if group is not None:
        total = max(total, float((np.bincount(group, truth - probability) ** 2).sum()))
    further = max(0.0, math.copysign(skew, skew * gap)) * (limit**2 - 1) / 6
    return abs(gap) > limit * math.sqrt(total) + further + 0.5


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None
