"""What the C library does with memory that is freed."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc


def keep_freed_memory() -> bool:
    """Keep freed memory for the next step instead of returning it to the system.

    A training step frees and asks for the same hundreds of megabytes over and over; by default
    glibc returns each large piece at once, and the next step waits for the system to clear fresh
    pages (measured: docs/internals/performance.md). For the whole process, until it ends.

    Returns:
        Whether the C library has such a setting (glibc does).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
