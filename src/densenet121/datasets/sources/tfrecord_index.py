"""Where the records of TFRecord files are, what they have beside the image; reading an image."""

import mmap
import struct
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from densenet121.datasets.decoding import MAX_BYTES
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.sources.crc32c import masked
from densenet121.datasets.sources.file_rows import file_finder, files_of, place_of, places_of
from densenet121.datasets.sources.read_at import ReadUnchanged
from densenet121.datasets.sources.rows import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    LabelColumns,
    unique_names,
)
from densenet121.datasets.sources.tf_example import NotAnExampleError, Values, parse_example
from densenet121.datasets.sources.tfrecord_names import names_of_numbers
from densenet121.utils.errors import InputError, one_line
from densenet121.utils.strays import refuse_stray

IMAGES = ("image/encoded", *IMAGE_COLUMNS)
LABELS = ("image/class/label", *LABEL_COLUMNS)
PATHS = ("image/filename", "file_name", "filename")
_HEAD, _FOOT = 12, 4
_MOST_TEXT = 1024  # bytes of a value that becomes a column


@dataclass
class Records:
    """The records of the files: where they are, and what they have beside the image.

    Attributes:
        files: each file, and the number of records before it.
        positions: of each record its first byte and length, and of the image in it.
        features: of each record, what was wanted of it, and the name of the image.
    """

    files: list[tuple[Path, int]] = field(default_factory=list)
    positions: list[tuple[int, int, int, int]] = field(default_factory=list)
    features: list[dict[str, Any]] = field(default_factory=list)

    def add(self, file: Path, wanted: Container[str] | None) -> None:
        """Find the records of a file.

        Raises:
            InputError: it is damaged, or a record has no image; the text names the record.
        """
        self.files.append((file, len(self.positions)))
        try:
            with file.open("rb") as opened:
                if not file.stat().st_size:
                    raise InputError(f"{file}: is empty")
                with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    for start, size in _records(file, data):
                        self._add_record(file, data, start, size, wanted)
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error.strerror})") from None

    def _add_record(
        self, file: Path, data: Any, start: int, size: int, wanted: Container[str] | None
    ) -> None:
        place = f"{file}, record {len(self.positions) - self.files[-1][1]}"
        try:
            found = known = parse_example(data, start, start + size, wanted)
            name = next((name for name in IMAGES if name in found), None)
            if name is None and wanted is not None:
                known = parse_example(data, start, start + size)
        except NotAnExampleError as error:
            raise InputError(f"{place}: is no tf.train.Example ({one_line(error)})") from None
        if name is None:
            raise InputError(
                f"{place}: no feature {' or '.join(IMAGES)}; it has "
                f"{one_line(', '.join(sorted(known)))}"
            )
        image = found.pop(name)
        if len(image) != 1 or not isinstance(image[0], tuple):
            raise InputError(f"{place}: {name} has {len(image)} values; one image is needed")
        first, last = image[0]
        if last - first > MAX_BYTES:
            raise InputError(f"{place}: {last - first} bytes; the limit is {MAX_BYTES}")
        self.positions.append((start, size, first - start, last - first))
        self.features.append({key: _plain(data, values) for key, values in found.items()})

    def check(self, where: Path) -> None:
        """Refuse files without records."""
        if not self.positions:
            raise InputError(f"{where}: no images")

    def key(self, wanted: tuple[str, ...], what: str) -> str:
        """The first of some features that the records have."""
        for name in wanted:
            if name in self.names:
                return name
        raise InputError(
            f"{self.place(0)}: no feature {' or '.join(wanted)}, so no image has {what}"
        )

    @property
    def names(self) -> dict[str, None]:
        """The features that some record has, in the order in which they occur."""
        return dict.fromkeys(name for record in self.features for name in record)

    def values(self, key: str) -> list[Any]:
        """A feature of each record: a list, or None if it lacks it."""
        return [record.get(key) for record in self.features]

    def texts(self, key: str) -> list[str]:
        """A feature of one text in each record; empty where there is none."""
        return [
            value[0] if value and len(value) == 1 and isinstance(value[0], str) else ""
            for value in self.values(key)
        ]

    def place(self, index: int) -> str:
        """File and record of an image, for messages."""
        return place_of(self.files, index, "record")

    def places(self) -> list[str]:
        """``place`` of every image."""
        return places_of(self.files, len(self.positions), "record")

    def columns(self, folder: Path) -> LabelColumns:
        """All features but the image: lists where a record has none or several values."""
        found = LabelColumns()
        for name in self.names:
            values = self.values(name)
            if any(value is None and name in LABELS for value in values) or any(
                len(value) != 1 for value in values if value is not None
            ):
                found.nested[name] = values
                found.names[name] = names_of_numbers(folder, name)
            elif not any(value and len(str(value[0])) > _MOST_TEXT for value in values):
                found.cells[name] = [value[0] if value else None for value in values]
        return found

    def dataset(
        self,
        where: Path,
        class_names: tuple[str, ...],
        labels: Any,
        notes: list[str],
        columns: Any = None,
    ) -> ImageDataset:
        """The images with these labels."""
        given = [self.texts(name) for name in PATHS]
        files = files_of(self.files, len(self.positions))
        paths = [
            next((path for path in found if path), f"{file.name}/{index:08d}")
            for index, (file, *found) in enumerate(zip(files, *given, strict=True))
        ]
        return ImageDataset(
            where,
            class_names,
            unique_names(paths),
            labels,
            np.array([position[3] for position in self.positions], dtype=np.int64),
            read_one=self._reader(),
            columns=columns or {},
            notes=tuple(notes),
        )

    def _reader(self) -> Callable[[int], bytes]:
        """The function that reads an image, and checks the sum of its record."""
        file_of = file_finder(self.files)
        positions = np.array(self.positions, dtype=np.int64)
        read_part = ReadUnchanged(file for file, _ in self.files)

        def read_one(index: int) -> bytes:
            start, size, first, length = positions[index].tolist()
            data = read_part(file_of(index), start, size + _FOOT)
            if masked(data[:size]) != struct.unpack_from("<I", data, size)[0]:
                raise InputError("the sum of its record is wrong: the file is damaged")
            return data[first : first + length]

        return read_one


def _records(file: Path, data: Any) -> Iterator[tuple[int, int]]:
    """First byte and length of the data of each record."""
    at, end, count = 0, len(data), 0
    while at < end:
        head = data[at : at + _HEAD]
        if len(head) < _HEAD:
            raise InputError(f"{file}: is cut short in record {count}")
        size, found = struct.unpack("<QI", head)
        if masked(head[:8]) != found:
            refuse_stray(file)
            packed = head[:2] in (b"\x1f\x8b", b"\x78\x9c", b"\x78\x01", b"\x78\xda")
            instead = "the file is compressed; write it without" if packed else "it is damaged"
            raise InputError(
                f"{file}: the sum of the length of record {count} is wrong: "
                f"{instead if not at else 'it is damaged'}"
            )
        if size > end - at - _HEAD - _FOOT:
            raise InputError(f"{file}: is cut short in record {count}")
        yield at + _HEAD, size
        at += _HEAD + size + _FOOT
        count += 1


def _plain(data: Any, values: Values) -> list[Any]:
    """The values of a feature; byte strings become text, long ones keep their beginning."""
    return [
        data[value[0] : min(value[1], value[0] + _MOST_TEXT + 1)].decode(errors="surrogateescape")
        if isinstance(value, tuple)
        else _number(value)
        for value in values
    ]


def _number(value: float) -> int | float:
    """A number as it is written: float32 with as few digits as it needs."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
