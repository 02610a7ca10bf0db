"""Parquet files with encoded images, the format of datasets on the Hugging Face hub.

An image is a struct {bytes, path} or binary, in a column called image (or img, picture). Its class
is an integer or a name in a column called label (labels, class, fine_label). Class names come from
the schema metadata of the ``datasets`` library, or from ``classes.txt``.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.decoding import MAX_BYTES
from densenet121.datasets.image_dataset import ImageDataset, check_labels
from densenet121.datasets.packed_strings import Names
from densenet121.utils.errors import InputError, UsageError

_IMAGE_COLUMNS = ("image", "img", "picture")
_LABEL_COLUMNS = ("label", "labels", "class", "fine_label")
_PREFIXES = {"train": ("train",), "val": ("val", "validation", "test")}
_MOST_CACHED_BYTES = 2**28


def find_parquet(where: Path, split: Literal["train", "val"]) -> list[Path]:
    """The files of a split in byte order: those named after it, or all if none is."""
    if where.is_file():
        return [where] if where.suffix == ".parquet" else []
    files = sorted(file for file in where.glob("*.parquet") if file.is_file())
    named = {file: _split_of(file) for file in files}
    if not any(named.values()):
        return files
    return [file for file in files if named[file] == split]


def has_own_splits(where: Path) -> bool:
    """Whether a folder has files named after training and others named after validation."""
    return where.is_dir() and {"train", "val"} <= {_split_of(f) for f in where.glob("*.parquet")}


def _split_of(file: Path) -> str | None:
    first = file.name.split("-")[0].split(".")[0].lower()
    return next((split for split, names in _PREFIXES.items() if first in names), None)


def read_parquet(where: Path, split: Literal["train", "val"]) -> ImageDataset:
    """The images of Parquet files, in their order.

    A row group is read as a whole and cached. If the files are larger than the cache, a random
    order reads each group many times: ``densenet121 pack`` turns them into shards.

    Raises:
        UsageError: pyarrow is not installed.
        InputError: a column is missing, or a file cannot be read.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise UsageError(
            f"{where}: Parquet needs pyarrow; pip install 'densenet121[parquet]'"
        ) from None
    files = find_parquet(where, split)
    if not files:
        raise InputError(f"{where}: no Parquet file with the {split} images")
    groups: list[tuple[Path, int]] = []  # file and row group
    starts: list[int] = []  # the first image of each group
    labels: list[str] = []
    paths: list[str] = []
    sizes: list[int] = []
    names: list[str] = []
    for file in files:
        try:
            reader = pyarrow.parquet.ParquetFile(file)
            schema = reader.schema_arrow
            image = _column(file, schema.names, _IMAGE_COLUMNS)
            label = _column(file, schema.names, _LABEL_COLUMNS)
            names = names or _class_names(schema.metadata or {}, label)
            for number in range(reader.num_row_groups):
                groups.append((file, number))
                starts.append(len(labels))
                table = reader.read_row_group(number, columns=[image, label])
                labels += [str(value) for value in table.column(label).to_pylist()]
                for value in table.column(image).to_pylist():
                    data, path = _encoded(value)
                    sizes.append(len(data))
                    paths.append(path or f"{file.name}/{len(paths):08d}")
        except (pyarrow.ArrowException, OSError, TypeError) as error:
            raise InputError(f"{file}: not a Parquet file of images ({error})") from None
    if not labels:
        raise InputError(f"{where}: no images")
    class_names, numbers = _classes(names, labels, files[0].parent / "classes.txt", where)
    groups_of = _Groups(groups, np.array(starts))
    if len(set(paths)) != len(paths):  # the hub stores only the file names, without folders
        paths = [f"{index:08d}/{path}" for index, path in enumerate(paths)]
    return ImageDataset(
        where,
        class_names,
        Names.of(paths),
        numbers,
        np.array(sizes, dtype=np.int64),
        read_one=groups_of.read,
    )


def _classes(
    names: Sequence[str], labels: Sequence[str], classes_file: Path, where: Path
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names and numbers: from the schema if the labels are its numbers."""
    if names and all(label.isdecimal() and int(label) < len(names) for label in labels):
        return tuple(names), np.array([int(label) for label in labels], dtype=np.int64)
    return check_labels(labels, classes_file, str(where))


class _Groups:
    """Row groups with a cache of the last used ones; thread-safe."""

    def __init__(self, groups: list[tuple[Path, int]], starts: "np.ndarray[Any, Any]") -> None:
        self._groups = groups
        self._starts = starts
        self._kept: OrderedDict[int, list[bytes]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def read(self, index: int) -> bytes:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        with self._lock:
            images = self._kept.get(number)
            if images is None:
                images = self._load(number)
                self._kept[number] = images
                self._bytes += sum(map(len, images))
                while self._bytes > _MOST_CACHED_BYTES and len(self._kept) > 1:
                    self._bytes -= sum(map(len, self._kept.popitem(last=False)[1]))
            else:
                self._kept.move_to_end(number)
        return images[index - int(self._starts[number])]

    def _load(self, number: int) -> list[bytes]:
        import pyarrow.parquet

        file, group = self._groups[number]
        try:
            reader = pyarrow.parquet.ParquetFile(file)
            image = _column(file, reader.schema_arrow.names, _IMAGE_COLUMNS)
            column = reader.read_row_group(group, columns=[image]).column(image)
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{file} ({error})") from None
        return [_encoded(value)[0] for value in column.to_pylist()]


def _column(file: Path, names: list[str], wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if name in names:
            return name
    raise InputError(f"{file}: no column {' or '.join(wanted)}; it has {', '.join(names)}")


def _encoded(value: Any) -> tuple[bytes, str]:
    """An image's bytes and path."""
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, "")
    if not isinstance(data, bytes):
        raise TypeError("an image has no bytes")
    if len(data) > MAX_BYTES:
        raise TypeError(f"an image has {len(data)} bytes; the limit is {MAX_BYTES}")
    return data, path or ""


def _class_names(metadata: dict[bytes, bytes], label: str) -> list[str]:
    """Class names of a ClassLabel column, from the metadata of the datasets library."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError):
        return []
    return names if isinstance(names, list) and all(isinstance(n, str) for n in names) else []
