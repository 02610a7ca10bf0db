"""Offsets of labels and classes, fitted together with a temperature.

A network that was trained with weights, a sampler or the focal loss, or on other shares of the
classes, gives probabilities whose mean is not the share of the images. A temperature alone cannot
correct that. Sources: Platt 1999 (slope and offset of one label); Alexandari, Kundaje and Shrikumar
2020 (one temperature and an offset for each class).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from densenet121.metrics.temperature import LIMIT, no_end

Floats = NDArray[np.float64]


class Offsets(NamedTuple):
    """What is added to logits, before any temperature.

    Attributes:
        values: one for a label, ``(C,)`` for classes; 0 where none was fitted.
        temperature: what was fitted with them; 1 if none was.
        problem: why none was fitted, and what to do; empty if one was.
    """

    values: Floats
    temperature: float = 1.0
    problem: str = ""


def of_label(logits: Floats, labels: Floats) -> Offsets:
    """The offset and temperature of one label with the lowest cross-entropy, if there are any.

    With them the mean probability is the share of positive images.

    Args:
        logits: ``(N,)``.
        labels: ``(N,)``, 1 or 0, with both.
    """
    positive, negative = logits[labels == 1], logits[labels == 0]
    none = np.zeros(1)
    if positive.mean() <= negative.mean():
        return Offsets(none, problem=_no_better())
    if positive.min() >= negative.max():
        return Offsets(none, problem=no_end())
    centre, spread = float(logits.mean()), float(logits.std())
    scaled = (logits - centre) / spread

    def loss(at: Floats) -> tuple[float, Floats]:
        slope, offset = at
        z = slope * scaled + offset
        value = np.logaddexp(0, z) - labels * z
        gap = np.exp(-np.logaddexp(0, -z)) - labels  # the probability less the truth
        return float(value.mean()), np.array([(gap * scaled).mean(), gap.mean()])

    share = float(labels.mean())
    start = np.array([1.0, math.log(share / (1 - share))])
    found = _least(loss, start, spread)
    if found is None:
        return Offsets(none, problem=_at_the_end())
    slope, offset = found[0] / spread, found[1]
    return Offsets(np.array([offset / slope - centre]), 1 / slope)


def of_classes(logits: Floats, labels: NDArray[np.int64]) -> Offsets:
    """The offsets and temperature of all classes with the lowest cross-entropy, if there are any.

    With them the mean probability of each class is its share of the images. The offsets have the
    mean 0; a common number would change nothing.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)``, with every class.
    """
    from scipy.special import log_softmax

    count, classes = logits.shape
    rows = np.arange(count)
    shares = np.bincount(labels, minlength=classes) / count
    none = np.zeros(classes)
    if float(logits[rows, labels].mean()) <= float((logits @ shares).mean()):
        return Offsets(none, problem=_no_better())
    spread = float((logits - logits.mean(axis=1, keepdims=True)).std())
    scaled = logits / spread
    rare = np.sqrt(shares)  # the search sees offsets times this, else it needs ten times the steps

    def loss(at: Floats) -> tuple[float, Floats]:
        z = at[0] * scaled + at[1:] / rare
        logs = log_softmax(z, axis=1)
        value = -logs[rows, labels].mean()
        gap = np.exp(logs, out=logs)  # the probability less the truth
        gap[rows, labels] -= 1
        return float(value), np.append((gap * scaled).sum() / count, gap.mean(axis=0) / rare)

    found = _least(loss, np.append(1.0, np.log(shares) * rare), spread)
    if found is None:
        return Offsets(none, problem=_at_the_end())
    at = found[0] * scaled + found[1:] / rare
    if (at[rows, labels] >= at.max(axis=1)).all():  # then any larger slope is better
        return Offsets(none, problem=no_end())
    slope = found[0] / spread
    values = found[1:] / rare / slope
    return Offsets(values - values.mean(), 1 / slope)


def _no_better() -> str:
    """Why nothing is fitted to logits that are no higher where the truth is."""
    return (
        "no temperature with an offset is better than the shares of these images alone; check that "
        "weights and labels belong together, or pass more held-out images"
    )


def _least(
    loss: Callable[[Floats], tuple[float, Floats]], start: Floats, spread: float
) -> Floats | None:
    """Where a convex loss of a slope and offsets is least; None if that is at an end of the slope.

    Args:
        loss: its value and gradient.
        start: where the search begins.
        spread: what the logits were divided by; the slope is that much larger than of themselves.
    """
    from scipy.optimize import minimize  # not at the top: predict starts without scipy

    low, high = spread / LIMIT, spread * LIMIT
    start[0] = min(max(start[0], low), high)
    bounds = [(low, high)] + [(None, None)] * (len(start) - 1)
    options = {"maxiter": 2000, "maxfun": 20000, "ftol": 0, "gtol": 1e-8}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    inside = low * 1.001 < found.x[0] < high / 1.001
    return np.asarray(found.x) if inside else None


def _at_the_end() -> str:
    return (
        f"the best temperature is not between {1 / LIMIT:g} and {LIMIT:g}; pass more held-out "
        "images"
    )
