"""Class names and numbers from the labels that a list, a shard or a Parquet file has."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.image_dataset import without_decimals
from densenet121.datasets.sources.text import is_error_value, lines_of, names_of
from densenet121.utils.errors import InputError, some

# What stands for "no label" among labels that are numbers; of these, words that no class is called.
_NO_LABEL = frozenset(("", "none", "null", "nan", "na", "n/a", "unknown", "?"))
_NEVER_A_NAME = frozenset(("", "null", "nan"))
_MISSING = "which is no class; leave such images out (test sets are often published without labels)"

Labels = tuple[tuple[str, ...], NDArray[np.int64]]


def check_labels(
    labels: Sequence[str | int],
    classes_file: Path,
    where: str,
    *,
    partial: bool = False,
    place: Callable[[int], str] | None = None,
) -> Labels:
    """Class names and numbers from the labels in a list or a shard.

    Labels are names, sorted in byte order, or the numbers 0, 1, 2 ... A file of class names, one
    per line, sets names and order; then a class may have no image. Which of the two they are must
    not depend on the images of one split: numbers (``int``) always count the lines from 0, and
    texts do unless a class is called by a number, which they then are names of. ``1.0``, as pandas
    writes a number of a column that lacks some, is ``1`` where all labels are numbers.

    Args:
        labels: the label of each image; numbers, or texts.
        classes_file: the file of class names, which need not exist.
        where: what has the labels, for messages.
        partial: allow a gap in the numbers and a single class, as validation images may have.
        place: where the image of an index is, for messages.

    Raises:
        InputError: fewer than two classes, a gap in the numbers, a label that is none or of another
            kind than the others, or one that the file of class names does not have; the text names
            ``where``.
    """
    place = place or (lambda index: where)
    known = names_of(classes_file) if classes_file.is_file() else None
    texts = _without_decimals([str(label) for label in labels], known or ())
    _check_missing(texts, known or (), place)
    _check_one_kind(labels, place)
    if known is None:
        return _without_file(texts, classes_file, where, partial=partial)
    if len(set(known)) != len(known):
        raise InputError(f"{classes_file}: a class name occurs twice")
    _check_two(known, where, partial=partial)
    counting = known == [str(number) for number in range(len(known))]
    numbers = all(map(is_number, texts))
    typed = all(isinstance(label, int) for label in labels)
    by_number = numbers and (typed or counting or not any(map(is_number, known)))
    if by_number:
        texts = [str(int(text)) for text in texts]
    number_of = {str(i) if by_number else name: i for i, name in enumerate(known)}
    unknown = sorted(set(texts) - number_of.keys())
    if unknown:
        raise InputError(
            f"{where}: labels that are not in {classes_file}: {some(unknown)}"
            + _how_read(known, by_number=by_number, numbers=numbers)
        )
    return tuple(known), np.array([number_of[text] for text in texts], dtype=np.int64)


def class_lines(names: Sequence[str], where: object) -> bytes:
    """The content of ``classes.txt``, from which ``check_labels`` reads the same names.

    Args:
        names: the classes or labels, in their order.
        where: what has them, for messages.

    Raises:
        InputError: a name begins or ends with a blank, or has a line break.
    """
    for name in names:
        if lines_of(name) != [name.strip()]:
            raise InputError(
                f"{where}: the class {name!a} begins or ends with a blank or has a line "
                "break, which classes.txt cannot hold; rename it"
            )
    return "".join(f"{name}\n" for name in names).encode(errors="surrogateescape")


def _how_read(known: Sequence[str], *, by_number: bool, numbers: bool) -> str:
    """What was taken for what, where classes called by numbers could be misunderstood."""
    if not numbers or not any(map(is_number, known)):
        return ""
    if by_number:
        return f"; a number is that of a line, 0 to {len(known) - 1}"
    return "; its classes are called by numbers, so labels are names, not numbers of lines"


def _without_decimals(labels: list[str], known: Sequence[str]) -> list[str]:
    """Labels that are whole numbers without ``.0``; unless ``known``, the names, have them so."""
    found = set(labels)
    floats = {label for label in found if without_decimals(label) != label}
    others = {label for label in found - floats if label.strip().lower() not in _NO_LABEL}
    if floats & set(known) or not all(re.fullmatch(r"-?[0-9]+", other) for other in others):
        return labels
    return [without_decimals(label) for label in labels] if floats else labels


def is_number(text: str) -> bool:
    """Whether a label is a number: digits alone."""
    return text.isascii() and text.isdecimal()


def _without_file(texts: Sequence[str], classes_file: Path, where: str, *, partial: bool) -> Labels:
    """Class names and numbers where no file has the names."""
    found = set(texts)
    numbers = all(map(is_number, found))
    names = sorted(found, key=int if numbers else os.fsencode)
    if numbers and not partial and [int(name) for name in names] != list(range(len(names))):
        raise InputError(
            f"{where}: the labels are numbers, but not all of 0 to {names[-1]} occur; "
            f"write the class names into {classes_file}, one per line, the first for 0"
        )
    _check_two(names, where, partial=partial)
    if numbers and len({int(name) for name in names}) < len(names):  # "01" and "1" are one class
        texts = [str(int(text)) for text in texts]
        names = sorted(set(texts), key=int)
    number_of = {name: i for i, name in enumerate(names)}
    return tuple(names), np.array([number_of[text] for text in texts], dtype=np.int64)


def _check_two(names: Sequence[str], where: str, *, partial: bool) -> None:
    if len(names) < 2 and not partial:
        raise InputError(f"{where}: has only one class ({''.join(names)}); at least two are needed")


def _check_one_kind(labels: Sequence[str | int], place: Callable[[int], str]) -> None:
    """Refuse numbers among names: a number of a class would be a class of its own."""
    if len(set(map(type, labels))) < 2:
        return
    named = [isinstance(label, str) and not is_number(label) for label in labels]
    numbers = [isinstance(label, int) for label in labels]
    if any(named) and any(numbers):
        name, number = named.index(True), numbers.index(True)
        raise InputError(
            f'{place(name)}: the label is the name "{labels[name]}", but the number '
            f"{labels[number]} in {place(number)}; write all labels as names or all as numbers"
        )


def _check_missing(
    labels: Sequence[str], known: Sequence[str], place: Callable[[int], str]
) -> None:
    """Refuse a negative number, a word for "no label", or a spreadsheet's word for an error.

    ``known`` are names of classes.
    """
    found = set(labels) - set(known)
    negative = {label for label in found if re.fullmatch(r"-[0-9]+", label)}
    words = {label for label in found if label.strip().lower() in _NO_LABEL}
    others = set(labels) - words - negative
    if not (others and all(map(is_number, others))) and not (negative and not others):
        words = {label for label in words if label.strip().lower() in _NEVER_A_NAME}
    wrong = words | negative | set(filter(is_error_value, found))
    if not wrong:
        return
    index = next(index for index, label in enumerate(labels) if label in wrong)
    count = sum(label in wrong for label in labels)
    raise InputError(
        f'{place(index)}: has the label "{labels[index]}", {_MISSING}; {count} of '
        f"{len(labels)} images have none"
    )
