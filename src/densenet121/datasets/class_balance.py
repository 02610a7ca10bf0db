"""Weights of classes that have unequal numbers of images."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.image_dataset import ImageDataset, read_whole
from densenet121.utils.checks import number_in
from densenet121.utils.errors import InputError, some

Weights = NDArray[np.float64]


def class_counts(dataset: ImageDataset, field: str) -> NDArray[np.int64]:
    """Number of images of each class.

    Raises:
        InputError: a class has none; ``field`` is the setting that needs them.
    """
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    empty = [name for name, n in zip(dataset.class_names, counts, strict=True) if not n]
    if empty:
        raise InputError(
            f"{dataset.root}: no training image of class {some(empty)}, but `{field}` needs images "
            "of every class"
        )
    return counts


def balanced_weights(counts: NDArray[np.int64]) -> Weights:
    """``1 / n``, scaled to mean 1 (in proportion to scikit-learn's "balanced")."""
    return _scaled(1 / counts)


def sqrt_weights(counts: NDArray[np.int64]) -> Weights:
    """``1 / sqrt(n)``, scaled to mean 1."""
    return _scaled(1 / np.sqrt(counts))


def effective_weights(counts: NDArray[np.int64], beta: float) -> Weights:
    """``(1 - beta) / (1 - beta^n)``, scaled to mean 1 (Cui et al. 2019, equation 2)."""
    if beta == 0:
        return np.ones(len(counts))
    # expm1, because beta^n is close to 1 for a beta close to 1.
    return _scaled(-1 / np.expm1(counts * math.log(beta)))


def read_weights_file(file: Path, class_names: Sequence[str]) -> Weights:
    """The weight of each class from a CSV file of ``class,weight`` lines, scaled to mean 1.

    Raises:
        InputError: it cannot be read, a weight is not a positive number, or the classes differ; the
            text names the line.
    """
    text = read_whole(file).decode("utf-8-sig", "surrogateescape")
    found: dict[str, float] = {}
    for number, row in enumerate(csv.reader(io.StringIO(text)), start=1):
        if not row:
            continue
        name, weight = row[0].strip(), _positive(row[1]) if len(row) == 2 else None
        if weight is None:
            raise InputError(
                f"{file}, line {number}: must be a class and a weight above 0 with a comma between "
                f"them, got {','.join(row)}"
            )
        if name not in class_names:
            raise InputError(f"{file}, line {number}: the data has no class {name}")
        if name in found:
            raise InputError(f"{file}, line {number}: class {name} occurs twice")
        found[name] = weight
    missing = [name for name in class_names if name not in found]
    if missing:
        raise InputError(f"{file}: no weight for class {some(missing)}")
    return _scaled(np.array([found[name] for name in class_names]))


def _positive(text: str) -> float | None:
    try:
        number = number_in(text)
    except ValueError:
        return None
    return number if 0 < number < math.inf else None


def _scaled(weights: Weights) -> Weights:
    return np.asarray(weights / weights.mean())
