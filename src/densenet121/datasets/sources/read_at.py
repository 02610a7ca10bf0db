"""Read a part of a file: from any thread, and without a descriptor that stays open."""

import contextlib
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from densenet121.utils.errors import InputError

_SAMPLE = 4096  # bytes at the beginning, in the middle and at the end of a file


def read_at(file: Path, offset: int, size: int) -> bytes:
    """``size`` bytes from ``offset`` on.

    Raises:
        InputError: the file cannot be read, or is shorter.
    """
    with _opened(file) as descriptor:
        return _part(file, descriptor, offset, size)


class ReadUnchanged:
    """``read_at`` of files of which it is known what is where, as long as they stay as they are.

    In files that are written anew while a run reads them, the image of another label may be at the
    same place. A file with another time and the same samples, as after ``touch``, is the same.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._times: dict[Path, int] = {}
        self._samples: dict[Path, tuple[int, ...]] = {}
        for file in files:
            with _opened(file) as descriptor:
                self._times[file] = os.fstat(descriptor).st_mtime_ns
                self._samples[file] = _samples(descriptor)

    def __call__(self, file: Path, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on.

        Raises:
            InputError: as ``read_at``, or the file has changed since it was opened.
        """
        with _opened(file) as descriptor:
            time = os.fstat(descriptor).st_mtime_ns
            if time != self._times[file]:
                if _samples(descriptor) != self._samples[file]:
                    raise InputError(f"{file} has changed since it was opened")
                self._times[file] = time
            return _part(file, descriptor, offset, size)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[int]:
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None


def _part(file: Path, descriptor: int, offset: int, size: int) -> bytes:
    data = os.pread(descriptor, size, offset)
    if len(data) != size:
        raise InputError(f"{file} is shorter than when it was indexed")
    return data


def _samples(descriptor: int) -> tuple[int, ...]:
    size = os.fstat(descriptor).st_size
    places = (0, size // 2, max(0, size - _SAMPLE))
    return size, *(zlib.crc32(os.pread(descriptor, _SAMPLE, place)) for place in places)
