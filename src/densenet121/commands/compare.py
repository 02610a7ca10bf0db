"""The ``compare`` command: two evaluations of the same images, and whether B is worse than A.

Sources: McNemar 1947, in its exact form (a binomial test over the images on which they differ);
Efron 1979 for the bootstrap, here paired: an image is drawn with both of its answers.
"""

import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap

from densenet121.config import CompareConfig, absolute
from densenet121.runs.evaluations import EvaluationFile, read_evaluation
from densenet121.utils.errors import InputError
from densenet121.utils.files import write_json


@dataclass(frozen=True)
class Difference:
    """B against A on the same images; differences are B - A, in percentage points of top-1.

    Attributes:
        images: how many.
        top1_a: share of A's right answers, per cent.
        top1_b: likewise of B.
        difference: between them.
        low: lower end of its 95 % interval.
        high: upper end.
        only_a: images that only A has right.
        only_b: images that only B has right.
        p_value: of McNemar's exact test.
        classes: name, images, difference of the recall in percentage points; the worst first.
        flipped: path, label, what A said, what B said, of each image that only one has right.
    """

    pictures: int
    top1_a: float
    top1_b: float
    difference: float
    low: float
    high: float
    only_a: int
    only_b: int
    p_value: float
    classes: tuple[tuple[str, int, float], ...]
    flipped: tuple[tuple[str, str, str, str], ...]


def compare(config: CompareConfig) -> int:
    """Print the comparison; 1 if B is worse by more than --fail_if_worse_by, else 0.

    Raises:
        InputError: an evaluation cannot be read, or they are not of the same images.
    """
    a, b = read_evaluation(absolute(config.a)), read_evaluation(absolute(config.b))
    found = difference(a, b, resamples=config.resamples, seed=config.seed)
    if config.format == "json":
        print(json.dumps(asdict(found), indent=2, allow_nan=False))  # noqa: T201
    else:
        print(_text(found, config.top))  # noqa: T201 (the command's output)
    if config.output is not None:
        write_json(absolute(config.output), asdict(found))
    limit = config.fail_if_worse_by
    return int(limit is not None and -found.difference > limit + 1e-9)


def difference(
    a: EvaluationFile, b: EvaluationFile, *, resamples: int = 9999, seed: int = 1
) -> Difference:
    """Compare two evaluations, image by image.

    Raises:
        InputError: their images or labels differ.
    """
    _check_same(a, b)
    paths = sorted(a.rows)
    right_a = np.array([a.rows[path].correct for path in paths])
    right_b = np.array([b.rows[path].correct for path in paths])
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    gained = right_b.astype(np.int64) - right_a.astype(np.int64)
    low, high = _interval(gained, resamples, seed)
    labels = np.array([a.rows[path].label for path in paths])
    classes = [
        (
            str(name),
            int((labels == name).sum()),
            100 * int(gained[labels == name].sum()) / int((labels == name).sum()),
        )
        for name in np.unique(labels)
    ]
    flipped = tuple(
        (path, a.rows[path].label, a.rows[path].predicted, b.rows[path].predicted)
        for path, one, two in zip(paths, right_a, right_b, strict=True)
        if one != two
    )
    both = only_a + only_b
    top1_a, top1_b = 100 * float(right_a.mean()), 100 * float(right_b.mean())
    return Difference(
        pictures=len(paths),
        top1_a=top1_a,
        top1_b=top1_b,
        difference=100 * (only_b - only_a) / len(paths),
        low=low,
        high=high,
        only_a=only_a,
        only_b=only_b,
        p_value=float(binomtest(only_a, both).pvalue) if both else 1.0,
        classes=tuple(sorted(classes, key=lambda row: (row[2], row[0]))),
        flipped=flipped,
    )


def _interval(each: NDArray[np.int64], resamples: int, seed: int) -> tuple[float, float]:
    """95 % percentile interval of the mean of -1, 0 and 1, in percentage points."""
    if (each == each[0]).all():  # nothing to draw: scipy would warn of a degenerate distribution
        return 100 * float(each[0]), 100 * float(each[0])
    found = bootstrap(
        (each,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 10_000_000 // len(each)),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return 100 * float(found.low), 100 * float(found.high)


def _check_same(a: EvaluationFile, b: EvaluationFile) -> None:
    missing = sorted(set(a.rows) ^ set(b.rows))
    if missing:
        where = a.path if missing[0] in a.rows else b.path
        raise InputError(
            f"{a.path} and {b.path} are not of the same images: {missing[0]} is only in {where} "
            f"({len(missing)} such in all); evaluate both on one folder"
        )
    for path, row in a.rows.items():
        if b.rows[path].label != row.label:
            raise InputError(f"{path}: labelled {row.label} in {a.path}, not so in {b.path}")


def _text(found: Difference, top: int) -> str:
    lines = [
        f"A {found.top1_a:.2f} %, B {found.top1_b:.2f} % of {found.pictures} images",
        f"B - A: {found.difference:+.2f} percentage points, 95 % interval "
        f"{found.low:+.2f} to {found.high:+.2f} (paired bootstrap)",
        f"only A right: {found.only_a}, only B right: {found.only_b}; "
        f"McNemar's exact test: p = {found.p_value:.4g}",
    ]
    changed = [row for row in found.classes if row[2]]
    shown = sorted(changed, key=lambda row: -abs(row[2]))[:top]
    if shown:
        lines.append(f"classes that changed, {len(shown)} of {len(changed)}:")
        lines += [f"  {points:+7.2f}  {name} ({count})" for name, count, points in shown]
    if found.flipped:
        some = found.flipped[:top]
        lines.append(f"images that flipped, {len(some)} of {len(found.flipped)}:")
        lines += [f"  {path}: A {one}, B {two}" for path, _, one, two in some]
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def run(config: CompareConfig) -> int:
    """Compare and print; 1 if B is worse by more than is allowed."""
    return compare(config)
