"""HDF5 files of pixels: images and labels in one file, or in two as PatchCamelyon has them.

Images are ``(N, H, W)``, ``(N, H, W, 1)`` or ``(N, H, W, 3)`` uint8. A class is a whole number or a
text of each image: ``(N,)``, also with further dimensions of 1; several labels are ``(N, L)`` of 1
or 0, or an array each. Where ``..._x.h5`` has no labels, those of ``..._y.h5`` beside it are read.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.packed_strings import Names
from densenet121.datasets.sources.file_rows import place_of, places_of
from densenet121.datasets.sources.hdf5_file import HDF5Rows
from densenet121.datasets.sources.hdf5_parts import Part, other_half, read_part
from densenet121.datasets.sources.label_table import LabelRules, labels_of_table
from densenet121.datasets.sources.labels import check_labels
from densenet121.datasets.sources.layout import packed_in
from densenet121.datasets.sources.splits import (
    Split,
    required_files,
)
from densenet121.datasets.tables import Table
from densenet121.utils.errors import InputError, UsageError, some


def read_hdf5(where: Path, split: Split, *, partial: bool = False) -> ImageDataset:
    """The images of an HDF5 file, or of those of a folder, in their order.

    Of a folder whose files are named after splits, those of ``split`` are read; test files are
    taken for validation only if there are no others.

    Args:
        where: the file or the folder.
        split: the files of a folder to read.
        partial: allow missing classes, as validation images may have.

    Raises:
        InputError: a file is damaged, has no such arrays or several, or an image has no class.
        UsageError: h5py is not installed, or the folder has no file of the split.
    """
    found = _read(where, split)
    labels: list[Any] = []
    for part in found.parts:
        labels += part.class_values()
    class_names, numbers = check_labels(
        labels,
        found.parts[0].images.file.parent / "classes.txt",
        str(where),
        partial=partial,
        place=found.place,
    )
    return found.dataset(where, class_names, numbers)


def read_label_hdf5(where: Path, rules: LabelRules, split: Split) -> ImageDataset:
    """As ``read_hdf5``, with several labels of each image.

    The columns of ``(N, L)`` are called by the lines of ``classes.txt`` beside the file, or 0, 1, 2
    and so on. Without such an array, each label has one of its own, as a table has columns.

    Raises:
        InputError, UsageError: as ``read_hdf5``; or a label cannot be used.
    """
    if rules.path_column is not None:
        raise UsageError(f"`path_column` is for tables of text; {where} has the images themselves")
    found = _read(where, split)
    own = [part.cells(rules) for part in found.parts]
    names, labels = list(own[0][0]), own[0][1]
    for part, (cells, _) in zip(found.parts, own, strict=True):
        if set(cells) != set(names):
            raise InputError(
                f"{part.images.file}: has {some(list(cells))}, but the file before it {some(names)}"
            )
    columns = {name: [cell for cells, _ in own for cell in cells[name]] for name in names}
    table = Table(where, columns, range(len(found)), places_of(found.files, len(found)))
    if labels:
        rules = replace(rules, names=rules.names or labels, label_column=None)
    known, values = labels_of_table(table, rules)
    return found.dataset(where, known, values, columns)


@dataclass(frozen=True)
class _Found:
    """The arrays of all files, in the order of the files."""

    parts: list[Part]
    notes: list[str]

    def __len__(self) -> int:
        return sum(part.images.shape[0] for part in self.parts)

    @property
    def files(self) -> list[tuple[Path, int]]:
        """Each file, and the number of images before it."""
        counts = [part.images.shape[0] for part in self.parts]
        firsts = itertools.accumulate(counts[:-1], initial=0)
        return [(p.images.file, first) for p, first in zip(self.parts, firsts, strict=True)]

    def place(self, index: int) -> str:
        """File and row of an image, for messages."""
        return place_of(self.files, index)

    def dataset(
        self,
        where: Path,
        class_names: tuple[str, ...],
        labels: NDArray[Any],
        columns: dict[str, list[str]] | None = None,
    ) -> ImageDataset:
        """The images with these labels."""
        images = [part.images for part in self.parts]
        rows = HDF5Rows(images)

        def read_one(index: int) -> NDArray[np.uint8]:
            image = np.ascontiguousarray(rows.read(index))
            if image.shape[2:] == (3,):
                return image
            return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), dtype=np.uint8)

        return ImageDataset(
            where,
            class_names,
            Names.of(f"{a.file.name}/{row:08d}" for a in images for row in range(a.shape[0])),
            labels,
            np.concatenate([np.full(a.shape[0], math.prod(a.shape[1:])) for a in images]),
            read_one=read_one,
            columns=columns or {},
            notes=tuple(self.notes),
        )


def _read(where: Path, split: Split) -> _Found:
    files, notes = [where], list[str]()
    if where.is_dir():
        files, masks = _without_halves(packed_in(where, ".h5"))
        files, notes = required_files(where, files, split, "HDF5")
        if masks:
            notes.append(f"{where}: {some(masks)} is not read")
    parts = []
    for file in files:
        part, other = read_part(file)
        parts.append(part)
        notes += other
    return _Found(parts, notes)


def _without_halves(files: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The files without those of the labels and the masks of others; and the names of the masks."""
    names = {file.name for file in files}
    found = [file for file in files if other_half(file, "y", "x") not in names]
    masks = [file for file in found if other_half(file, "mask", "x") in names]
    return [file for file in found if file not in masks], [file.name for file in masks]
