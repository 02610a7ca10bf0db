"""Compare two evaluations of the same images: is B worse than A?

Sources: McNemar 1947, in the exact form (a binomial test over the images on which they differ);
Efron 1979 for the bootstrap, here paired: an image is drawn with both answers.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap

from densenet121.metrics.bootstrap import (
    few_groups_note,
    group_numbers,
    percentile_interval,
    resampled_sums,
)
from densenet121.metrics.values import Interval
from densenet121.tasks.single_label.auroc_comparison import AurocDifference, auroc_difference
from densenet121.tasks.values import Compared
from densenet121.utils.errors import InputError, visible_lines
from densenet121.utils.rounding import percent

Rows = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Difference(Compared):
    """B against A on the same images; differences are B - A, in percentage points of top-1.

    Attributes:
        pictures: number of images.
        top1_a: top-1 accuracy of A, per cent.
        top1_b: top-1 accuracy of B, per cent.
        difference: difference between them.
        low: lower end of its 95 % interval; None where all resamples are alike, as with a single
            group, or if no image changed.
        high: upper end of its 95 % interval.
        only_a: images that only A classifies correctly.
        only_b: images that only B classifies correctly.
        p_value: p-value of McNemar's exact test.
        classes: name, images, difference of the recall in percentage points; the worst first.
        flipped: path, label, answer of A, answer of B, of each image that only one has correct.
        n_groups: number of groups that the bootstrap drew; None: it drew images.
        auroc: of each class against the others; None where either file lacks the probabilities.
    """

    pictures: int
    top1_a: float
    top1_b: float
    difference: float
    low: float | None
    high: float | None
    only_a: int
    only_b: int
    p_value: float
    classes: tuple[tuple[str, int, float], ...]
    flipped: tuple[tuple[str, str, str, str], ...]
    n_groups: int | None = None
    auroc: AurocDifference | None = None

    def to_json(self) -> dict[str, Any]:
        """Every field, with every flipped image."""
        return asdict(self)

    @property
    def drop(self) -> float:
        """Percentage points of top-1 that B loses."""
        return -self.difference

    @property
    def _alike(self) -> str:
        """Why there is no interval."""
        if self.n_groups == 1:
            return "all images are of one group"
        if not self.flipped:
            return "A and B are right on the same images"
        return f"all {'groups' if self.n_groups else 'images'} changed alike"

    def text(self, top: int) -> str:
        """The difference with its interval, then the classes and images that changed most."""
        over = f" over {self.n_groups} groups" if self.n_groups else ""
        interval = f"no interval, since {self._alike}"
        if self.low is not None:
            interval = f"95 % interval {self.low:+.2f} to {self.high:+.2f} (paired bootstrap{over})"
        lines = [
            f"A {percent(self.top1_a / 100)}, B {percent(self.top1_b / 100)} of "
            f"{self.pictures} images",
            f"B - A: {self.difference:+.2f} percentage points, {interval}",
            f"only A correct: {self.only_a}, only B correct: {self.only_b}; "
            f"McNemar's exact test: p = {self.p_value:.4g}"
            + (", which takes images for independent" if self.n_groups else ""),
        ]
        if self.low is not None and (note := few_groups_note(self.n_groups)):
            lines.insert(2, note)
        if self.auroc is not None:
            lines += self.auroc.lines(top)
        changed = [row for row in self.classes if row[2]]
        shown = sorted(changed, key=lambda row: -abs(row[2]))[:top]
        if shown:
            lines.append(f"classes that changed, {len(shown)} of {len(changed)}:")
            lines += [f"  {points:+7.2f}  {name} ({count})" for name, count, points in shown]
        if self.flipped:
            some = self.flipped[:top]
            lines.append(f"images that flipped, {len(some)} of {len(self.flipped)}:")
            lines += [f"  {path}: A {one}, B {two}" for path, _, one, two in some]
        return visible_lines(lines)


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
        InputError: a label differs.
    """
    paths = sorted(a)
    for path in paths:
        if a[path]["label"] != b[path]["label"]:
            raise InputError(
                f"{path}: its label is {a[path]['label']} in A but {b[path]['label']} in B"
            )
    labels = np.array([a[path]["label"] for path in paths])
    right_a, right_b = (
        np.array([rows[path]["predicted"] for path in paths]) == labels for rows in (a, b)
    )
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    gained = right_b.astype(np.int64) - right_a.astype(np.int64)
    n_groups: int | None = None
    if groups is None:
        interval = _interval(gained, resamples, seed)
    else:
        ids = np.array([groups[path] for path in paths])
        n_groups, interval = _over_groups(gained, ids, resamples, seed)
    both = only_a + only_b
    return Difference(
        pictures=len(paths),
        top1_a=100 * float(right_a.mean()),
        top1_b=100 * float(right_b.mean()),
        difference=100 * (only_b - only_a) / len(paths),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        only_a=only_a,
        only_b=only_b,
        n_groups=n_groups,
        auroc=auroc_difference(a, b, groups, resamples=resamples, seed=seed),
        p_value=float(binomtest(only_a, both).pvalue) if both else 1.0,
        classes=_by_class(labels, gained),
        flipped=tuple(
            (path, a[path]["label"], a[path]["predicted"], b[path]["predicted"])
            for path, one, two in zip(paths, right_a, right_b, strict=True)
            if one != two
        ),
    )


def _by_class(
    labels: NDArray[np.str_], gained: NDArray[np.int64]
) -> tuple[tuple[str, int, float], ...]:
    """Name, images and gain in percentage points of each class, the worst first."""
    rows = []
    for name in np.unique(labels):
        own = gained[labels == name]
        rows.append((str(name), len(own), 100 * int(own.sum()) / len(own)))
    return tuple(sorted(rows, key=lambda row: (row[2], row[0])))


def _interval(each: NDArray[np.int64], resamples: int, seed: int) -> Interval | None:
    """95 % percentile interval of the mean of -1, 0 and 1, in percentage points.

    None if all are alike: no resample has another mean, and few images do not make it certain.
    """
    if (each == each[0]).all():
        return None
    found = bootstrap(
        (each,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 10_000_000 // len(each)),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(100 * float(found.low), 100 * float(found.high))


def _over_groups(
    each: NDArray[np.int64], ids: NDArray[np.str_], resamples: int, seed: int
) -> tuple[int, Interval | None]:
    """Number of groups, and that interval where whole groups are drawn; None of a single group."""
    number = group_numbers(ids)
    groups = int(number.max()) + 1
    if groups == 1:
        return groups, None
    of_groups = np.stack([np.bincount(number, weights, groups) for weights in (each, None)])
    gained, images = resampled_sums(of_groups.astype(np.float64), resamples, seed)
    return groups, percentile_interval(100 * gained / images)
