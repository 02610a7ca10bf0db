"""Each class against all others: AUROC, average precision, sensitivity and others.

``N`` images, ``C`` classes. With two classes both have the same AUROC.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from densenet121.metrics.bootstrap import group_numbers
from densenet121.metrics.classes import rank_intervals
from densenet121.metrics.decisions import grades, mean_recall, quadratic_kappa
from densenet121.metrics.probabilities import class_scores
from densenet121.metrics.ranking import auroc
from densenet121.metrics.summary import summarise
from densenet121.tasks.single_label.calibration import probabilities
from densenet121.tasks.single_label.metrics import Counts, topk_correct
from densenet121.tasks.single_label.predictions import Row
from densenet121.tasks.values import Logits, Metrics

MOST_CLASSES = 100  # with more, each image's probabilities would make files and memory large
MOST_PROBABILITIES = 5_000_000  # images times classes: 350 MB as text, while it is written


def logits_for_each(columns: Mapping[str, NDArray[Any]]) -> Logits | None:
    """The logits, ``(N, C)``, of ``Scores.columns``; None if they are too many for each class."""
    logits = columns.get("logits")
    return None if logits is None or logits.size > MOST_PROBABILITIES else logits


def mean_auroc(labels: NDArray[np.int64], shares: NDArray[np.float64]) -> float | None:
    """Mean over the classes with images of the AUROC of each against the others.

    Args:
        labels: ``(N,)``.
        shares: ``(N, C)`` probabilities.

    Returns:
        None if all images are of one class.
    """
    ranked = class_scores(shares).T
    found = [auroc((labels == k).astype(np.float64), own) for k, own in enumerate(ranked)]
    defined = [value for value in found if value is not None]
    return float(np.mean(defined)) if defined else None


def metrics_of_classes(
    labels: NDArray[np.int64],
    answers: NDArray[np.int64],
    shares: NDArray[np.float64],
    names: Sequence[str],
    group: NDArray[np.int64] | None = None,
) -> Metrics:
    """``labels`` (the metrics of each class by its name), ``macro`` (their means), ``few_groups``.

    An image is called positive for the class that is its answer. Intervals are DeLong's and
    Wilson's, or over groups; without groups means of more than two classes have none.

    Args:
        labels: ``(N,)``.
        answers: ``(N,)`` the predicted classes.
        shares: ``(N, C)`` probabilities.
        names: the C classes.
        group: ``(N,)`` number of each image's group, 0, 1, 2 ...
    """
    classes = np.arange(len(names))
    found = summarise(
        (labels[:, None] == classes).astype(np.float64),
        shares,
        names,
        group=group,
        called=answers[:, None] == classes,
        resamples=0 if group is None else 2000,
        scores=class_scores(shares),
    )
    if len(names) == 2 and group is None:  # both have the same AUROC, which is the mean
        found["macro"]["auroc_ci"] = found["labels"][names[0]]["auroc_ci"]
    few = {} if group is None else {"few_groups": found["few_groups"]}
    return {"labels": found["labels"], "macro": found["macro"], **few}


def metrics_with_intervals(
    labels: NDArray[np.int64],
    answers: NDArray[np.int64],
    ranks: NDArray[np.int64],
    logits: Logits | None,
    names: Sequence[str],
    group: Sequence[str] | None,
    by: Mapping[str, Sequence[str]],
) -> Metrics:
    """What eval.json adds to the counts: intervals over groups, each class, subgroups in ``by``.

    Args:
        labels: ``(N,)``.
        answers: ``(N,)`` the predicted classes.
        ranks: ``(N,)`` rank of each image's class among its logits, from 1.
        logits: ``(N, C)``, or None with too many classes.
        names: the C classes.
        group: id of each image's group, or None.
        by: column to the subgroup of each image.
    """
    ids = None if group is None else np.array(group)
    grade = grades(names)

    def of(chosen: NDArray[np.bool_]) -> Metrics:
        own, own_answers = labels[chosen], answers[chosen]
        numbers = None if ids is None else group_numbers(ids[chosen])
        found = {}
        if numbers is not None:
            found = rank_intervals(grade[own], grade[own_answers], ranks[chosen], numbers)
        if logits is not None:
            shares = probabilities(logits[chosen])
            found |= metrics_of_classes(own, own_answers, shares, names, numbers)
        return found

    found = of(np.ones(len(labels), dtype=np.bool_))
    for column, values in by.items():
        cells = np.array(values)
        parts = {}
        for value in np.unique(cells).tolist():
            chosen = cells == value
            own = of(chosen)
            mean = {"auroc": own["macro"]["auroc"]} if logits is not None else {}
            counts = accuracies(labels[chosen], answers[chosen], ranks[chosen], names)
            parts[value] = counts | mean | own
        found.setdefault("by", {})[column] = parts
    return found


def metrics_of_rows(rows: Sequence[Row], names: Sequence[str]) -> Metrics | None:
    """``metrics_of_classes`` of the rows of predictions.csv, without groups.

    Returns:
        None if they do not have the probability of each class, or a class that is not in ``names``.
    """
    number = {name: index for index, name in enumerate(names)}
    if not rows or any(row.shares.keys() != number.keys() for row in rows):
        return None
    if not {row.label for row in rows} | {row.predicted for row in rows} <= number.keys():
        return None
    labels, answers = (
        np.array([number[getattr(row, field)] for row in rows]) for field in ("label", "predicted")
    )
    shares = np.array([[row.shares[name] for name in names] for row in rows])
    return metrics_of_classes(labels, answers, shares, names)


def accuracies(
    labels: NDArray[np.int64],
    answers: NDArray[np.int64],
    ranks: NDArray[np.int64],
    names: Sequence[str],
    loss_sum: float | None = None,
) -> Metrics:
    """Counts and shares of top-1 and top-5, number of images, balanced accuracy, quadratic kappa.

    Args:
        labels: ``(N,)``.
        answers: ``(N,)`` the predicted classes.
        ranks: ``(N,)`` rank of each image's class among its logits, from 1.
        names: the classes.
        loss_sum: of these images, for their mean loss.

    Raises:
        InputError: there are no images.
    """
    grade, images = grades(names), np.bincount(labels)
    right = np.bincount(labels[ranks == 1], minlength=len(images))
    top1, top5 = (topk_correct(torch.from_numpy(ranks), k) for k in (1, 5))
    counts = Counts(top1, top5, len(labels), loss_sum or 0.0)
    return {
        **({} if loss_sum is None else {"loss": counts.loss}),
        "top1_correct": counts.top1_correct,
        "top5_correct": counts.top5_correct,
        "total": counts.total,
        "top1": counts.top1,
        "top5": counts.top5,
        "balanced_accuracy": mean_recall(right, images),
        "quadratic_kappa": quadratic_kappa(grade[labels], grade[answers], np.ones_like(labels)),
    }
