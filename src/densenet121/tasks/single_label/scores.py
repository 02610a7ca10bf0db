"""Numbers of the report: confidence interval of an accuracy, confusions, results per class.

``C`` is the number of classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from densenet121.metrics import decisions
from densenet121.tasks.single_label.predictions import Row

Shown = TypeVar("Shown")


class ClassScore(NamedTuple):
    """Results of one class: shares in 0..1, ``support`` and ``called`` in images.

    A share of no images is 0, and so it is in means, as in scikit-learn; pages show it as a dash.
    """

    number: int
    name: str
    precision: float
    recall: float
    f1: float
    support: int
    called: int

    def shown(self, form: Callable[[float], Shown]) -> list[Shown | str]:
        """Precision, recall and F1 in a form; a dash for a share of no images."""
        wholes = self.called, self.support, self.called + self.support
        shares = self.precision, self.recall, self.f1
        return [form(share) if whole else "-" for share, whole in zip(shares, wholes, strict=True)]


def never_predicted(classes: Sequence[ClassScore]) -> str:
    """What to know of the mean precision where classes with images are never the answer."""
    never = sum(1 for one in classes if not one.called)
    if not never:
        return ""
    verb = "is" if never == 1 else "are"
    return (
        f"{never} of {len(classes)} classes {verb} never predicted and {verb} 0 in the mean "
        "precision."
    )


class Pair(NamedTuple):
    """Number of ``images`` of one class that were predicted as another; classes by number."""

    label: int
    predicted: int
    images: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Labels against predictions. Pairs are a list, since C * C is too large for 21841 classes."""

    names: list[str]
    support: NDArray[np.int64]  # (C,) images of each class
    pairs: list[Pair]  # each pair that occurs, including correct ones, most frequent first
    classes: list[ClassScore]  # in the order of names

    @property
    def confused(self) -> list[Pair]:
        """The pairs of two different classes, most frequent first."""
        return [pair for pair in self.pairs if pair.label != pair.predicted]


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """95 % interval of a share, in 0..1; (0, 1) for no images."""
    return decisions.wilson_interval(correct, total) or (0.0, 1.0)


def compare(predictions: Sequence[Row], class_names: Sequence[str]) -> Comparison:
    """Compare labels with predictions; classes that are not in ``class_names`` come last."""
    found = sorted({name for one in predictions for name in (one.label, one.predicted)})
    names = list(dict.fromkeys([*class_names, *found]))
    number = {name: index for index, name in enumerate(names)}
    labels = np.array([number[one.label] for one in predictions], dtype=np.int64)
    predicted = np.array([number[one.predicted] for one in predictions], dtype=np.int64)
    cells, counts = np.unique(labels * len(names) + predicted, return_counts=True)
    pairs = [
        Pair(*divmod(int(cell), len(names)), int(count))
        for cell, count in zip(cells, counts, strict=True)
    ]
    # Not by scikit-learn: importing it takes longer than the rest of a small report.
    support = np.bincount(labels, minlength=len(names))
    called = np.bincount(predicted, minlength=len(names))
    right = np.bincount(labels[labels == predicted], minlength=len(names))
    precision, recall = right / np.maximum(called, 1), right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(called + support, 1)
    return Comparison(
        names=names,
        support=support,
        pairs=sorted(pairs, key=lambda pair: (-pair.images, pair.label, pair.predicted)),
        classes=[
            ClassScore(
                number=index,
                name=name,
                precision=float(precision[index]),
                recall=float(recall[index]),
                f1=float(f1[index]),
                support=int(support[index]),
                called=int(called[index]),
            )
            for index, name in enumerate(names)
        ],
    )
