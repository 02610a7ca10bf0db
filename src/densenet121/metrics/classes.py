"""Metrics of images that each have one of several classes: accuracy, balanced accuracy, kappa."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.metrics.bootstrap import draw, percentile_interval, resampled_sums
from densenet121.metrics.decisions import grades, mean_recall, quadratic_kappa, wilson_interval
from densenet121.metrics.values import Counts, Floats, Interval, ratio


def summarise_classes(
    labels: Counts,
    probability: Floats,
    *,
    names: Sequence[str] | None = None,
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
        probability: ``(n, C)``.
        names: the C classes, of which ``quadratic_kappa`` takes the ``grades``; None: in order.
        group: ``(n,)`` number of each image's group, 0, 1, 2 ...
        resamples: resamples of the bootstrap; 0 leaves out its intervals.
        seed: seed of the bootstrap.

    Returns:
        JSON values, undefined ones None.
    """
    classes = probability.shape[1]
    keep = labels >= 0
    units = (np.arange(len(labels)) if group is None else group)[keep]
    known, answers = labels[keep], probability[keep].argmax(axis=1)
    right = answers == known
    grade = np.arange(classes) if names is None else grades(names)
    known_grades, answered_grades = grade[known], grade[answers]

    def metrics(times: Counts) -> dict[str, float | None]:
        images = np.bincount(known, times, minlength=classes)
        found = np.bincount(known, times * right, minlength=classes)
        return {
            "accuracy": ratio(int(found.sum()), int(images.sum())),
            "balanced_accuracy": mean_recall(found, images),
            "quadratic_kappa": quadratic_kappa(known_grades, answered_grades, times),
        }

    result: dict[str, Any] = {"n_images": len(right), "n_unknown": int((~keep).sum())}
    drawn = _resampled(metrics, units, resamples, seed)
    for name, value in metrics(np.ones_like(units)).items():
        if name == "accuracy":
            interval = (
                wilson_interval(int(right.sum()), len(right))
                if group is None
                else _share_interval(drawn[name], right, units)
            )
        else:
            interval = percentile_interval(drawn[name], of=value)
        result[name] = value
        result[f"{name}_ci"] = None if interval is None or value is None else list(interval)
    return result


def rank_intervals(
    labels: Counts,
    answers: Counts,
    rank: Counts,
    group: Counts,
    *,
    resamples: int = 2000,
    seed: int = 1,
) -> dict[str, Any]:
    """Intervals over groups of top-1, top-5, balanced accuracy and kappa, as JSON values.

    As in ``summarise_classes``; that of the top-5 accuracy is made like that of the top-1.

    Args:
        labels: ``(n,)`` each image's class as one of the ``grades``.
        answers: ``(n,)`` the class that is predicted, likewise.
        rank: ``(n,)`` rank of the class among the answers, from 1.
        group: ``(n,)`` number of each image's group, 0, 1, 2 ...
        resamples: resamples of the bootstrap.
        seed: seed of the bootstrap.
    """
    tops = {"top1": rank <= 1, "top5": rank <= 5}

    def metrics(times: Counts) -> dict[str, float | None]:
        images = np.bincount(labels, times)
        right = np.bincount(labels, times * tops["top1"])
        shares = {name: (times * top).sum() / times.sum() for name, top in tops.items()}
        return {
            **shares,
            "balanced_accuracy": mean_recall(right, images),
            "quadratic_kappa": quadratic_kappa(labels, answers, times),
        }

    found: dict[str, Any] = {"n_groups": len(np.unique(group))}
    measured = metrics(np.ones_like(group))
    for name, values in _resampled(metrics, group, resamples, seed).items():
        top = tops.get(name)
        interval = (
            percentile_interval(values, of=measured[name])
            if top is None
            else _share_interval(values, top, group)
        )
        found[f"{name}_ci"] = None if interval is None else list(interval)
    return found | {
        "intervals": {
            "level": 0.95,
            "shares": "percentile bootstrap over groups, Wilson over groups at 0 and 1",
            "others": "percentile bootstrap over groups",
            "resamples": resamples,
            "seed": seed,
        }
    }


def share_interval(
    right: NDArray[np.bool_], group: Counts | None = None, *, resamples: int = 2000, seed: int = 1
) -> Interval | None:
    """Interval of the share of images that are right: Wilson's, or over groups (bootstrap).

    Args:
        right: ``(n,)`` of each image.
        group: ``(n,)`` number of each image's group; None takes images for independent.
        resamples: resamples of the bootstrap.
        seed: seed of the bootstrap.

    Returns:
        None without images, and of a single group with a share between 0 and 1.
    """
    if group is None or not len(right):
        return wilson_interval(int(right.sum()), len(right))
    number = np.unique(group, return_inverse=True)[1]
    of_groups = np.stack([np.bincount(number, right), np.bincount(number)]).astype(np.float64)
    part, whole = resampled_sums(of_groups, resamples, seed)
    return _share_interval(part / whole, right, group)


def _share_interval(values: Floats, right: NDArray[np.bool_], group: Counts) -> Interval | None:
    """Interval over groups of the share of images that are right.

    At 0 or 1, where no resample has another share, Wilson's, as if each group were one image.
    """
    if right.any() and not right.all():
        return percentile_interval(values)
    groups = len(np.unique(group))
    return wilson_interval(groups if right.all() else 0, groups)


def _resampled(
    metrics: Callable[[Counts], dict[str, float | None]], group: Counts, resamples: int, seed: int
) -> dict[str, Floats]:
    """Each metric in each resample of groups, nan where it is not defined.

    Args:
        metrics: metrics of the images, by how many times each of them is drawn.
        group: ``(n,)`` number of each image's group.
        resamples: number of resamples; there are none of a single group.
        seed: seed of the bootstrap.
    """
    numbers = np.unique(group, return_inverse=True)[1]
    groups = int(numbers.max()) + 1 if len(numbers) else 0
    rows = [
        metrics(draw(groups, resample, resample + 1, seed)[numbers, 0].astype(np.int64))
        for resample in range(resamples if groups > 1 else 0)
    ]
    names = metrics(np.ones_like(numbers))
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in names}
