"""The arrays of one HDF5 file of images: which are the images, the classes, the labels."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.image_dataset import without_decimals
from densenet121.datasets.sources.archive import label_names
from densenet121.datasets.sources.hdf5_file import Array, arrays_in, values_of
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.pixels import is_pixels
from densenet121.datasets.sources.splits import refuse_split_rows, split_columns
from densenet121.utils.errors import InputError, UsageError, some

_IMAGES = ("x", "images", "image", "img", "data")
_LABELS = ("y", "labels", "label", "class", "classes", "target", "targets", "ans")
_HALF = re.compile(r"(?P<start>.*[_-])(?P<kind>[xy]|mask)(?P<end>\.\w+)", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """The arrays of one file: the images, and everything else that has a row for each of them.

    ``every`` are all that there are, for messages.
    """

    images: Array
    columns: dict[str, Array]
    every: list[Array]

    def classes(self) -> Array:
        """The array of the classes.

        Raises:
            InputError: there is none, or several could be it.
        """
        own = {n: a for n, a in self.columns.items() if n not in split_columns(self.columns)}
        chosen = _named(own, _LABELS) or [a for a in own.values() if a.dtype.kind != "f"]
        if len(chosen) != 1:
            raise InputError(
                f"{self.images.file}: {'several arrays' if chosen else 'no array'} with a class of "
                f"each of the {self.images.shape[0]} images; call one y or labels, among "
                f"{_listed(self.every)}"
            )
        if _width(chosen[0]) != 1:
            raise InputError(
                f"{self.images.file}: {chosen[0].name} has {_width(chosen[0])} labels of each "
                "image; pass `task` multilabel, or write the number of one class"
            )
        return chosen[0]

    def class_values(self) -> list[Any]:
        """The class of each image, as a number or a text.

        Raises:
            InputError: as ``classes``; or a number is not whole, or a column names several splits.
        """
        for name in split_columns(self.columns):
            values = values_of(self.columns[name]).reshape(-1).tolist()
            refuse_split_rows(self.images.file, f"the array {name}", values)
        column = self.classes()
        return _whole(column, values_of(column)).reshape(-1).tolist()

    def cells(self, rules: LabelRules) -> tuple[dict[str, list[str]], tuple[str, ...]]:
        """All columns as texts, and the names of those that come from an array of labels.

        Raises:
            UsageError: several arrays could be the labels.
        """
        wide = {n: array for n, array in self.columns.items() if _width(array) > 1}
        flat = {n: _cells(values_of(a)) for n, a in self.columns.items() if n not in wide}
        if rules.label_column in wide:
            chosen = [wide[rules.label_column]]
        else:
            chosen = [] if rules.label_column else _named(wide, _LABELS) or list(wide.values())
        if len(chosen) > 1:
            raise UsageError(
                f"{self.images.file}: {_listed(chosen)} could be the labels; pass one as "
                "`label_column`"
            )
        if not chosen:
            return flat, ()
        values = values_of(chosen[0]).reshape(self.images.shape[0], -1)
        names = label_names(self.images.file, values.shape[1])
        if both := flat.keys() & set(names):
            raise InputError(
                f"{self.images.file}: {some(sorted(both))} is an array, and a label of "
                f"{chosen[0].name}"
            )
        return flat | {n: _cells(v) for n, v in zip(names, values.T, strict=True)}, names


def other_half(file: Path, kind: str, other: str) -> str | None:
    """The name of the file with the labels (y) of a file of images (x), or the reverse."""
    half = _HALF.fullmatch(file.name)
    if half is None or half["kind"].lower() != kind:
        return None
    return half["start"] + (other.upper() if half["kind"].isupper() else other) + half["end"]


def read_part(file: Path) -> tuple[Part, list[str]]:
    """The arrays of a file and of its labels' file, and notes.

    Raises:
        InputError: there is no array of images, or several could be it.
    """
    every = arrays_in(file)
    pictures = {array.name: array for array in every if _is_images(array)}
    chosen = list(pictures.values()) if len(pictures) == 1 else _named(pictures, _IMAGES)
    if len(chosen) != 1:
        several = (
            f"{_listed(list(pictures.values()))} can each be the images; write each split into a "
            "file of its own (train.h5, val.h5), or call the images x or images"
        )
        none = f"no images (uint8, (N, H, W) or (N, H, W, 3)), but {_listed(every)}"
        beside = other_half(file, "y", "x")
        hint = f"; pass {file.with_name(beside)}" if beside and not pictures else ""
        raise InputError(f"{file}: {several if pictures else none + hint}")
    images = chosen[0]
    labels = other_half(file, "x", "y")
    if labels is not None and file.with_name(labels).is_file():
        every = [*every, *arrays_in(file.with_name(labels))]
        if all(array.shape[0] != images.shape[0] for array in every if array.file != file):
            raise InputError(
                f"{file.with_name(labels)}: no array with a row for each of the "
                f"{images.shape[0]} images of {file.name}, but {_listed(every)}"
            )
    columns = {
        array.name: array
        for array in every
        if array.shape[0] == images.shape[0] and array not in pictures.values()
    }
    others = [name for name in pictures if name != images.name]
    notes = [f"{file}: the images are {images.name}; {some(others)} is not read"] if others else []
    needed = {array.name for array in _named(columns, _LABELS)} | set(split_columns(columns))
    if unread := [n for n, a in columns.items() if a.dtype.kind == "O" and n not in needed]:
        notes.append(
            f"{file}: {some(unread)} is not read: texts of any length; write them as texts of one "
            "length, dtype='S'"
        )
    return Part(images, {n: a for n, a in columns.items() if n not in unread}, every), notes


def _is_images(array: Array) -> bool:
    """Whether an array can be images, which have at least two rows and columns of pixels."""
    shape = array.shape[:3] if array.shape[3:] == (1,) else array.shape
    return array.dtype == np.uint8 and is_pixels(shape) and min(shape[1:3]) > 1


def _named(arrays: Mapping[str, Array], names: Sequence[str]) -> list[Array]:
    """Those of some arrays that have one of these names, in whatever group."""
    return [array for name, array in arrays.items() if name.lower().split("/")[-1] in names]


def _width(array: Array) -> int:
    return math.prod(array.shape[1:])


def _listed(arrays: Sequence[Array]) -> str:
    return some([str(array) for array in arrays], 6) if arrays else "nothing"


def _cells(values: NDArray[Any]) -> list[str]:
    """Values as a table has them; blank where there is none."""
    flat = (values.astype(np.int64) if values.dtype.kind == "b" else values).reshape(-1).tolist()
    return ["" if v != v else without_decimals(str(v)) for v in flat]


def _whole(array: Array, values: NDArray[Any]) -> NDArray[Any]:
    """Values as classes: whole numbers or texts.

    Raises:
        InputError: a number is not whole.
    """
    if values.dtype.kind != "f":
        return values.astype(np.int64) if values.dtype.kind in "biu" else values
    if not np.array_equal(values, np.rint(values)):
        wrong = values[values != np.rint(values)].flat[0]
        raise InputError(
            f"{array.file}: {array.name} has {wrong:.6g}; a class is a whole number or a text"
        )
    return values.astype(np.int64)
