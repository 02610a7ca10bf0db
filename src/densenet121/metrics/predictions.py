"""All metrics of predictions: of each label and, if each image has one class, of the likeliest."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.metrics.bootstrap import group_numbers
from densenet121.metrics.classes import summarise_classes
from densenet121.metrics.net_benefit import net_benefits
from densenet121.metrics.probabilities import class_scores
from densenet121.metrics.summary import summarise
from densenet121.metrics.values import Floats


def summarise_predictions(
    truth: Floats,
    probability: Floats,
    names: Sequence[str],
    *,
    ids: NDArray[np.str_] | None,
    one_class: bool,
    thresholds: Mapping[str, float] | None = None,
    prevalences: Mapping[str, float] | None = None,
    act_from: Sequence[float] = (),
    least_positives: int = 1,
    resamples: int = 2000,
    seed: int = 1,
) -> dict[str, Any]:
    """``summarise`` and, if each image has one of the labels as its class, ``classes``.

    Args:
        truth: ``(n, L)``: 1, 0 or nan (unknown).
        probability: ``(n, L)``.
        names: the L labels.
        ids: ``(n,)`` id of each image's group, or None.
        one_class: each image has one of the labels as its class.
        thresholds: as for ``summarise``.
        prevalences: label to the share of positives at which PPV and NPV, of labels with a
            threshold, and net benefits are wanted.
        act_from: probabilities from which on one would act, for ``net_benefits``.
        least_positives: as for ``summarise``.
        resamples: resamples of the bootstrap; 0 leaves out the intervals that need it.
        seed: seed of the bootstrap.
    """
    group, at = None if ids is None else group_numbers(ids), prevalences or {}
    result = summarise(
        truth,
        probability,
        names,
        group=group,
        thresholds=thresholds,
        prevalences={name: share for name, share in at.items() if name in (thresholds or {})},
        least_positives=least_positives,
        resamples=resamples,
        seed=seed,
        scores=class_scores(probability) if one_class else None,
    )
    if act_from:
        shares = [at.get(name) for name in names]
        benefits = net_benefits(
            truth, probability, act_from, shares, group=group, resamples=resamples, seed=seed
        )
        for name, found in zip(names, benefits, strict=True):
            result["labels"][name]["net_benefits"] = found
    if one_class:
        # A row has one 1, or is unknown, or holds a label that does not count.
        labels = np.where((truth == 1).any(axis=1), (truth == 1).argmax(axis=1), -1)
        result["classes"] = summarise_classes(
            labels, probability, names=names, group=group, resamples=resamples, seed=seed
        )
    return result
