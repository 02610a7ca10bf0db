"""CRC-32C (Castagnoli), which TFRecord files have, in numpy.

Data are cut into lanes of equal length that are summed beside each other, 16 bits at a time; then
neighbours are joined, which is linear: the sum of A and B is that of A shifted by the length of B,
XOR that of B. Zeros in front of data change nothing where a sum begins with 0.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # reversed
_LANE = 64  # bytes

Words = NDArray[np.uint32]


def crc32c(data: bytes) -> int:
    """The sum of RFC 3720; that of ``b"123456789"`` is 0xe3069283."""
    if len(data) < 4 * _LANE:
        return _short(data)
    padded = np.zeros(-(-len(data) // _LANE) * _LANE, dtype=np.uint8)
    start = len(padded) - len(data)
    padded[start:] = np.frombuffer(data, np.uint8)
    padded[start : start + 4] ^= 255  # as if the sum began with all ones
    words = np.ascontiguousarray(padded.view("<u2").reshape(-1, _LANE // 2).T)
    table = _table_of_words()
    sums = np.zeros(words.shape[1], dtype=np.uint32)
    for column in words:
        sums = table[(sums ^ column) & 0xFFFF] ^ (sums >> 16)
    level = 0
    while len(sums) > 1:
        if len(sums) % 2:
            sums = np.concatenate((np.zeros(1, np.uint32), sums))
        sums = _shifted(_shift(level), sums[0::2]) ^ sums[1::2]
        level += 1
    return int(sums[0]) ^ 0xFFFFFFFF


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


@cache
def _table_of_words() -> Words:
    table, words = _table_of_bytes(), np.arange(1 << 16, dtype=np.uint32)
    for _ in range(2):
        words = table[words & 255] ^ (words >> 8)
    return words


@cache
def _shift(level: int) -> Words:
    """``(4, 256)``: what each byte of a sum becomes after ``_LANE << level`` bytes of zeros."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    if level:
        before = _shift(level - 1)
        bits = _shifted(before, _shifted(before, bits))
    else:
        table = _table_of_bytes()
        for _ in range(_LANE):
            bits = table[bits & 255] ^ (bits >> 8)
    found = np.zeros((4, 256), dtype=np.uint32)
    for bit, value in enumerate(bits):
        has = (np.arange(256) >> bit % 8 & 1).astype(bool)
        found[bit // 8, has] ^= value
    return found


def _shifted(shift: Words, sums: Words) -> Words:
    first, second, third, fourth = shift
    return np.asarray(
        first[sums & 255] ^ second[sums >> 8 & 255] ^ third[sums >> 16 & 255] ^ fourth[sums >> 24]
    )
