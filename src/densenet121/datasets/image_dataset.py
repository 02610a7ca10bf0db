"""A set of images, wherever they lie: which there are, which class each has, how to read one."""

import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.decoding import read_file
from densenet121.datasets.packed_strings import Names
from densenet121.utils.errors import InputError, UsageError

# An encoded image, or its pixels where the source holds those: (H, W, 3) RGB.
Encoded = bytes | NDArray[np.uint8]


@dataclass(frozen=True)
class ImageDataset:
    """Images in a fixed order, by which sampling and augmentation know them.

    Attributes:
        root: the folder or file that holds them.
        class_names: in the order of the labels.
        paths: of each image; of a file below ``root`` relative to it, with forward slashes.
        labels: ``(num_images,)`` int64, index into ``class_names``.
        sizes: ``(num_images,)`` int64, bytes of the encoded image.
        ignored: what lies between the images and is none, by its name.
        read_one: the image of an index, for sources other than files below ``root``; called from
            threads. Raises InputError with the reason only.
        known_fingerprint: ``fingerprint``, where it was worked out before.
    """

    root: Path
    class_names: tuple[str, ...]
    paths: Sequence[str]
    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]
    ignored: tuple[str, ...] = ()
    read_one: Callable[[int], Encoded] | None = field(default=None, repr=False, compare=False)
    known_fingerprint: str | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """What a message calls an image."""
        return str(self.root / self.paths[index])

    def read(self, index: int) -> Encoded:
        """The encoded image, or its pixels.

        Raises:
            InputError: it cannot be read, or is not what it was; the reason only.
        """
        if self.read_one is not None:
            return self.read_one(index)
        data = read_file(self.root / self.paths[index])
        if len(data) != self.sizes[index]:
            raise InputError(
                f"{len(data)} bytes, but {self.sizes[index]} when the folder was read: it has "
                "changed since"
            )
        return data

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of every path, size and class name: it changes when the data does."""
        if self.known_fingerprint:
            return self.known_fingerprint
        digest = hashlib.sha256()
        for name in self.class_names:
            digest.update(name.encode(errors="surrogateescape") + b"\0")
        for path, size, label in zip(self.paths, self.sizes, self.labels, strict=True):
            digest.update(path.encode(errors="surrogateescape") + f"\0{size}\0{label}\n".encode())
        return digest.hexdigest()

    def without(self, excluded: Collection[str]) -> "ImageDataset":
        """All but those whose paths are given.

        Raises:
            InputError: a class would lose its last image.
        """
        kept = np.flatnonzero([path not in excluded for path in self.paths])
        counts = np.bincount(self.labels[kept], minlength=len(self.class_names))
        if (counts == 0).any():
            name = self.class_names[int(np.argmin(counts))]
            raise InputError(f"{self.root}: no image of class {name} would be left")
        read = self.read_one

        def read_kept(index: int) -> Encoded:
            assert read is not None
            return read(int(kept[index]))

        return replace(
            self,
            paths=Names.of(self.paths[int(index)] for index in kept),
            labels=self.labels[kept],
            sizes=self.sizes[kept],
            read_one=read_kept if read else None,
            known_fingerprint=None,
        )


def check_labels(
    labels: Sequence[str], classes_file: Path, where: str
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names and numbers from what a list or a shard says of each image.

    Labels are names, in byte order, or the numbers 0, 1, 2 ...; a file of class names, one a line,
    fixes names and order, and then a class may have no image.

    Raises:
        InputError: naming ``where``, fewer than two classes, a gap in the numbers, or a label that
            the file of class names does not have.
    """
    found = set(labels)
    numbers = all(label.isascii() and label.isdecimal() for label in found)
    if classes_file.is_file():
        text = read_whole(classes_file).decode("utf-8-sig", "surrogateescape")
        names = [line.strip() for line in text.splitlines() if line.strip()]
        if len(set(names)) != len(names):
            raise InputError(f"{classes_file}: a class is named twice")
        known = set(names)
        # Classes may be named by numbers themselves.
        by_number = numbers and not found <= known
    else:
        by_number = numbers
        names = sorted(found, key=int if numbers else os.fsencode)
        if numbers and [int(name) for name in names] != list(range(len(names))):
            raise InputError(
                f"{where}: the labels are numbers, but not all of 0 to {names[-1]} occur; "
                f"name the classes in {classes_file}, one a line"
            )
    if len(names) < 2:
        raise InputError(f"{where}: only one class ({''.join(names)}); at least two are needed")
    place = {str(i) if by_number else name: i for i, name in enumerate(names)}
    unknown = sorted({str(int(label)) if by_number else label for label in found} - place.keys())
    if unknown:
        raise InputError(f"{where}: labels that {classes_file} does not have: {some(unknown)}")
    numbered = [place[str(int(label)) if by_number else label] for label in labels]
    return tuple(names), np.array(numbered, dtype=np.int64)


def check_num_classes(dataset: ImageDataset, num_classes: int | None) -> int:
    """The number of classes of the images, which must be ``num_classes`` where that is given.

    Raises:
        UsageError: another number.
    """
    found = len(dataset.class_names)
    if num_classes is not None and num_classes != found:
        raise UsageError(
            f"`num_classes` is {num_classes}, but {dataset.root} holds {found} classes; "
            "leave it out to take what is there"
        )
    return found


def check_same_classes(
    expected: Sequence[str], expected_by: str, found: Sequence[str], found_in: str
) -> None:
    """Refuse class names that differ, showing the difference.

    Raises:
        InputError: other names, or another order.
    """
    if list(expected) == list(found):
        return
    missing = [name for name in expected if name not in set(found)]
    unknown = [name for name in found if name not in set(expected)]
    parts = []
    if missing:
        parts.append(f"missing: {some(missing)}")
    if unknown:
        parts.append(f"unknown: {some(unknown)}")
    difference = "; ".join(parts) or "the same names in another order"
    raise InputError(
        f"{found_in} has {len(found)} classes that are not the {len(expected)} of {expected_by} "
        f"({difference})"
    )


def read_whole(file: Path) -> bytes:
    """A file that is no image, of any size.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None


def some(names: Sequence[str], most: int = 8) -> str:
    """The first of many names, for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
