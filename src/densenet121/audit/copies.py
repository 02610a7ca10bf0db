"""Find exact and near copies of images."""

import itertools
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from densenet121.audit.facts import ImageFacts

# Minimum correlation of the small grey images. It is higher after scaling, recompression and slight
# changes of brightness, and lower between two images of one scene.
_ALIKE = 0.96
_BITS = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


def exact_groups(facts: Sequence[ImageFacts]) -> list[list[int]]:
    """Groups of at least two indices of images with the same pixels."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, image in enumerate(facts):
        if image.fault is None:
            groups[image.digest].append(index)
    return [group for group in groups.values() if len(group) > 1]


def near_pairs(facts: Sequence[ImageFacts], most_bits: int) -> list[tuple[int, int]]:
    """Pairs of images that look the same but have different pixels, the lower index first.

    Two hashes of 64 bits that differ in at most n agree in one of n + 1 parts: only images that
    share a part are compared (Norouzi, Punjani and Fleet 2012, multi-index hashing).
    """
    known = [i for i, image in enumerate(facts) if image.fault is None and image.grey is not None]
    if most_bits < 0 or len(known) < 2:
        return []
    hashes = np.array([facts[i].perceptual for i in known], dtype=np.uint64)
    found: set[tuple[int, int]] = set()
    edges = np.linspace(0, 64, most_bits + 2).astype(int)
    for low, high in itertools.pairwise(edges):
        part = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(part, kind="stable")
        cuts = np.flatnonzero(np.diff(part[order])) + 1
        for group in np.split(order, cuts):
            if len(group) > 1:
                found |= _within(hashes, group, most_bits)
    pairs = ((known[a], known[b]) for a, b in found)
    return sorted(
        pair
        for pair in pairs
        if facts[pair[0]].digest != facts[pair[1]].digest and _alike(facts[pair[0]], facts[pair[1]])
    )


def _within(
    hashes: NDArray[np.uint64], group: NDArray[np.int64], most_bits: int
) -> set[tuple[int, int]]:
    group = np.sort(group)
    found = set()
    for at, first in enumerate(group[:-1].tolist()):  # one row at a time: memory stays linear
        others = group[at + 1 :]
        different = (hashes[others] ^ hashes[first]).view(np.uint8).reshape(-1, 8)
        near = _BITS[different].sum(axis=1) <= most_bits
        found |= {(first, other) for other in others[near].tolist()}
    return found


def _alike(a: ImageFacts, b: ImageFacts) -> bool:
    assert a.grey is not None and b.grey is not None
    shapes = a.width * b.height / (a.height * b.width)
    return 0.9 < shapes < 1 / 0.9 and float((a.grey * b.grey).sum()) >= _ALIKE
