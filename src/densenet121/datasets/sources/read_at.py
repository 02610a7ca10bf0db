"""Read a part of a file: from any thread, and without a descriptor that stays open."""

import os
from pathlib import Path

from densenet121.utils.errors import InputError


def read_at(file: Path, offset: int, size: int) -> bytes:
    """``size`` bytes from ``offset`` on.

    Raises:
        InputError: the file cannot be read, or is shorter.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            data = os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None
    if len(data) != size:
        raise InputError(f"{file} is shorter than when it was indexed")
    return data
