"""Temperature scaling (Guo et al. 2017): the search, and when there is nothing to find."""

import math
from collections.abc import Callable
from typing import NamedTuple

LIMIT = 100.0  # the search goes from 1 / LIMIT to LIMIT
_AT_LIMIT = 1e-3  # of the logarithm; the search stops a little before its end


class Temperature(NamedTuple):
    """What logits are divided by.

    Attributes:
        value: the temperature; 1, which changes nothing, if none was fitted.
        problem: why none was fitted, and what to do; empty if one was.
    """

    value: float
    problem: str = ""


def fit(loss: Callable[[float], float], *, separated: bool, informative: bool) -> Temperature:
    """The temperature with the lowest loss, if there is one.

    The cross-entropy is convex in the inverse temperature, so a bounded search finds its only
    minimum. It has none where every image is on the right side, because sharper probabilities are
    then always better, and none where even the flattest ones are. The search would run to its end
    there, and probabilities of exactly 0 and 1, or all alike, would lose the order of the images.

    Args:
        loss: cross-entropy of the held-out images at a temperature.
        separated: whether every image is on the right side.
        informative: whether the loss falls as the inverse temperature rises from 0.
    """
    from scipy.optimize import minimize_scalar  # not at the top: predict starts without scipy

    if not informative:
        return Temperature(
            1.0,
            "no temperature makes its probabilities better than equal ones; check that weights "
            "and labels belong together, or pass more held-out images",
        )
    if separated:
        return Temperature(1.0, no_end())
    end = math.log(LIMIT)
    found = minimize_scalar(
        lambda power: loss(math.exp(power)),
        bounds=(-end, end),
        method="bounded",
        options={"xatol": 1e-6},
    )
    power = float(found.x)
    if abs(power) > end - _AT_LIMIT:
        return Temperature(
            1.0,
            f"the best temperature is not between {1 / LIMIT:g} and {LIMIT:g}; pass more held-out "
            "images",
        )
    return Temperature(math.exp(power))


def no_end() -> str:
    """Why nothing is fitted to logits that are always right."""
    return (
        "these images are told apart without error, so that no temperature is the best; pass "
        "more held-out images"
    )
