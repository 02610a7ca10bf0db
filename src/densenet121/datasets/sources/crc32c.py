"""CRC-32C (Castagnoli), which TFRecord files have: by the image kernel, or in numpy without it.

A sum is linear: that of a block is the XOR of what each byte adds at its place, which is in a
table; that of A and B is the sum of A shifted by the length of B, XOR that of B. Zeros in front of
data change nothing where a sum begins with 0.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from densenet121.native.images import image_kernel

_POLYNOMIAL = 0x82F63B78  # reversed
_BLOCK = 1024  # bytes
_SLAB = 64  # blocks at once, so that what is between stays in the cache
_SHORT = 64  # bytes that are faster one by one

Words = NDArray[np.uint32]


def crc32c(data: bytes) -> int:
    """The sum of RFC 3720; that of ``b"123456789"`` is 0xe3069283."""
    kernel = image_kernel()
    found = None if isinstance(kernel, str) else kernel.crc32c(data)
    return by_numpy(data) if found is None else found


def by_numpy(data: bytes) -> int:
    """As ``crc32c``, without the kernel."""
    if len(data) < _SHORT:
        return _short(data)
    padded = np.zeros(-(-len(data) // _BLOCK) * _BLOCK, dtype=np.uint8)
    start = len(padded) - len(data)
    padded[start:] = np.frombuffer(data, np.uint8)
    padded[start : start + 4] ^= 255  # as if the sum began with all ones
    blocks = padded.reshape(-1, _BLOCK)
    places, added, (first, second, third, fourth) = *_places(), _shift()
    found = 0
    for slab in range(0, len(blocks), _SLAB):
        parts = added.take(blocks[slab : slab + _SLAB] + places)
        for value in np.bitwise_xor.reduce(parts, axis=1).tolist():
            found = (
                first[found & 255]
                ^ second[found >> 8 & 255]
                ^ third[found >> 16 & 255]
                ^ fourth[found >> 24]
                ^ value
            )
    return found ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    """The sum as TFRecord files have it, rotated and with a constant added."""
    found = crc32c(data)
    return ((found >> 15 | found << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _short(data: bytes) -> int:
    table = _list_of_bytes()
    found = 0xFFFFFFFF
    for byte in data:
        found = table[(found ^ byte) & 255] ^ (found >> 8)
    return found ^ 0xFFFFFFFF


@cache
def _table_of_bytes() -> Words:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


@cache
def _list_of_bytes() -> list[int]:
    return [int(value) for value in _table_of_bytes()]


def _after_zero(sums: Words) -> Words:
    """What sums become after one byte of zeros."""
    return np.asarray(_table_of_bytes()[sums & 255] ^ (sums >> 8))


@cache
def _places() -> tuple[NDArray[np.int64], Words]:
    """Where the table of each place of a block begins, and the tables: what each byte adds."""
    added = np.empty((_BLOCK, 256), dtype=np.uint32)
    added[-1] = _table_of_bytes()
    for place in range(_BLOCK - 2, -1, -1):
        added[place] = _after_zero(added[place + 1])
    return np.arange(_BLOCK, dtype=np.int64) * 256, added.ravel()


@cache
def _shift() -> list[list[int]]:
    """For each byte of a sum, what it becomes after a block of zeros."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(_BLOCK):
        bits = _after_zero(bits)
    found = np.zeros((4, 256), dtype=np.uint32)
    for bit, value in enumerate(bits):
        has = (np.arange(256) >> bit % 8 & 1).astype(bool)
        found[bit // 8, has] ^= value
    return [[int(value) for value in row] for row in found]
