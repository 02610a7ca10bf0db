"""How the C library handles freed memory."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc


def keep_freed_memory() -> bool:
    """Keep freed memory for the next step instead of returning it to the system.

    Every training step allocates and frees the same hundreds of megabytes. By default glibc returns
    each large block at once, and the next step waits for the system to clear new pages (measured:
    docs/internals/performance.md). The setting applies to the whole process until it ends.

    Returns:
        Whether the C library has such a setting (glibc does).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
