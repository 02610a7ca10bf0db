"""One piece of memory for the large tensors of training steps on the CPU.

Every step allocates the same large tensors in the same order. Among small ones that live longer,
as momentum and gradients, the C library's heap places them with gaps, and grows to 1.3 to 1.4 times
of what is in use (measured: docs/internals/performance.md). Here they are placed first fit by
address, beside nothing else. The memory is reserved without being used: only what was written to
takes pages, which the process then keeps until it ends.
"""

import bisect
import math
import mmap
import os
import sys
import threading
import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor

_SMALLEST_BYTES = 1 << 20  # below it the heap is as good
_PAGE = 4096
# Python has no name for it before 3.13; where Linux has another number, this one means nothing.
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


class Arena:
    """Places tensors in ``size`` bytes of reserved memory.

    Raises:
        OSError: the system does not reserve as much.
    """

    def __init__(self, size: int) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self._memory = mmap.mmap(-1, size, flags=flags)
        self._free = [(0, size)]  # begin and end, by address; no two are adjacent
        # Tensors may end in any thread, and while `place` runs: their places only wait here.
        self._returned: deque[tuple[int, int]] = deque()
        self._lock = threading.Lock()

    def place(self, count: int, dtype: torch.dtype) -> Tensor | None:
        """A tensor of ``count`` numbers, not initialised; None if there is no gap as large."""
        size = -(-count * dtype.itemsize // _PAGE) * _PAGE
        with self._lock:
            begin = self._take(size)
        if begin is None:
            return None
        numbers = np.frombuffer(self._memory, np.uint8, count * dtype.itemsize, begin)
        # The tensor's storage holds `numbers`, which ends with it.
        place = (begin, begin + size)
        weakref.finalize(numbers, self._returned.append, place).atexit = False
        return torch.from_numpy(numbers).view(dtype)

    def _take(self, size: int) -> int | None:
        while self._returned:
            self._give_back(*self._returned.popleft())
        for i, (begin, end) in enumerate(self._free):
            if end - begin >= size:
                self._free[i : i + 1] = [(begin + size, end)] if end - begin > size else []
                return begin
        return None

    def _give_back(self, begin: int, end: int) -> None:
        i = bisect.bisect(self._free, (begin, end))
        if i < len(self._free) and self._free[i][0] == end:
            end = self._free.pop(i)[1]
        if i > 0 and self._free[i - 1][1] == begin:
            begin = self._free.pop(i - 1)[0]
            i -= 1
        self._free.insert(i, (begin, end))


_arena: Arena | None = None


def use_arena() -> bool:
    """From now on ``new_tensor`` of this process takes large tensors from one arena.

    Returns:
        Whether this system has such memory (Linux; not where a limit on addresses forbids it).
    """
    global _arena
    if _arena is None and sys.platform.startswith("linux"):
        try:
            _arena = Arena(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        except (OSError, ValueError):
            return False
    return _arena is not None


def new_tensor(shape: torch.Size | tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor on the CPU, not initialised; with four dimensions in the layout channels_last."""
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    count = math.prod(shape)
    if _arena is not None and count * dtype.itemsize >= _SMALLEST_BYTES:
        place = _arena.place(count, dtype)
        if place is not None:
            strides = torch.empty(shape, device="meta", memory_format=layout).stride()
            # Not a view: autograd treats those that are returned as such.
            empty = torch.empty(0, dtype=dtype, device="cpu")
            return empty.set_(place.untyped_storage(), 0, shape, strides)
    return torch.empty(shape, dtype=dtype, device="cpu", memory_format=layout)
