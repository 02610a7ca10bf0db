"""Metrics of all images: for each label, and means over the labels for which they are defined."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.metrics.bootstrap import group_numbers
from densenet121.metrics.summary import summarise

_LEAST_POSITIVES = 1


def all_metrics(
    truth: NDArray[np.float64], shares: NDArray[np.float64], names: Sequence[str]
) -> dict[str, Any]:
    """``labels`` by name with DeLong's intervals, and ``macro``, without any bootstrap.

    A label of which all known images are alike has no AUROC; ``left_out`` names it.
    """
    found = summarise(truth, shares, names, least_positives=_LEAST_POSITIVES, resamples=0)
    return {"labels": found["labels"], "macro": found["macro"]}


def metrics_with_intervals(
    truth: NDArray[np.float64],
    shares: NDArray[np.float64],
    names: Sequence[str],
    *,
    thresholds: Mapping[str, float],
    group: Sequence[str] | None,
    by: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Every metric with its interval, at the thresholds, and for the images of each subgroup.

    Args:
        truth: ``(N, K)``, 1, 0 or nan for not known.
        shares: ``(N, K)`` probabilities.
        names: the labels.
        thresholds: label to threshold; empty without operating points.
        group: what the images of one group, such as a patient, have in common; None: nothing.
        by: column to the subgroup of each image.
    """

    def of(chosen: NDArray[np.bool_]) -> dict[str, Any]:
        numbers = None if group is None else group_numbers(np.array(group)[chosen])
        return summarise(
            truth[chosen],
            shares[chosen],
            names,
            group=numbers,
            thresholds=thresholds,
            least_positives=_LEAST_POSITIVES,
        )

    found = of(np.ones(len(truth), dtype=np.bool_))
    for column, values in by.items():
        cells = np.array(values)
        parts = {value: of(cells == value) for value in np.unique(cells).tolist()}
        found.setdefault("by", {})[column] = parts
    return found
