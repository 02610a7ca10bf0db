"""Names of the classes in TFRecord files, whose numbers may begin with 0 or with 1.

ImageNet's labels are 1 to 1000, those of TensorFlow Datasets 0 to 999, and both may be in the same
feature. So a number needs a name that settles it; where none does, the files are refused.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.sources.labels import check_labels
from densenet121.datasets.sources.rows import Label, numbers_of
from densenet121.datasets.sources.text import lines_of, names_of, read_text
from densenet121.utils.errors import InputError

_CLASSES, _NUMBERED = "classes.txt", "labels.txt"

Classes = tuple[tuple[str, ...], NDArray[np.int64]]


def classes_of(
    labels: Sequence[Label],
    named: Sequence[Sequence[str]],
    folder: Path,
    key: str,
    place: Callable[[int], str],
    *,
    partial: bool,
) -> Classes:
    """Class names, and the number of each image's class.

    In this order: labels that are names; names that every record has beside its number; the lines
    ``NUMBER:NAME`` of ``labels.txt`` (as TF-Slim writes it), the lines of ``label.labels.txt``
    (TensorFlow Datasets) or of ``classes.txt`` beside the files; numbers of which one is 0.

    Args:
        labels: the label of each record.
        named: for each kind of name, that of each record, or blank.
        folder: where the files are.
        key: the feature of the labels.
        place: where a record is, for messages.
        partial: allow missing classes, as validation images may have.

    Raises:
        InputError: a label is none or has no name, two names contradict each other, or the numbers
            could begin with 0 or with 1.
    """
    numbers = [label for label in labels if isinstance(label, int)]
    if len(numbers) < len(labels):
        return check_labels(labels, folder / _CLASSES, key, partial=partial, place=place)
    names = next((list(found) for found in named if any(found)), None)
    if names is not None:
        return _by_name(numbers, names, folder, place, partial=partial)
    known = names_of_numbers(folder, key)
    if known:
        return tuple(known), numbers_of(numbers, known, place)
    if (folder / _NUMBERED).is_file():
        return _by_line(numbers, folder / _NUMBERED, place)
    return _by_number(numbers, folder, key, place, partial=partial)


def names_of_numbers(folder: Path, key: str) -> list[str]:
    """The lines of TensorFlow Datasets' file for a feature, from number 0; none without it."""
    file = folder / f"{key.replace('/', '-')}.labels.txt"
    if not file.is_file():
        return []
    return names_of(file)


def _by_name(
    numbers: Sequence[int],
    names: Sequence[str],
    folder: Path,
    place: Callable[[int], str],
    *,
    partial: bool,
) -> Classes:
    """By names beside the numbers: one for each, in the order of the numbers."""
    name_of: dict[int, str] = {}
    number_of: dict[str, int] = {}
    for index, (number, name) in enumerate(zip(numbers, names, strict=True)):
        if not name:
            raise InputError(f"{place(index)}: has no name of its class, where others have one")
        other, before = name_of.setdefault(number, name), number_of.setdefault(name, number)
        if other != name or before != number:
            raise InputError(
                f'{place(index)}: its class is {number} "{name}", where another record has '
                f'{before if other == name else number} "{name if other == name else other}"'
            )
    if (folder / _CLASSES).is_file():
        return check_labels(names, folder / _CLASSES, str(folder), partial=partial, place=place)
    order = sorted(name_of)
    if len(order) < 2 and not partial:
        raise InputError(f"{folder}: has only one class ({names[0]}); at least two are needed")
    position = {number: index for index, number in enumerate(order)}
    return (
        tuple(name_of[number] for number in order),
        np.array([position[number] for number in numbers], dtype=np.int64),
    )


def _by_line(numbers: Sequence[int], file: Path, place: Callable[[int], str]) -> Classes:
    """By the lines NUMBER:NAME of a file."""
    name_of: dict[int, str] = {}
    for count, line in enumerate(lines_of(read_text(file)), 1):
        number, colon, name = (part.strip() for part in line.partition(":"))
        if not line.strip():
            continue
        if not (colon and name and number.isascii() and number.isdecimal()):
            raise InputError(f'{file}, line {count}: "{line:.40}" is not NUMBER:NAME')
        if int(number) in name_of or name in name_of.values():
            raise InputError(f"{file}, line {count}: {line:.40} occurs twice")
        name_of[int(number)] = name
    order = sorted(name_of)
    position = {number: index for index, number in enumerate(order)}
    unknown = [index for index, number in enumerate(numbers) if number not in position]
    if unknown:
        raise InputError(
            f"{place(unknown[0])}: the label is {numbers[unknown[0]]}, which {file} does not name"
        )
    return (
        tuple(name_of[number] for number in order),
        np.array([position[number] for number in numbers], dtype=np.int64),
    )


def _by_number(
    numbers: Sequence[int],
    folder: Path,
    key: str,
    place: Callable[[int], str],
    *,
    partial: bool,
) -> Classes:
    """By the lines of classes.txt or without names, if that can be told."""
    file, low, high = folder / _CLASSES, min(numbers), max(numbers)
    if low > 0 and file.is_file():
        names = names_of(file)
        if high == len(names):  # no line is left for a class 0
            return tuple(names), np.array(numbers, dtype=np.int64) - 1
    if low > 0:
        raise InputError(
            f"{folder}: the numbers in {key} are {low} to {high}, and may begin with 0 or with 1; "
            f"write the names into {folder / _NUMBERED}, one NUMBER:NAME per line"
        )
    return check_labels(numbers, file, str(folder), partial=partial, place=place)
