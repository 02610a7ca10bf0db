"""A dataset of images from any source: paths, labels and how to read an image."""

import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.decoding import read_file
from densenet121.datasets.packed_strings import Names
from densenet121.utils.errors import InputError, UsageError

# An encoded image, or its pixels if the source has those: (H, W, 3) RGB.
Encoded = bytes | NDArray[np.uint8]


@dataclass(frozen=True)
class ImageDataset:
    """Images in a fixed order; sampling and augmentation use the index in this order.

    Attributes:
        root: the folder or file with the images.
        class_names: class names in the order of the labels.
        paths: path of each image; for a file below ``root``, relative and with forward slashes.
        labels: ``(num_images,)`` int64, index into ``class_names``; or, with several labels each,
            ``(num_images, num_labels)`` float32, 1, 0 or nan for not known.
        sizes: ``(num_images,)`` int64, bytes of the encoded image.
        ignored: files among the images whose names are not those of images.
        read_one: index to image, for sources other than files below ``root``; called from
            threads. Raises InputError with the reason only.
        known_fingerprint: ``fingerprint``, if it was computed before.
        columns: what else a table of labels has of each image, by column.
    """

    root: Path
    class_names: tuple[str, ...]
    paths: Sequence[str]
    labels: NDArray[Any]
    sizes: NDArray[np.int64]
    ignored: tuple[str, ...] = ()
    read_one: Callable[[int], Encoded] | None = field(default=None, repr=False, compare=False)
    known_fingerprint: str | None = field(default=None, repr=False, compare=False)
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """The name of an image in messages."""
        return str(self.root / self.paths[index])

    def read(self, index: int) -> Encoded:
        """The encoded image, or its pixels.

        Raises:
            InputError: it cannot be read, or has changed; the reason only.
        """
        if self.read_one is not None:
            return self.read_one(index)
        data = read_file(self.root / self.paths[index])
        if len(data) != self.sizes[index]:
            raise InputError(
                f"{len(data)} bytes, but {self.sizes[index]} when the folder was scanned: the "
                "file has changed"
            )
        return data

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of every path, size, label and class name; it changes when the data changes."""
        if self.known_fingerprint:
            return self.known_fingerprint
        digest = hashlib.sha256()
        for name in self.class_names:
            digest.update(name.encode(errors="surrogateescape") + b"\0")
        several = self.labels.ndim == 2
        for path, size, row in zip(self.paths, self.sizes, self.labels, strict=True):
            label = row.tolist() if several else row
            digest.update(path.encode(errors="surrogateescape") + f"\0{size}\0{label}\n".encode())
        return digest.hexdigest()

    def without(self, excluded: Collection[str]) -> "ImageDataset":
        """The dataset without the images at these paths.

        Raises:
            InputError: a class would lose its last image.
        """
        kept = np.flatnonzero([path not in excluded for path in self.paths])
        if self.labels.ndim == 1:
            counts = np.bincount(self.labels[kept], minlength=len(self.class_names))
        else:
            counts = (~np.isnan(self.labels[kept])).sum(axis=0)
        if (counts == 0).any():
            name = self.class_names[int(np.argmin(counts))]
            raise InputError(f"{self.root}: class {name} would have no image left")
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
            columns={name: [cells[int(i)] for i in kept] for name, cells in self.columns.items()},
        )


def check_labels(
    labels: Sequence[str], classes_file: Path, where: str
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names and numbers from the labels in a list or a shard.

    Labels are names, sorted in byte order, or the numbers 0, 1, 2 ... A file of class names, one
    per line, sets names and order; then a class may have no image.

    Raises:
        InputError: fewer than two classes, a gap in the numbers, or a label that the file of class
            names does not have; the text names ``where``.
    """
    found = set(labels)
    numbers = all(label.isascii() and label.isdecimal() for label in found)
    if classes_file.is_file():
        text = read_whole(classes_file).decode("utf-8-sig", "surrogateescape")
        names = [line.strip() for line in text.splitlines() if line.strip()]
        if len(set(names)) != len(names):
            raise InputError(f"{classes_file}: a class name occurs twice")
        known = set(names)
        # Class names may themselves be numbers.
        by_number = numbers and not found <= known
    else:
        by_number = numbers
        names = sorted(found, key=int if numbers else os.fsencode)
        if numbers and [int(name) for name in names] != list(range(len(names))):
            raise InputError(
                f"{where}: the labels are numbers, but not all of 0 to {names[-1]} occur; "
                f"write the class names into {classes_file}, one per line"
            )
    if len(names) < 2:
        raise InputError(f"{where}: has only one class ({''.join(names)}); at least two are needed")
    place = {str(i) if by_number else name: i for i, name in enumerate(names)}
    unknown = sorted({str(int(label)) if by_number else label for label in found} - place.keys())
    if unknown:
        raise InputError(f"{where}: labels that are not in {classes_file}: {some(unknown)}")
    numbered = [place[str(int(label)) if by_number else label] for label in labels]
    return tuple(names), np.array(numbered, dtype=np.int64)


def check_num_classes(dataset: ImageDataset, num_classes: int | None) -> int:
    """The number of classes of the dataset, which must be ``num_classes`` if that is given.

    Raises:
        UsageError: the numbers differ.
    """
    found = len(dataset.class_names)
    if num_classes is not None and num_classes != found:
        raise UsageError(
            f"`num_classes` is {num_classes}, but {dataset.root} has {found} classes; "
            "omit it to use all of them"
        )
    return found


def check_same_classes(
    expected: Sequence[str], expected_by: str, found: Sequence[str], found_in: str
) -> None:
    """Refuse class names that differ.

    Raises:
        InputError: the names or their order differ; the text shows the difference.
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
        f"{found_in}: its {len(found)} classes differ from the {len(expected)} of {expected_by} "
        f"({difference})"
    )


def read_whole(file: Path) -> bytes:
    """The content of a file that is not an image, of any size.

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
