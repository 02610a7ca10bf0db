"""Compare two evaluations of the same images: is the mean AUROC of B lower than that of A?

Each label by DeLong's test of paired AUROCs, the mean by a paired bootstrap over images or groups.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.metrics.bootstrap import (
    LabelResampler,
    few_groups_note,
    few_of_mean_note,
    group_numbers,
    labels_of_few_groups,
    percentile_interval,
    resampled,
)
from densenet121.tasks.auroc_differences import LabelDifference, label_differences, p_text
from densenet121.tasks.multi_label.answers import Row, read_row
from densenet121.tasks.values import Compared
from densenet121.utils.errors import InputError, some, visible_lines

Rows = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Difference(Compared):
    """B against A on the same images.

    Attributes:
        pictures: number of images.
        auroc_a: mean AUROC of A over the compared labels.
        auroc_b: mean AUROC of B.
        difference: B - A.
        low: lower end of its 95 % interval, None if the bootstrap gives none.
        high: upper end.
        labels: each label, the worst first.
        left_out: labels with fewer than two positive or two negative images.
        n_groups: number of groups that the bootstrap drew; None: it drew images.
        few_positives: compared labels whose positives, or negatives, are of few images or groups.
    """

    pictures: int
    auroc_a: float
    auroc_b: float
    difference: float
    low: float | None
    high: float | None
    labels: tuple[LabelDifference, ...]
    left_out: tuple[str, ...]
    n_groups: int | None = None
    few_positives: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Every field."""
        return asdict(self)

    @property
    def drop(self) -> float:
        """Percentage points of mean AUROC that B loses."""
        return -100 * self.difference

    def text(self, top: int) -> str:
        """The means, then the labels that changed most."""
        over = f"{self.n_groups} groups" if self.n_groups else "images"
        interval = f"no interval, since {self._alike}"
        if self.low is not None:
            ends = f"{self.low:+.4f} to {self.high:+.4f}"
            interval = f"95 % interval {ends} (paired bootstrap over {over})"
        tested = sum(label.p_value is not None for label in self.labels)
        several = tested > 1
        lines = [
            f"mean AUROC of {len(self.labels)} labels, {self.pictures} images: A "
            f"{self.auroc_a:.4f}, B {self.auroc_b:.4f}",
            f"B - A: {self.difference:+.4f}, {interval}",
        ]
        what = "groups" if self.n_groups else "images"
        note = few_groups_note(self.n_groups) or few_of_mean_note(self.few_positives, what)
        if self.low is not None and note:
            lines.append(note)
        if self.n_groups:
            lines.append("the tests of labels take images for independent")
        if several:
            lines.append(
                "each p is that of one label alone, Holm's that of the label as one of "
                f"{tested} that were tested"
            )
        if self.left_out:
            lines.append(f"left out, with too few images of one kind: {some(self.left_out, 20)}")
        shown = sorted(self.labels, key=lambda label: -abs(label.difference))[:top]
        width = max((len(label.label) for label in shown), default=0)
        lines += [
            f"  {one.label:<{width}}  A {one.auroc_a:.4f}  B {one.auroc_b:.4f}  "
            f"{one.difference:+.4f} {one.tested}"
            + (f", Holm's {p_text(one.p_holm)}" if several else "")
            for one in shown
        ]
        return visible_lines(lines)

    @property
    def _alike(self) -> str:
        """Why there is no interval."""
        if self.n_groups == 1:
            return "all images are of one group"
        if all(label.difference == 0 and label.low is None for label in self.labels):
            return "A and B tell positives from negatives alike, for each label"
        return "few resamples have images of both kinds of every label, or all have one difference"


def difference(
    a: Rows,
    b: Rows,
    *,
    resamples: int = 9999,
    seed: int = 1,
    groups: Mapping[str, str] | None = None,
) -> Difference:
    """Compare the rows of two predictions.csv, matched by path.

    Args:
        a: the reference.
        b: rows of the same images.
        resamples: number of resamples of the bootstrap.
        seed: of the bootstrap.
        groups: image path to the id of its group; None draws images.

    Raises:
        InputError: a row is damaged, the labels differ, or none can be compared.
    """
    paths = sorted(a)
    names, truth, shares_a, shares_b = _paired(a, b, paths)
    labels = label_differences(names, truth, shares_a, shares_b)
    if not labels:
        raise InputError("no label has two positive and two negative images; pass more images")
    kept = [names.index(label.label) for label in labels]
    drawn = (
        np.arange(len(paths))
        if groups is None
        else group_numbers(np.array([groups[path] for path in paths]))
    )
    interval = _interval(truth, shares_a, shares_b, kept, drawn, resamples, seed)
    mean_a, mean_b = (
        float(np.mean([getattr(label, name) for label in labels]))
        for name in ("auroc_a", "auroc_b")
    )
    return Difference(
        pictures=len(paths),
        auroc_a=mean_a,
        auroc_b=mean_b,
        difference=mean_b - mean_a,
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
        labels=tuple(sorted(labels, key=lambda label: (label.difference, label.label))),
        left_out=tuple(name for k, name in enumerate(names) if k not in kept),
        n_groups=None if groups is None else int(drawn.max()) + 1,
        few_positives=tuple(labels_of_few_groups(truth[:, kept], [names[k] for k in kept], drawn)),
    )


def _paired(
    a: Rows, b: Rows, paths: Sequence[str]
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Names of the labels; ``(images, labels)`` true values and probabilities of A and of B."""
    pairs = [(_row(a[path], path, "A"), _row(b[path], path, "B")) for path in paths]
    names = list(pairs[0][0].targets)
    for one, two in pairs:
        other = sorted(set(one.targets) ^ set(two.targets))  # their order may differ
        if other:
            where = "A" if other[0] in one.targets else "B"
            raise InputError(
                f"{one.path}: the label {other[0]} is only in {where}; evaluate weights of the "
                "same labels"
            )
        for name in names:
            if not _same(one.targets[name], two.targets[name]):
                raise InputError(
                    f"{one.path}: its label {name} is {_shown(one.targets[name])} in A but "
                    f"{_shown(two.targets[name])} in B; evaluate both on one table"
                )
    truth = np.array([[one.targets[name] for name in names] for one, _ in pairs])
    shares_a, shares_b = (
        np.array([[row.probabilities[name] for name in names] for row in rows])
        for rows in zip(*pairs, strict=True)
    )
    return names, truth, shares_a, shares_b


def _interval(
    truth: NDArray[np.float64],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    kept: list[int],
    group: NDArray[np.int64],
    resamples: int,
    seed: int,
) -> tuple[float, float] | None:
    """95 % interval of the difference of the means: a group is drawn with both probabilities."""
    groups = int(group.max()) + 1
    means = [
        resampled(
            [LabelResampler(truth[:, k], shares[:, k], group, groups) for k in kept],
            len(truth),
            groups,
            resamples,
            seed,
        )["auroc"].mean(axis=0)
        for shares in (a, b)
    ]
    return percentile_interval(means[1] - means[0])


def _row(row: Mapping[str, str], path: str, side: str) -> Row:
    found = read_row(row)
    if found is None:
        raise InputError(f"{path}: its row of predictions.csv in {side} is damaged")
    return found


def _same(one: float, two: float) -> bool:
    return one == two or (math.isnan(one) and math.isnan(two))


def _shown(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.0f}"
