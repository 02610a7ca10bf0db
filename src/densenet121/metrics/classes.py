"""Metrics of images that each have one of several classes: accuracy, balanced accuracy, kappa."""

from typing import Any

import numpy as np

from densenet121.metrics.bootstrap import draw, percentile_interval
from densenet121.metrics.decisions import (
    balanced_accuracy,
    confusion,
    mean_recall,
    quadratic_kappa,
    wilson_interval,
)
from densenet121.metrics.values import Counts, Floats, Interval, ratio


def summarise_classes(
    labels: Counts,
    probability: Floats,
    *,
    group: Counts | None = None,
    resamples: int = 2000,
    seed: int = 1,
) -> dict[str, Any]:
    """Metrics of the likeliest class; of equal probabilities the first class wins.

    Intervals come from the percentile bootstrap over images or groups. That of the accuracy is
    Wilson's without groups; with groups too at an accuracy of 0 or 1, as if each were one image,
    since no resample has another accuracy there.

    Args:
        labels: ``(n,)`` number of each image's class; -1 is unknown: left out, and counted.
        probability: ``(n, C)``, the classes in order: ``quadratic_kappa`` takes them as grades.
        group: ``(n,)`` number of each image's group, 0, 1, 2 ...
        resamples: resamples of the bootstrap; 0 leaves out its intervals.
        seed: seed of the bootstrap.

    Returns:
        JSON values, undefined ones None.
    """
    classes = probability.shape[1]
    keep = labels >= 0
    units = (np.arange(len(labels)) if group is None else group)[keep]
    cells = labels[keep] * classes + probability[keep].argmax(axis=1)
    matrix = confusion(labels[keep], probability[keep].argmax(axis=1), classes)
    correct = int(np.trace(matrix))
    found: dict[str, Any] = {
        "n_images": int(keep.sum()),
        "n_unknown": int((~keep).sum()),
        "accuracy": ratio(correct, int(keep.sum())),
        "balanced_accuracy": balanced_accuracy(matrix),
        "quadratic_kappa": quadratic_kappa(matrix),
    }
    drawn = _resampled(cells, units, classes, resamples, seed)
    result: dict[str, Any] = {}
    for name, value in found.items():
        result[name] = value
        if name in drawn:
            interval: Interval | None = percentile_interval(drawn[name])
            if name == "accuracy" and group is None:
                interval = wilson_interval(correct, int(keep.sum()))
            elif name == "accuracy" and value in (0.0, 1.0):
                groups = len(np.unique(units))
                interval = wilson_interval(correct and groups, groups)
            result[f"{name}_ci"] = None if interval is None or value is None else list(interval)
    return result


def rank_intervals(
    labels: Counts, rank: Counts, group: Counts, *, resamples: int = 2000, seed: int = 1
) -> dict[str, Any]:
    """Intervals over groups of top-1, top-5 and balanced accuracy, as JSON values.

    As in ``summarise_classes``; that of the top-5 accuracy is made like that of the top-1.

    Args:
        labels: ``(n,)`` number of each image's class.
        rank: ``(n,)`` rank of the class among the answers, from 1.
        group: ``(n,)`` number of each image's group, 0, 1, 2 ...
        resamples: resamples of the bootstrap.
        seed: seed of the bootstrap.
    """
    groups = len(np.unique(group))
    drawn = np.full((3, resamples if groups > 1 else 0), np.nan)
    tops = [(rank <= k).astype(np.float64) for k in (1, 5)]
    for resample in range(drawn.shape[1]):
        weights = draw(groups, resample, resample + 1, seed)[group, 0]
        images = np.bincount(labels, weights=weights)
        right = np.bincount(labels, weights=weights * tops[0])
        shares = [(weights * top).sum() / weights.sum() for top in tops]
        drawn[:, resample] = (*shares, mean_recall(right, images))
    found: dict[str, Any] = {"n_groups": groups}
    names = ("top1_ci", "top5_ci", "balanced_accuracy_ci")
    for name, values, top in zip(names, drawn, (*tops, None), strict=True):
        interval = percentile_interval(values)
        if top is not None and top.min(initial=1) == top.max(initial=0):
            interval = wilson_interval(groups if top.all() else 0, groups)
        found[name] = None if interval is None else list(interval)
    return found | {
        "intervals": {
            "level": 0.95,
            "shares": "percentile bootstrap over groups, Wilson over groups at 0 and 1",
            "others": "percentile bootstrap over groups",
            "resamples": resamples,
            "seed": seed,
        }
    }


def _resampled(
    cells: Counts, units: Counts, classes: int, resamples: int, seed: int
) -> dict[str, Floats]:
    """Each metric in each resample; ``cells`` are true class * classes + predicted class."""
    numbers = np.unique(units, return_inverse=True)[1]
    groups = int(numbers.max()) + 1 if len(numbers) else 0
    found = {
        name: np.full(resamples if groups > 1 else 0, np.nan)
        for name in ("accuracy", "balanced_accuracy", "quadratic_kappa")
    }
    for resample in range(len(found["accuracy"])):
        drawn = draw(groups, resample, resample + 1, seed)[:, 0]
        counts = np.bincount(cells, weights=drawn[numbers], minlength=classes * classes)
        matrix = counts.astype(np.int64).reshape(classes, classes)
        values = (
            ratio(int(np.trace(matrix)), int(matrix.sum())),
            balanced_accuracy(matrix),
            quadratic_kappa(matrix),
        )
        for name, value in zip(found, values, strict=True):
            found[name][resample] = np.nan if value is None else value
    return found
