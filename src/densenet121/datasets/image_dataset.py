"""A dataset of images from any source: paths, labels and how to read an image."""

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.class_names import name_notes, told_apart
from densenet121.datasets.decoding import read_file
from densenet121.datasets.packed_strings import Names
from densenet121.utils.errors import InputError, UsageError, some
from densenet121.utils.files import read_input
from densenet121.utils.strays import unopened

_WHOLE = re.compile(r"-?[0-9]+\.0+")

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
        notes: what a user should know about the way the images were found; to be logged.
        listed_in: the list that names the images, if there is one.
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
    notes: tuple[str, ...] = field(default=(), repr=False, compare=False)
    listed_in: Path | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def source(self) -> Path:
        """Where the images come from: the list, else the folder or file."""
        return self.listed_in or self.root

    @property
    def summary(self) -> str:
        """How many images there are, of how many classes or labels."""
        kind = "classes" if self.labels.ndim == 1 else "labels"
        return f"{len(self)} images of {len(self.class_names)} {kind}"

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

    def with_notes(self, *notes: str) -> "ImageDataset":
        """The dataset with further notes."""
        return replace(self, notes=(*self.notes, *notes)) if notes else self

    def with_name_notes(self) -> "ImageDataset":
        """The dataset with notes about names of classes that may not be as they were meant."""
        return self.with_notes(*name_notes(self.source, self.class_names))

    def counts(self) -> NDArray[np.int64]:
        """``(num_classes,)`` number of images of each class, or with a known label."""
        if self.labels.ndim == 2:
            return np.asarray((~np.isnan(self.labels)).sum(axis=0), dtype=np.int64)
        return np.bincount(self.labels, minlength=len(self.class_names))

    def labels_without(self, kind: Literal["positive", "negative"]) -> list[str]:
        """The labels of which no image is known to be of this kind."""
        has = (self.labels == (kind == "positive")).any(axis=0).tolist()
        return [name for name, found in zip(self.class_names, has, strict=True) if not found]

    @property
    def has_both_kinds(self) -> bool:
        """Whether some label has images known to be positive, and others known to be negative."""
        return bool(((self.labels == 1).any(axis=0) & (self.labels == 0).any(axis=0)).any())

    def without(self, excluded: Collection[str], *, partial: bool = False) -> "ImageDataset":
        """The dataset without the images at these paths.

        Args:
            excluded: the paths.
            partial: whether a class may lose its last image.

        Raises:
            InputError: a class, or the dataset, would lose its last image.
        """
        kept = np.flatnonzero([path not in excluded for path in self.paths])
        counts = replace(self, labels=self.labels[kept]).counts()
        if (counts == 0).any() and not (partial and len(kept)):
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
        parts.append(f"missing: {some(told_apart(missing, unknown))}")
    if unknown:
        parts.append(f"unknown: {some(told_apart(unknown, missing))}")
    difference = "; ".join(parts) or "the same names in another order"
    raise InputError(
        f"{found_in}: its {len(found)} classes differ from the {len(expected)} of {expected_by} "
        f"({difference})"
    )


def with_classes(
    dataset: ImageDataset, class_names: Sequence[str], expected_by: str
) -> ImageDataset:
    """Validation images with the classes of the training images or the weights.

    Classes are the same if their names are; their numbers become those of ``class_names``. A class
    may have no image, and a note then names it.

    Raises:
        InputError: an image is of another class; or, of several labels, their order differs.
    """
    if dataset.labels.ndim == 1:
        dataset = _with_decimals(dataset, class_names)
    names, counts = list(dataset.class_names), dataset.counts()
    if dataset.labels.ndim == 2:  # a table of labels has a column for each
        check_same_classes(class_names, expected_by, names, str(dataset.source))
        return dataset
    own = [name for name, count in zip(names, counts, strict=True) if count]
    number = {name: i for i, name in enumerate(class_names)}
    present = set(own)
    if present - number.keys():
        check_same_classes(class_names, expected_by, names, str(dataset.source))
    absent = [name for name in class_names if name not in present]
    if absent:
        dataset = dataset.with_notes(
            f"{dataset.source}: no image of {some(absent)} ({len(absent)} of {len(class_names)} "
            "classes), so nothing is measured about them"
        )
    if names == list(class_names):
        return dataset
    table = np.array([number.get(name, -1) for name in names], dtype=np.int64)
    return replace(
        dataset,
        class_names=tuple(class_names),
        labels=table[dataset.labels],
        known_fingerprint=None,
    )


def with_two_classes(dataset: ImageDataset, classes: Sequence[str]) -> ImageDataset:
    """The images of one label as images of two classes: the label and the other one.

    As they are if they have another label, or an image whose label is not known.
    """
    names, labels = dataset.class_names, dataset.labels
    if labels.ndim == 1 or len(names) != 1 or len(classes) != 2 or names[0] not in classes:
        return dataset
    if np.isnan(labels).any():
        return dataset
    positive = classes.index(names[0])
    numbers = np.where(labels[:, 0] == 1, positive, 1 - positive).astype(np.int64)
    return replace(dataset, class_names=tuple(classes), labels=numbers, known_fingerprint=None)


def without_decimals(name: str) -> str:
    """A whole number such as ``1.0`` as ``1``; anything else as it is."""
    return name.partition(".")[0] if _WHOLE.fullmatch(name) else name


def _with_decimals(dataset: ImageDataset, class_names: Sequence[str]) -> ImageDataset:
    """The classes 0, 1 as 0.0, 1.0, where others are called so, as beside a class 0.5."""
    written = {without_decimals(name): name for name in class_names}
    names = [written.get(name, name) for name in dataset.class_names]
    if set(dataset.class_names) & set(class_names) or names == list(dataset.class_names):
        return dataset
    return replace(dataset, class_names=tuple(names), known_fingerprint=None)


def read_whole(file: Path) -> bytes:
    """The content of a file that is not an image, of any size.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return read_input(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({unopened(error)})") from None
