"""The row groups of Parquet files, which are read as a whole, and the images in them."""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from densenet121.datasets.decoding import MAX_BYTES
from densenet121.datasets.sources.read_at import ReadUnchanged
from densenet121.datasets.sources.rows import IMAGE_COLUMNS, column_of
from densenet121.utils.errors import InputError, one_line

_MOST_CACHED_BYTES = 2**28


class RowGroups:
    """Row groups with a cache of the last used ones; thread-safe."""

    def __init__(
        self, groups: list[tuple[Path, int]], starts: "np.ndarray[Any, Any]", sizes: list[int]
    ) -> None:
        self._groups = groups
        self._starts = starts
        self._sizes = sizes
        self._check = ReadUnchanged(file for file, _ in groups)
        self._kept: OrderedDict[int, list[bytes]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def read(self, index: int) -> bytes:
        """The bytes of an image.

        Raises:
            InputError: its file cannot be read, or has changed.
        """
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
        start, *ends = self._starts[number : number + 2].tolist()
        expected = self._sizes[start : ends[0] if ends else None]
        try:
            reader = pyarrow.parquet.ParquetFile(file, page_checksum_verification=True)
            image = column_of(file, reader.schema_arrow.names, IMAGE_COLUMNS)
            column = reader.read_row_group(group, columns=[image]).column(image)
            images = [encoded_image(value)[0] for value in column.to_pylist()]
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{file} ({one_line(error)})") from None
        except TypeError:
            images = []
        if [len(data) for data in images] != expected:
            raise InputError(f"{file} has changed since it was opened")
        self._check(file, 0, 0)  # images of the same sizes may be others
        return images


def encoded_image(value: Any) -> tuple[bytes, str]:
    """The bytes and the path of an image.

    Raises:
        TypeError: it has no bytes, or too many.
    """
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, "")
    if not isinstance(data, bytes):
        raise TypeError("the image has no bytes; they are needed in the file, not only a path")
    if len(data) > MAX_BYTES:
        raise TypeError(f"the image has {len(data)} bytes; the limit is {MAX_BYTES}")
    return data, path or ""
