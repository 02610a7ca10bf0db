"""Calibration: temperature scaling, split conformal prediction sets, threshold to abstain.

Sources: Guo et al. 2017, "On Calibration of Modern Neural Networks" (temperature, expected
calibration error); Sadinle et al. 2019, "Least Ambiguous Set-Valued Classifiers" (the score
``1 - p`` of the true class); Angelopoulos and Bates 2021, section 1 (the finite-sample quantile).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from densenet121.metrics.temperature import Temperature, fit
from densenet121.pages.markup import mapping
from densenet121.utils.errors import InputError

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Calibration:
    """Calibration fitted on held-out images; stored with the weights.

    Attributes:
        temperature: divisor of the logits before the softmax.
        scores: ascending, ``1 - p`` of the true class of each held-out image that was not used to
            fit the temperature; with groups one for each of them (``scores_of``).
        abstain_below: probability below which there is no answer; None always answers.
        note: origin: folder, fingerprint, number of images.
    """

    temperature: float
    scores: tuple[float, ...]
    abstain_below: float | None
    note: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Calibration":
        """Read the result of ``to_json``.

        Raises:
            InputError: the content is damaged.
        """
        try:
            below = content["abstain_below"]
            found = cls(
                float(content["temperature"]),
                tuple(map(float, content["scores"])),
                None if below is None else float(below),
                dict(content["note"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the calibration in the weights is damaged ({error!r})") from None
        if not 0 < found.temperature < math.inf or list(found.scores) != sorted(found.scores):
            raise InputError("the calibration in the weights is damaged; run calibrate again")
        return found

    def set_threshold(self, coverage: float) -> float:
        """The smallest probability of a class in the prediction set.

        The set of classes at or above it contains the true class with probability ``coverage`` or
        more, over images from the same distribution as the held-out ones, of new groups if the
        scores are of groups. It is 0 if there are too
        few held-out images to guarantee that with less than all classes.

        It is midway to the next smaller probability of a held-out image, if there is one: rounding
        then takes no held-out image out of its set. A smaller threshold only makes sets larger, so
        that the guarantee holds.
        """
        # In decimal digits: of 99 images, 0.55 is the 55th, and 100 * 0.55 is a little more.
        rank = math.ceil((len(self.scores) + 1) * Fraction(str(coverage)))
        if rank > len(self.scores):
            return 0.0
        score = self.scores[rank - 1]
        larger = [other for other in self.scores[rank:] if other > score]
        return 1.0 - (score + larger[0]) / 2 if larger else 1.0 - score


class MeasuredError(NamedTuple):
    """Expected calibration error with the temperature, on held-out images not used to fit it."""

    error: float
    images: int


def with_temperature(content: Mapping[str, Any]) -> tuple[float | None, MeasuredError | None]:
    """The temperature of a stored calibration, and the error with it; None if not recorded.

    Files may be damaged or older; what cannot be read is as if it were not there.
    """
    temperature = _number(content.get("temperature"))
    found = mapping(mapping(content.get("note")).get("expected_calibration_error"))
    after, images = _number(found.get("after")), found.get("pictures")
    if temperature is None or after is None or not isinstance(images, int):
        return temperature, None
    return temperature, MeasuredError(after, images)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, float) and math.isfinite(value) else None


def probabilities(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float64]:
    """Softmax of ``logits / temperature``, ``(N, C)``: bit for bit as in evaluation and predict.

    float32 rounds 1 - 3e-8 to 1, so that sure answers would be equal that are not.
    """
    return (torch.from_numpy(logits).double() / temperature).softmax(dim=1).numpy()


def scores_of(
    shares: NDArray[np.floating], groups: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """``1 - p`` of the true class, ascending; ``1 - score`` is never above ``p``.

    With groups, J of them, there are J scores, and each group weighs one: the k-th is the smallest
    with a weight of k at or below it, an image having one n-th of its group's. The sets then hold
    the truth of an image of a new group as often as stated, however alike those of one group are
    (Lee, Barber and Willett 2023, "Distribution-free inference with hierarchical data").
    """
    exact = shares.astype(np.float64)
    scores = 1 - exact  # rounded where p is below 1e-9
    scores = np.where(1 - scores > exact, np.nextafter(scores, 2), scores)
    if groups is None:
        return np.sort(scores)
    _, number, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(scores)
    weight = np.cumsum(1 / sizes[number[order]])
    at = np.searchsorted(weight, np.arange(1, len(sizes) + 1) - 1e-9)  # sums are rounded
    return np.asarray(scores[order][np.minimum(at, len(scores) - 1)])


def fit_temperature(logits: Floats, labels: NDArray[np.int64]) -> Temperature:
    """The temperature with the smallest negative log likelihood, if there is one.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)``.
    """
    above = _above(logits, labels)

    def loss(temperature: float) -> float:
        return float(_log_losses(above, temperature).mean())

    return fit(loss, separated=bool((above >= 0).all()), informative=float(above.mean()) > 0)


def log_losses(logits: Floats, labels: NDArray[np.int64], temperature: float = 1.0) -> Floats:
    """Each image's negative log likelihood ``(N,)``, whose mean a temperature is fitted to.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)``.
        temperature: what the logits are divided by.
    """
    return _log_losses(_above(logits, labels), temperature)


def _above(logits: Floats, labels: NDArray[np.int64]) -> Floats:
    """``(N, C)``: the logit of the true class above each."""
    logits = logits.astype(np.float64)
    found: Floats = logits[np.arange(len(labels)), labels][:, None] - logits
    return found


def _log_losses(above: Floats, temperature: float) -> Floats:
    from scipy.special import logsumexp

    found: Floats = logsumexp(-above / temperature, axis=1)
    return found


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy in equal bins of confidence (Guo et al., figure 1).

    Attributes:
        edges: ``(B + 1,)`` edges of the bins, 0 to 1.
        counts: ``(B,)`` number of images.
        confidence: ``(B,)`` mean confidence, nan in an empty bin.
        accuracy: ``(B,)`` share of correct answers, nan in an empty bin.
        ece: expected calibration error: mean gap between the two, weighted by images.
    """

    edges: Floats
    counts: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats
    ece: float


def reliability(confidence: Floats, correct: NDArray[np.bool_], bins: int = 15) -> Reliability:
    """Bin confidences in (0, 1]: each belongs to the bin (lower edge, upper edge]."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    number = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(number, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(number, weights=confidence, minlength=bins) / counts
        share = np.bincount(number, weights=correct, minlength=bins) / counts
    gaps = np.nan_to_num(np.abs(mean - share)) * counts
    ece = float(gaps.sum() / max(1, counts.sum()))
    return Reliability(edges, counts, mean, share, ece)


def abstain_threshold(
    confidence: Floats, correct: NDArray[np.bool_], target: float
) -> float | None:
    """The smallest threshold with a share of correct answers of ``target`` or more at or above it.

    It is midway to the next smaller confidence, if there is one and a number is between them, so
    that rounding moves no image across it. None if no threshold reaches the target.
    """
    confidence = confidence.astype(np.float64)
    order = np.argsort(-confidence, kind="stable")
    right = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    sorted_confidence = confidence[order]
    # Equal confidences are answered together, so only the last of them can be the threshold.
    last = np.append(sorted_confidence[1:] < sorted_confidence[:-1], True)
    reached = np.flatnonzero((right >= target) & last)
    if not len(reached):
        return None
    pair = sorted_confidence[reached[-1] : reached[-1] + 2]
    middle = pair.mean()
    return float(middle if middle > pair[-1] else pair[0])
