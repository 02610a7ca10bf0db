"""Temperatures and operating points of labels, fitted on held-out images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.metrics.ranking import calls_at_each_score
from densenet121.metrics.temperature import Temperature, fit
from densenet121.utils.checks import number_in
from densenet121.utils.errors import InputError, UsageError

OPERATING_POINTS = ("youden", "f1", "sensitivity=X", "specificity=X", "precision=X")
_WITH_TARGET = ("sensitivity", "specificity", "precision")


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold of one label, with what it reaches on the images it was chosen on.

    Attributes:
        threshold: probability from which on the label is positive.
        true_positives: positive images at or above the threshold.
        false_positives: negative images at or above the threshold.
        positives: positive images; both are 0 for the threshold of another program.
        negatives: negative images.
    """

    threshold: float
    true_positives: int
    false_positives: int
    positives: int
    negatives: int

    @property
    def sensitivity(self) -> float | None:
        """Share of the positive images at or above the threshold; None if not recorded."""
        return self.true_positives / self.positives if self.positives else None

    @property
    def specificity(self) -> float | None:
        """Share of the negative images below the threshold; None if not recorded."""
        if not self.negatives:
            return None
        return (self.negatives - self.false_positives) / self.negatives


@dataclass(frozen=True)
class Calibration:
    """What ``calibrate`` stores with weights.

    Attributes:
        temperatures: what the logits of each label are divided by.
        points: the operating point of each label; empty if none was asked for.
        rule: how the thresholds were chosen; empty if none was asked for.
        note: origin of the images.
    """

    temperatures: tuple[float, ...]
    points: tuple[OperatingPoint, ...]
    rule: str
    note: Mapping[str, Any]

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """The thresholds; None without operating points."""
        return tuple(point.threshold for point in self.points) or None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self) | {"note": dict(self.note)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Calibration":
        """Read the result of ``to_json``.

        Raises:
            InputError: it is damaged.
        """
        try:
            found = cls(
                temperatures=tuple(float(x) for x in content["temperatures"]),
                points=tuple(OperatingPoint(**point) for point in content["points"]),
                rule=str(content["rule"]),
                note=dict(content["note"]),
            )
            numbers = [*found.temperatures, *(point.threshold for point in found.points)]
            if not all(math.isfinite(number) for number in numbers) or (
                min(found.temperatures) <= 0
                or (found.points and len(found.points) != len(found.temperatures))
            ):
                raise ValueError("a number is out of range")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the calibration of these weights is damaged ({error})") from None
        return found


def parse_rule(text: str) -> tuple[str, float | None]:
    """The name and the target of an operating point, such as ``sensitivity=0.95``.

    Raises:
        UsageError: there is no such rule, or its target is not between 0 and 1.
    """
    name, _, target = text.partition("=")
    try:
        value = number_in(target) if target else None
    except ValueError:
        value = math.nan
    needs = name in _WITH_TARGET
    known = needs or name in ("youden", "f1")
    if not known or needs != (value is not None) or not 0 < (value or 0.5) < 1:
        raise UsageError(
            f"`operating_point` must be one of {', '.join(OPERATING_POINTS)} with X between 0 and "
            f"1, got {text}"
        )
    return name, value


def probabilities(
    logits: NDArray[Any], temperatures: float | Sequence[float] = 1.0
) -> NDArray[np.float64]:
    """Sigmoid of logits over temperatures, for one label or ``(N, K)`` with one for each label.

    Equal logits give equal probabilities, wherever they stand: torch's sigmoid rounds otherwise in
    the last numbers of an array than before.
    """
    from scipy.special import expit

    scaled = np.asarray(logits, dtype=np.float64) / np.asarray(temperatures)
    return np.asarray(expit(scaled))


def fit_temperature(logits: NDArray[np.float64], labels: NDArray[np.float64]) -> Temperature:
    """The temperature with the lowest binary cross-entropy of one label, if it can be used."""
    sides = np.where(labels == 1, logits, -logits)

    def loss(temperature: float) -> float:
        return float(np.mean(np.logaddexp(0, -sides / temperature)))

    found = fit(loss, separated=bool((sides >= 0).all()), informative=float(sides.mean()) > 0)
    if saturated(logits, found.value) > saturated(logits, 1.0):
        return Temperature(
            1.0,
            f"the best temperature, {found.value:.4f}, makes probabilities exactly 0 or 1; pass "
            "more held-out images",
        )
    return found


def saturated(logits: NDArray[np.float64], temperature: float) -> int:
    """Number of probabilities that are 0 or 1, so that the order of the images is lost."""
    shares = probabilities(logits, temperature)
    return int(((shares == 0) | (shares == 1)).sum())


def choose(
    shares: NDArray[np.float64], labels: NDArray[np.float64], name: str, target: float | None
) -> OperatingPoint | None:
    """The best threshold of one label among the cuts between its observed probabilities.

    A cut is the mean of two neighbouring probabilities, so that rounding does not move an image
    across it. Among equally good cuts the lowest, the most sensitive one, is taken. With a target:
    for sensitivity the highest cut that reaches it, for specificity and precision the lowest.

    Args:
        shares: ``(N,)`` probabilities.
        labels: ``(N,)``, 1 or 0, with both.
        name: a rule of ``parse_rule``.
        target: its target.

    Returns:
        None if no cut reaches the target.
    """
    different, hits, called = calls_at_each_score(labels, shares)
    false = called - hits
    positives, negatives = float(labels.sum()), float(len(labels) - labels.sum())
    below = np.append(different[1:], 0.0)
    cuts = (different + below) / 2
    cuts = np.where(cuts > below, cuts, different)  # neighbours without a number between them
    values = values_of_cuts(shares, labels, name)
    if target is None:
        at = int(np.flatnonzero(values == values.max())[-1])
    else:
        reached = np.flatnonzero(values >= target)
        if not len(reached):
            return None
        at = int(reached[0] if name == "sensitivity" else reached[-1])
    return OperatingPoint(
        float(cuts[at]), int(hits[at]), int(false[at]), int(positives), int(negatives)
    )


def values_of_cuts(
    shares: NDArray[np.float64], labels: NDArray[np.float64], name: str
) -> NDArray[np.float64]:
    """What a rule looks at, for each cut of ``choose``, the highest cut first.

    It is Youden's index, F1, or the measure that has a target.
    """
    _, hits, called = calls_at_each_score(labels, shares)
    positives, negatives = labels.sum(), len(labels) - labels.sum()
    false = called - hits
    # Each is one division of whole numbers, so that equal cuts have equal values, and a cut that
    # reaches a target exactly is not below it by rounding.
    values: dict[str, NDArray[np.float64]] = {
        "youden": (hits * negatives - false * positives) / (positives * negatives),
        "f1": 2 * hits / (called + positives),
        "sensitivity": hits / positives,
        "specificity": (negatives - false) / negatives,
        "precision": hits / called,
    }
    return values[name]
