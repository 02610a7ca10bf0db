"""Parquet files with encoded images, the format of datasets on the Hugging Face hub.

An image is a struct {bytes, path} or binary, in a column called image (or img, picture). Its class
is an integer or a name in a column called label (labels, class, fine_label). Class names come from
the schema metadata of the ``datasets`` library, or from ``classes.txt``. An image without a class,
or with several, is refused.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.decoding import MAX_BYTES
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.packed_strings import Names
from densenet121.datasets.sources.labels import check_labels
from densenet121.datasets.sources.layout import packed_in
from densenet121.datasets.sources.splits import Split, files_of_split
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.json_values import parse_json
from densenet121.utils.strays import refuse_stray

_IMAGE_COLUMNS = ("image", "img", "picture")
_LABEL_COLUMNS = ("label", "labels", "class", "fine_label")
_MOST_CACHED_BYTES = 2**28
Label = int | str


def read_parquet(where: Path, split: Split, *, partial: bool = False) -> ImageDataset:
    """The images of a Parquet file, or of those of a folder, in their order.

    Of a folder whose files are named after splits, those of ``split`` are read; test files are
    taken for validation only if there are no others.

    A row group is read as a whole and cached. If the files are larger than the cache, a random
    order reads each group many times: ``densenet121 pack`` turns them into shards.

    Args:
        where: the file or the folder.
        split: the files of a folder to read.
        partial: allow missing classes, as validation images may have.

    Raises:
        UsageError: pyarrow is not installed, or the folder has no file of the split.
        InputError: a column is missing, an image has no class, or a file cannot be read.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise UsageError(
            f"{where}: Parquet needs pyarrow; pip install 'densenet121[parquet]'"
        ) from None
    files, notes = ([where], []) if where.is_file() else _files(where, split)
    rows = _Rows()
    for file in files:
        try:
            rows.add(file, pyarrow.parquet.ParquetFile(file))
        except (pyarrow.ArrowException, OSError, TypeError) as error:
            refuse_stray(file)
            reason = " ".join(str(error).split())  # pyarrow writes several lines
            raise InputError(f"{file}: not a Parquet file of images ({reason})") from None
    if not rows.labels:
        raise InputError(f"{where}: no images")
    if rows.names and all(isinstance(label, int) for label in rows.labels):
        class_names, numbers = tuple(rows.names), _numbers(rows)
    else:
        class_names, numbers = check_labels(
            [str(label) for label in rows.labels],
            files[0].parent / "classes.txt",
            str(where),
            partial=partial,
            place=rows.place,
        )
    paths = rows.paths
    if len(set(paths)) != len(paths):  # the hub stores only the file names, without folders
        paths = [f"{index:08d}/{path}" for index, path in enumerate(paths)]
    return ImageDataset(
        where,
        class_names,
        Names.of(paths),
        numbers,
        np.array(rows.sizes, dtype=np.int64),
        read_one=_Groups(rows.groups, np.array(rows.starts)).read,
        notes=tuple(notes),
    )


@dataclass
class _Rows:
    """What is known of the images before their pixels are read.

    Attributes:
        groups: file and number of each row group.
        starts: the first image of each group.
        labels: the label of each image.
        paths: its path.
        sizes: its bytes.
        names: the class names of the first file, if it has them.
        files: each file, and the number of images before it.
    """

    groups: list[tuple[Path, int]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    files: list[tuple[Path, int]] = field(default_factory=list)

    def add(self, file: Path, reader: Any) -> None:
        """Add the rows of a file."""
        schema = reader.schema_arrow
        image = _column(file, schema.names, _IMAGE_COLUMNS)
        label = _column(file, schema.names, _LABEL_COLUMNS)
        self.names = self.names or _class_names(schema.metadata or {}, label)
        self.files.append((file, len(self.labels)))
        for number in range(reader.num_row_groups):
            self.groups.append((file, number))
            self.starts.append(len(self.labels))
            table = reader.read_row_group(number, columns=[image, label])
            for value in table.column(label).to_pylist():
                self.labels.append(_label(value, self.place(len(self.labels))))
            for value in table.column(image).to_pylist():
                data, path = _encoded(value)
                self.sizes.append(len(data))
                self.paths.append(path or f"{file.name}/{len(self.paths):08d}")

    def place(self, index: int) -> str:
        """File and row of an image, for messages."""
        file, first = next(found for found in reversed(self.files) if found[1] <= index)
        return f"{file}, row {index - first}"


def _files(where: Path, split: Split) -> tuple[list[Path], list[str]]:
    """The files of a folder for a split, and notes."""
    files = packed_in(where, ".parquet")
    chosen, notes = files_of_split(files, split)
    if not chosen:
        raise UsageError(
            f"{where}: no Parquet file is named after {split}, the first is {files[0].name}; pass "
            "a file instead of the folder"
        )
    return chosen, notes


def _label(value: Any, place: str) -> Label:
    """A label as a number or a name.

    Raises:
        InputError: it is none, several, or of another kind.
    """
    if isinstance(value, float) and value.is_integer():  # pandas, where another label is none
        value = int(value)
    if isinstance(value, bytes):
        value = value.decode(errors="surrogateescape")
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int) or (isinstance(value, str) and value.strip()):
        return value
    if isinstance(value, list | dict):
        raise InputError(
            f"{place}: the label is a {type(value).__name__} ({value!s:.40}); one class "
            "per image is needed"
        )
    raise InputError(
        f"{place}: the label is {value!r}, which is no class; leave such images out "
        "(test sets are often published without labels)"
    )


def _numbers(rows: _Rows) -> NDArray[np.int64]:
    """Numbers of classes whose names the schema has.

    Raises:
        InputError: a number has no name.
    """
    numbers = np.array(rows.labels, dtype=np.int64)
    wrong = np.flatnonzero((numbers < 0) | (numbers >= len(rows.names)))
    if len(wrong):
        place, last = rows.place(int(wrong[0])), len(rows.names) - 1
        raise InputError(
            f"{place}: the label is {numbers[wrong[0]]}, but the file names the classes 0 to "
            f"{last}; leave such images out ({len(wrong)} of {len(numbers)})"
        )
    return numbers


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
            raise InputError(f"{file} ({' '.join(str(error).split())})") from None
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
        names = parse_json(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError):
        return []
    return names if isinstance(names, list) and all(isinstance(n, str) for n in names) else []
