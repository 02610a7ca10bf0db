"""How the C library handles freed memory, and what a lack of memory looks like."""

import ctypes
import sys

import torch

from densenet121.utils.arena import use_arena
from densenet121.utils.errors import NO_MEMORY

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


def prepare_for_training() -> None:
    """For a process that trains on the CPU: keep freed memory, and large tensors in one arena."""
    keep_freed_memory()
    use_arena()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a device or on the host.

    torch has an exception of its own only for some devices; the CPU's and others' are told by their
    words.
    """
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        type(error) is RuntimeError and any(word in str(error) for word in NO_MEMORY)
    )


def memory_text(device: torch.device) -> str:
    """Memory of a device for a message, such as ": 0.2 of 15.9 GB are free"; empty if unknown."""
    if device.type == "cpu":
        return ""
    module = torch.get_device_module(device)
    try:
        free, total = module.mem_get_info(device)
        peak = module.max_memory_allocated(device)
    except (AttributeError, RuntimeError):
        return ""
    return (
        f": {free / 1e9:.1f} of {total / 1e9:.1f} GB are free, and this process needed "
        f"{peak / 1e9:.1f} GB"
    )
