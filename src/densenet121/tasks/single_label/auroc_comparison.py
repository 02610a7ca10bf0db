"""Compare the AUROCs of two evaluations of the same images, of one class each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from densenet121.metrics.bootstrap import (
    LabelResampler,
    group_numbers,
    percentile_interval,
    resampled,
)
from densenet121.metrics.probabilities import class_scores
from densenet121.metrics.values import Interval
from densenet121.tasks.auroc_differences import LabelDifference, label_differences, p_text
from densenet121.tasks.single_label.predictions import read_row

Rows = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class AurocDifference:
    """B against A; of two classes, whose AUROCs are equal, the second is compared.

    Attributes:
        auroc_a: mean AUROC of A over the compared classes.
        auroc_b: mean AUROC of B.
        difference: B - A.
        low: lower end of its 95 % interval, of two classes: DeLong's, or over groups; else None.
        high: upper end.
        classes: each compared class, the worst first.
        n_groups: number of groups that the interval is over; None: images.
    """

    auroc_a: float
    auroc_b: float
    difference: float
    low: float | None
    high: float | None
    classes: tuple[LabelDifference, ...]
    n_groups: int | None = None

    def lines(self, top: int) -> list[str]:
        """The difference as text, and of more than two classes those that changed most."""
        only = self.classes[0] if len(self.classes) == 1 else None
        what = "AUROC" if only else f"mean AUROC of {len(self.classes)} classes"
        text = f"{what}: A {self.auroc_a:.4f}, B {self.auroc_b:.4f}, B - A: {self.difference:+.4f}"
        if self.low is not None:
            how = "DeLong" if self.n_groups is None else f"over {self.n_groups} groups"
            text += f", 95 % interval {self.low:+.4f} to {self.high:+.4f} ({how})"
        if only:
            independent = ", which takes images for independent" if self.n_groups else ""
            return [f"{text}; DeLong's test: p = {p_text(only.p_value)}{independent}"]
        shown = sorted(self.classes, key=lambda one: -abs(one.difference))[:top]
        width = max(len(one.label) for one in shown) if shown else 0
        return [text] + [
            f"  {one.label:<{width}}  A {one.auroc_a:.4f}  B {one.auroc_b:.4f}  "
            f"{one.difference:+.4f} {one.tested}, Holm's {p_text(one.p_holm)}"
            for one in shown
        ]


def auroc_difference(
    a: Rows, b: Rows, groups: Mapping[str, str] | None, *, resamples: int, seed: int
) -> AurocDifference | None:
    """Compare rows of the same images.

    Args:
        a: path to row of predictions.csv of A.
        b: those of B.
        groups: path to the id of the image's group, or None.
        resamples: number of resamples of the bootstrap over groups.
        seed: of the bootstrap.

    Returns:
        None if a row has no probability of each class, the classes differ, or no class has two
        images and two others.
    """
    paths = sorted(a)
    of_a, of_b = (_shares([rows[path] for path in paths]) for rows in (a, b))
    if of_a is None or of_b is None or of_a.keys() != of_b.keys():
        return None
    names = list(of_a)
    compared = names[1:] if len(names) == 2 else names
    labels = np.array([a[path]["label"] for path in paths])
    truth = np.stack([labels == name for name in compared], axis=1).astype(np.float64)
    one, two = (
        class_scores(np.stack([shares[name] for name in names], axis=1))[:, -len(compared) :]
        for shares in (of_a, of_b)
    )
    classes = label_differences(compared, truth, one, two)
    if not classes:
        return None
    low, high = (classes[0].low, classes[0].high) if len(compared) == 1 else (None, None)
    numbers = None if groups is None else group_numbers(np.array([groups[p] for p in paths]))
    if len(compared) == 1 and numbers is not None:
        interval = _over_groups(truth[:, 0], one[:, 0], two[:, 0], numbers, resamples, seed)
        low, high = interval or (None, None)
    means = [float(np.mean([getattr(c, f"auroc_{side}") for c in classes])) for side in "ab"]
    return AurocDifference(
        auroc_a=means[0],
        auroc_b=means[1],
        difference=means[1] - means[0],
        low=low,
        high=high,
        classes=tuple(sorted(classes, key=lambda one: (one.difference, one.label))),
        n_groups=None if numbers is None else int(numbers.max()) + 1,
    )


def _shares(rows: Sequence[Mapping[str, str]]) -> dict[str, NDArray[np.float64]] | None:
    """Class to the probabilities of it; None if a row lacks one."""
    read = [read_row(row) for row in rows]
    names = list(read[0].shares) if read and read[0] else []
    found = [row.shares for row in read if row is not None and row.shares.keys() == set(names)]
    if not names or len(found) != len(rows):
        return None
    return {name: np.array([shares[name] for shares in found]) for name in names}


def _over_groups(
    truth: NDArray[np.float64],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    group: NDArray[np.int64],
    resamples: int,
    seed: int,
) -> Interval | None:
    """95 % interval of the difference: a group is drawn with both probabilities."""
    groups = int(group.max()) + 1
    if groups == 1:
        return None
    drawn = [
        resampled(
            [LabelResampler(truth, shares, group, groups)], len(truth), groups, resamples, seed
        )["auroc"][0]
        for shares in (a, b)
    ]
    return percentile_interval(drawn[1] - drawn[0])
