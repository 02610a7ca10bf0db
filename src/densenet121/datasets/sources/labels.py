"""Class names and numbers from the labels that a list, a shard or a Parquet file has."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.image_dataset import some
from densenet121.datasets.sources.text import lines_of, read_text
from densenet121.utils.errors import InputError

# What stands for "no label" among labels that are numbers.
_NO_LABEL = frozenset(("", "none", "null", "nan", "na", "n/a", "unknown", "?"))
_MISSING = "which is no class; leave such images out (test sets are often published without labels)"


def check_labels(
    labels: Sequence[str],
    classes_file: Path,
    where: str,
    *,
    partial: bool = False,
    place: Callable[[int], str] | None = None,
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names and numbers from the labels in a list or a shard.

    Labels are names, sorted in byte order, or the numbers 0, 1, 2 ... A file of class names, one
    per line, sets names and order; then a class may have no image.

    Args:
        labels: the label of each image.
        classes_file: the file of class names, which need not exist.
        where: what has the labels, for messages.
        partial: allow a gap in the numbers and a single class, as validation images may have.
        place: where the image of an index is, for messages.

    Raises:
        InputError: fewer than two classes, a gap in the numbers, a label that is none, or one that
            the file of class names does not have; the text names ``where``.
    """
    found = set(labels)
    _check_missing(labels, found, place or (lambda index: where))
    numbers = all(label.isascii() and label.isdecimal() for label in found)
    if classes_file.is_file():
        names = [line.strip() for line in lines_of(read_text(classes_file)) if line.strip()]
        if len(set(names)) != len(names):
            raise InputError(f"{classes_file}: a class name occurs twice")
        known = set(names)
        # Class names may themselves be numbers.
        by_number = numbers and not found <= known
    else:
        by_number = numbers
        names = sorted(found, key=int if numbers else os.fsencode)
        if numbers and not partial and [int(name) for name in names] != list(range(len(names))):
            raise InputError(
                f"{where}: the labels are numbers, but not all of 0 to {names[-1]} occur; "
                f"write the class names into {classes_file}, one per line"
            )
        if by_number and partial:  # "01" and "1" are one class
            names = [str(number) for number in sorted({int(label) for label in found})]
            place_of = {name: i for i, name in enumerate(names)}
            numbered = [place_of[str(int(label))] for label in labels]
            return tuple(names), np.array(numbered, dtype=np.int64)
    if len(names) < 2 and not partial:
        raise InputError(f"{where}: has only one class ({''.join(names)}); at least two are needed")
    number_of = {str(i) if by_number else name: i for i, name in enumerate(names)}
    unknown = sorted(
        {str(int(label)) if by_number else label for label in found} - number_of.keys()
    )
    if unknown:
        raise InputError(f"{where}: labels that are not in {classes_file}: {some(unknown)}")
    numbered = [number_of[str(int(label)) if by_number else label] for label in labels]
    return tuple(names), np.array(numbered, dtype=np.int64)


def _check_missing(labels: Sequence[str], found: set[str], place: Callable[[int], str]) -> None:
    """Refuse a negative number, or a word for "no label", among labels that are numbers."""
    missing = {label for label in found if label.strip().lower() in _NO_LABEL}
    negative = {label for label in found if re.fullmatch(r"-[0-9]+", label)}
    others = found - missing - negative
    if not negative and not missing:
        return
    if all(label.isascii() and label.isdecimal() for label in others) and (negative or others):
        wrong = missing | negative
        index = next(index for index, label in enumerate(labels) if label in wrong)
        count = sum(label in wrong for label in labels)
        raise InputError(
            f'{place(index)}: has the label "{labels[index]}", {_MISSING}; {count} of '
            f"{len(labels)} images have none"
        )
