"""Offsets of the classes' logits, fitted on held-out images, and what they change."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.metrics import offsets
from densenet121.metrics.decisions import mean_recall
from densenet121.tasks.single_label.calibrate import halves
from densenet121.tasks.values import LogitOffsets
from densenet121.utils.errors import InputError, some
from densenet121.utils.rounding import percent

_FEW = 10  # images of a class; the factor e^offset is then uncertain by about 1.9
_SHOWN = 20  # classes


def learn(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    names: Sequence[str],
    seed: int,
    groups: NDArray[np.int64] | None = None,
) -> LogitOffsets:
    """An offset for each class: together with a temperature they have the lowest cross-entropy.

    They are fitted on one random half of the images. Answers are counted on the other half.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)``.
        names: the classes.
        seed: seed of the split into halves.
        groups: ``(N,)`` number of each image's group, which stays in one half.

    Raises:
        InputError: a class has no image in the half that is fitted on.
    """
    fitted, kept = halves(len(labels), seed, groups)
    counts = np.bincount(labels[fitted], minlength=len(names))
    if not counts.all():
        missing = [names[k] for k in np.flatnonzero(counts == 0).tolist()]
        raise InputError(
            f"`fit_bias` has no image of {some(missing)} in the half of these {len(labels)} images "
            "that it is fitted on; pass more images, or omit `fit_bias`"
        )
    found = offsets.of_classes(logits[fitted].astype(np.float64), labels[fitted])
    few = [f"{names[k]} ({counts[k]})" for k in np.flatnonzero(counts < _FEW).tolist()]

    def effect(before: NDArray[Any], after: NDArray[Any], calibration: object) -> list[str]:
        if found.problem:
            return [f"warning: the classes have no offsets: {found.problem}"]
        lines = []
        if few:
            lines.append(
                f"warning: offsets of classes with fewer than {_FEW} of the images that they are "
                f"fitted on are rough: {some(few)}; pass more held-out images"
            )
        return lines + _effect(found.values, before[kept], after[kept], labels[kept], names)

    return LogitOffsets(found.values, effect)


def _effect(
    values: NDArray[np.float64],
    before: NDArray[Any],
    after: NDArray[Any],
    labels: NDArray[np.int64],
    names: Sequence[str],
) -> list[str]:
    """Offsets, answers of each class and accuracies, on the images that were not fitted on."""
    answers = [part.argmax(axis=1) for part in (before, after)]
    images, old, new = (np.bincount(a, minlength=len(names)) for a in (labels, *answers))
    order = sorted(np.argsort(-np.abs(values), kind="stable")[:_SHOWN].tolist())
    width = max(len(names[k]) for k in order)
    lines = [
        f"{names[k]:<{width}}  offset {values[k]:+.4f}  {images[k]} images, the answer "
        f"{old[k]} times before, {new[k]} times with it"
        for k in order
    ]
    if len(names) > len(order):
        lines.append(f"and {len(names) - len(order)} classes with smaller offsets")
    shown = []
    for found in answers:
        right = np.bincount(labels[found == labels], minlength=len(names))
        recall = mean_recall(right, images)
        shown.append(
            f"{percent(float((found == labels).mean()))}, balanced {percent(recall or 0.0)}"
        )
    return [
        *lines,
        f"accuracy {shown[0]} before; {shown[1]} with the offsets (on {len(labels)} images not "
        "used for fitting)",
    ]
