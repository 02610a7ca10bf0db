"""What is in an HDF5 file, and blocks of its rows; read with h5py."""

import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.sources.read_at import ReadUnchanged
from densenet121.utils.errors import InputError, UsageError, one_line
from densenet121.utils.strays import refuse_stray

_MOST_OBJECTS, _DEEPEST = 20_000, 8
# An array of images may unpack to so many bytes, and all others together, which are kept, to so
# many; to more if the file is large: a few bytes may say that a row stands many times.
_MOST_IMAGES, _MOST_OTHERS, _MOST_RATIO = 2**30, 2**22, 100
_MOST_CACHED_BYTES = 2**28


@dataclass(frozen=True)
class Array:
    """An array of a file.

    Attributes:
        file, name: where it is; the name has the groups before it, ``train/images``.
        shape, dtype: as NumPy has them; texts are bytes of one length.
        rows_together: how many rows are stored in one piece.
        elsewhere: its numbers are in other files.
        packed_by: how it is compressed, if this is not known here.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"
    rows_together: int
    elsewhere: bool
    packed_by: str

    @property
    def is_text(self) -> bool:
        """Whether its values are texts."""
        return self.dtype.kind == "S"

    def __str__(self) -> str:
        kind = "texts" if self.dtype.kind in "OS" else self.dtype
        return f"{one_line(self.name)} ({kind} {list(self.shape)})"


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError:
        raise UsageError(f"{file}: HDF5 needs h5py; pip install 'densenet121[hdf5]'") from None
    try:
        with h5py.File(file, "r", locking=False) as opened:  # read-only disks have no locks
            yield opened
    except (InputError, UsageError):
        raise
    except Exception as error:  # a damaged file makes h5py raise exceptions of almost any type
        refuse_stray(file)
        raise InputError(f"{file}: damaged or not an HDF5 file ({one_line(error)})") from None


def arrays_in(file: Path) -> list[Array]:
    """The arrays of a file, in the order of their names; what links lead to is passed over.

    Raises:
        InputError: it is damaged, holds too many objects, or an array unpacks to far more bytes
            than the file has.
        UsageError: h5py is not installed.
    """
    size = file.stat().st_size
    found, others = [], 0
    with _opened(file) as opened:
        for name, item in _datasets(file, opened):
            if item.dtype.kind not in "biufSO" or not item.shape:
                continue
            unpacked, most = item.dtype.itemsize * item.size, max(_MOST_IMAGES, _MOST_RATIO * size)
            if item.ndim < 3 or math.prod(item.shape[1:]) == 1:
                others += unpacked
                unpacked, most = others, max(_MOST_OTHERS, _MOST_RATIO * size)
            if unpacked > most:
                raise InputError(
                    f"{file}: {one_line(name)} unpacks to more than {most} bytes, though the file "
                    f"has {size}; write its rows as they are, once each"
                )
            elsewhere = bool(item.external or item.is_virtual)
            together = 1 if elsewhere or item.chunks is None else item.chunks[0]
            kind = item.shape, item.dtype, together, elsewhere, _unknown_filter(item)
            found.append(Array(file, name, *kind))
    return sorted(found, key=lambda array: array.name)


def _unknown_filter(item: Any) -> str:
    import h5py

    settings = item.id.get_create_plist()
    for number in range(settings.get_nfilters()):
        code, _, _, name = settings.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            return one_line(name.decode(errors="replace")) or f"filter {code}"
    return ""


def _datasets(file: Path, opened: Any) -> Iterator[tuple[str, Any]]:
    """Not by h5py's visititems, which a damaged file can keep busy without end."""
    import h5py

    waiting: list[tuple[str, Any]] = [("", opened)]
    for _ in range(_MOST_OBJECTS):
        if not waiting:
            return
        name, item = waiting.pop()
        if isinstance(item, h5py.Dataset):
            yield name, item
        elif isinstance(item, h5py.Group) and name.count("/") < _DEEPEST:
            inside = list(itertools.islice(item, _MOST_OBJECTS))
            hard = [n for n in inside if isinstance(item.get(n, getlink=True), h5py.HardLink)]
            waiting += [(f"{name}/{n}".lstrip("/"), item[n]) for n in hard]
    raise InputError(f"{file}: more than {_MOST_OBJECTS} objects")


def values_of(array: Array) -> NDArray[Any]:
    """All values of an array; texts as ``str``.

    Texts of any length (variable-length strings) are not read: of a damaged file libhdf5 may look
    for them without end, which nothing can stop.

    Raises:
        InputError: it is damaged, has texts of any length, or its numbers are in other files.
    """
    if array.dtype.kind == "O":
        raise InputError(
            f"{array.file}: {array.name} has texts of any length, which are not read; write them "
            "as texts of one length, np.array(labels, dtype='S'), or as numbers with a classes.txt"
        )
    _refuse_unreadable(array)
    with _opened(array.file) as opened:
        item = opened[array.name]
        return np.asarray(item.asstr("utf-8", "surrogateescape")[()] if array.is_text else item[()])


def _refuse_unreadable(array: Array) -> None:
    if array.elsewhere:
        raise InputError(
            f"{array.file}: the numbers of {array.name} are in other files (an external or a "
            "virtual dataset); write them into this one"
        )
    if array.packed_by:
        raise InputError(
            f"{array.file}: {array.name} is compressed by {array.packed_by}, which is not known "
            "here; write it with gzip (`compression` of h5py)"
        )


class HDF5Rows:
    """Rows of arrays that follow each other, with a cache of the last used ones; thread-safe.

    Rows that are stored in one piece are unpacked together.
    """

    def __init__(self, arrays: Sequence[Array]) -> None:
        for array in arrays:
            _refuse_unreadable(array)
            if _block_bytes(array) > _MOST_CACHED_BYTES:
                raise InputError(
                    f"{array.file}: {array.name} is stored in pieces of {array.rows_together} "
                    f"rows, {_block_bytes(array)} bytes; at most {_MOST_CACHED_BYTES} are read at "
                    "a time: write it in smaller pieces (`chunks` of h5py)"
                )
        self._arrays = list(arrays)
        counts = [array.shape[0] for array in arrays]
        self._firsts = np.cumsum([0, *counts[:-1]])
        self._check = ReadUnchanged(array.file for array in arrays)
        self._kept: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def read(self, index: int) -> NDArray[Any]:
        """A row.

        Raises:
            InputError: its file cannot be read, or has changed since it was opened.
        """
        number = int(np.searchsorted(self._firsts, index, side="right")) - 1
        block, row = divmod(index - int(self._firsts[number]), self._arrays[number].rows_together)
        key = number, block
        with self._lock:
            rows = self._kept.get(key)
            if rows is None:
                rows = self._kept[key] = self._load(*key)
                self._bytes += rows.nbytes
                while self._bytes > _MOST_CACHED_BYTES and len(self._kept) > 1:
                    self._bytes -= self._kept.popitem(last=False)[1].nbytes
            else:
                self._kept.move_to_end(key)
        return np.asarray(rows[row])

    def _load(self, number: int, block: int) -> NDArray[Any]:
        array = self._arrays[number]
        count = array.rows_together
        with _opened(array.file) as opened:
            item = opened.get(array.name)
            if getattr(item, "shape", None) != array.shape or item.dtype != array.dtype:
                raise InputError(f"{array.file} has changed since it was opened")
            rows = np.asarray(item[block * count : (block + 1) * count])
        self._check(array.file, 0, 0)  # rows of the same shape may be others
        return rows


def _block_bytes(array: Array) -> int:
    rows = min(array.rows_together, array.shape[0])
    return rows * array.dtype.itemsize * math.prod(array.shape[1:])
