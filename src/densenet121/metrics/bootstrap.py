"""Bootstrap over groups, such as patients: all images of a group are drawn together.

Source: Efron 1979, percentile intervals; Field and Welsh 2007 (clusters drawn as a whole). A
resample is the number of times that each group is drawn, and a metric of it is the metric with
these numbers as weights, so that scores are sorted once.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from densenet121.metrics.probabilities import brier_of_each, log_loss_of_each
from densenet121.metrics.values import Counts, Floats, Interval
from densenet121.utils.errors import some

# Separates these draws from the other uses of a seed.
_STREAM = 2**62
_CELLS = 2_000_000  # weights held at a time
_LEAST_DEFINED = 0.5  # share of the resamples that must have a value
_ROUNDING = 1e-12  # of a metric, between all images and a resample, or between two resamples
FEW_GROUPS = 20  # below it percentile intervals are clearly too narrow (docs/guides/metrics.md)

Draws = NDArray[np.int32]


def group_numbers(ids: NDArray[np.str_]) -> Counts:
    """Number of the group of each image, 0, 1, 2 ... in the order of the ids."""
    return np.unique(ids, return_inverse=True)[1].astype(np.int64)


def few_groups_note(groups: int | None) -> str:
    """What to know of intervals over so few groups; empty for enough groups, or for images."""
    if groups == 1:
        return "all images are of one group, so that only shares of 0 or 1 have an interval"
    if groups is None or not 1 < groups < FEW_GROUPS:
        return ""
    return f"with fewer than {FEW_GROUPS} groups such intervals are too narrow"


def few_positives_note(labels: Sequence[str]) -> str:
    """What to know of the intervals of labels whose positives, or negatives, are of few groups."""
    if not labels:
        return ""
    return (
        "too narrow are the intervals of labels with positives, or negatives, of fewer than "
        f"{FEW_GROUPS} groups: {some(labels, 20)}"
    )


def few_of_mean_note(labels: Sequence[str], what: str) -> str:
    """What to know of the interval of a mean over labels, if some have few positives or negatives.

    ``what`` the resamples draw: images or groups.
    """
    if not labels:
        return ""
    return (
        "the intervals of the means may be too narrow, with positives, or negatives, of fewer "
        f"than {FEW_GROUPS} {what}: {some(labels, 20)}"
    )


def labels_of_few_groups(truth: Floats, names: Sequence[str], group: Counts) -> list[str]:
    """The labels whose intervals are too narrow: positives, or negatives, of few groups.

    Args:
        truth: ``(n, L)``: 1, 0 or nan (unknown).
        names: the L labels.
        group: ``(n,)`` number of each image's group.
    """
    return [
        name
        for row, name in enumerate(names)
        if any(0 < len(np.unique(group[truth[:, row] == kind])) < FEW_GROUPS for kind in (0, 1))
    ]


def draw(groups: int, first: int, last: int, seed: int) -> Draws:
    """How often each group is drawn in the resamples ``first`` to ``last - 1``.

    Each resample has its own Philox stream, keyed by (seed, resample): the result depends neither
    on how many are drawn at a time nor on numpy's version.

    Returns:
        ``(groups, last - first)``; each column sums to ``groups``.
    """
    drawn = np.empty((groups, last - first), dtype=np.int32)
    for column, resample in enumerate(range(first, last)):
        key = np.array([seed, _STREAM + resample], dtype=np.uint64)
        raw = np.random.Philox(key=key).random_raw(groups)
        chosen = ((raw >> np.uint64(11)) * 2.0**-53 * groups).astype(np.int64)
        drawn[:, column] = np.bincount(chosen, minlength=groups)
    return drawn


class LabelResampler:
    """The metrics of one label in every resample.

    Args:
        truth: ``(n,)`` 0, 1 or nan (unknown; left out).
        probability: ``(n,)``.
        group: ``(n,)`` number of each image's group.
        groups: number of groups.
        called: ``(n,)`` whether it is called positive; None leaves out the metrics of decisions.
        score: ``(n,)`` what is ranked; None: the probability.
    """

    def __init__(
        self,
        truth: Floats,
        probability: Floats,
        group: Counts,
        groups: int,
        called: NDArray[np.bool_] | None = None,
        score: Floats | None = None,
    ) -> None:
        keep = ~np.isnan(truth)
        score = (probability if score is None else score)[keep]
        truth, probability, group = truth[keep], probability[keep], group[keep]
        order = np.argsort(score, kind="stable")
        score = score[order]
        self._group = group[order]
        self._positive = np.flatnonzero(truth[order] == 1)
        # For each positive: images, and positives, below its score and up to its score.
        own = score[self._positive]
        self._below = np.searchsorted(score, own, side="left")
        self._up_to = np.searchsorted(score, own, side="right")
        self._own_below = np.searchsorted(self._positive, self._below)
        self._own_up_to = np.searchsorted(self._positive, self._up_to)
        columns = [
            np.ones(len(truth)),
            brier_of_each(truth, probability),
            log_loss_of_each(truth, probability),
        ]
        if called is not None:
            called, positive = called[keep], truth == 1
            columns += [called & positive, called & ~positive, ~called & ~positive]
            columns += [~called & positive]
        self._sums = np.stack([np.bincount(group, column, groups) for column in columns])

    def __call__(self, drawn: Draws) -> dict[str, Floats]:
        """Each metric, ``(resamples,)``, nan where it is not defined."""
        with np.errstate(invalid="ignore", divide="ignore"):
            images, brier, log_loss, *cells = self._sums @ drawn
            found = self._ranking(drawn)
            found |= {"brier": brier / images, "log_loss": log_loss / images}
            if cells:
                tp, fp, tn, fn = cells
                found |= {"sensitivity": tp / (tp + fn), "specificity": tn / (tn + fp)}
                found |= {"ppv": tp / (tp + fp), "npv": tn / (tn + fn)}
                found["f1"] = 2 * tp / (2 * tp + fp + fn)
                found["balanced_accuracy"] = (found["sensitivity"] + found["specificity"]) / 2
        return found

    def _ranking(self, drawn: Draws) -> dict[str, Floats]:
        weights = drawn[self._group]
        total, own = _cumulative(weights), weights[self._positive]
        own_total = _cumulative(own)
        positives, images = own_total[-1].astype(np.float64), total[-1]
        negatives = images - positives
        below = total[self._below] - own_total[self._own_below]
        up_to = total[self._up_to] - own_total[self._own_up_to]
        wins = (own * (below + up_to).astype(np.float64)).sum(axis=0) / 2
        called = images - total[self._below]
        precision = (positives - own_total[self._own_below]) / np.maximum(called, 1)
        return {
            "auroc": wins / (positives * negatives),
            "average_precision": (own * precision).sum(axis=0) / positives,
        }


def resampled(
    labels: list[LabelResampler], images: int, groups: int, resamples: int, seed: int
) -> dict[str, Floats]:
    """Each metric of each label in each resample, the same resamples for all labels.

    Args:
        labels: the labels.
        images: number of images; decides only how many resamples are held at a time.
        groups: number of groups.
        resamples: number of resamples.
        seed: 0 to 2**64 - 1.

    Returns:
        Metric to ``(labels, resamples)``; nan where a label has no such metric.
    """
    found: dict[str, Floats] = {}
    for first, last in _parts(images, resamples):
        drawn = draw(groups, first, last, seed)
        for row, label in enumerate(labels):
            for name, values in label(drawn).items():
                empty = np.full((len(labels), resamples), np.nan)
                found.setdefault(name, empty)[row, first:last] = values
    return found


def resampled_sums(of_groups: Floats, resamples: int, seed: int) -> Floats:
    """Sums over the groups that are drawn, in each resample.

    Args:
        of_groups: ``(m, groups)``, m numbers of each group.
        resamples: number of resamples.
        seed: 0 to 2**64 - 1.

    Returns:
        ``(m, resamples)``.
    """
    groups = of_groups.shape[1]
    found = np.empty((len(of_groups), resamples))
    for first, last in _parts(groups, resamples):
        found[:, first:last] = of_groups @ draw(groups, first, last, seed)
    return found


def percentile_interval(
    values: Floats, level: float = 0.95, *, of: float | None = None
) -> Interval | None:
    """Percentile interval of the resamples in which the metric is defined (not nan).

    None if it is defined in fewer than half of them, or both ends are the same but for rounding:
    then the bootstrap says nothing. So it is where one class gets every answer: its balanced
    accuracy is another only in the few resamples that lack a class. None too if the metric ``of``
    all images is outside: it is biased in resamples, as an average precision near chance is, since
    a positive that is drawn twice is found twice at once.
    """
    defined = values[~np.isnan(values)]
    if not len(defined) or len(defined) < _LEAST_DEFINED * len(values):
        return None
    low, high = np.percentile(defined, [50 * (1 - level), 50 * (1 + level)])
    outside = of is not None and not low - _ROUNDING <= of <= high + _ROUNDING
    if outside or high - low <= _ROUNDING:
        return None
    return Interval(float(low), float(high))


def _parts(rows: int, resamples: int) -> Iterator[tuple[int, int]]:
    """First and last of the resamples that are held at a time, with a weight for each row."""
    step = max(1, min(resamples, _CELLS // max(1, rows)))
    for first in range(0, resamples, step):
        yield first, min(first + step, resamples)


def _cumulative(weights: Draws) -> NDArray[np.int32]:
    """Sums of the first 0, 1, 2 ... rows, ``(rows + 1, resamples)``."""
    sums = np.zeros((len(weights) + 1, weights.shape[1]), dtype=np.int32)
    np.cumsum(weights, axis=0, out=sums[1:])
    return sums
