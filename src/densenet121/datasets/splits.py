"""Which group of images belongs to which part of a split: a function of (seed, group) alone.

A group, such as a patient, has a hash; (seed, hash) gives a number in [0, 1), and the shares of the
parts divide that interval. So no group is in two parts, and added images or groups never move
others. The sizes of the parts are the shares only on average. ``best_seed`` looks for a seed whose
parts are balanced; the split stays a function of (seed, group).
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Hashes = NDArray[np.uint64]

CANDIDATES = 1000  # seeds among which best_seed chooses
_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Members:
    """Groups and labels of images, as pairs of numbers.

    Attributes:
        hashes: hash of each group.
        group: ``(pairs,)`` number of a group.
        label: ``(pairs,)`` number of a label that an image of this group has.
        labels: number of labels.
    """

    hashes: Hashes
    group: Numbers
    label: Numbers
    labels: int

    def counts(self, part_of_group: Numbers, parts: int) -> Numbers:
        """``(parts, labels)`` images."""
        cells = part_of_group[self.group] * self.labels + self.label
        counted = np.bincount(cells, minlength=parts * self.labels)
        return counted.reshape(parts, self.labels)


def group_hashes(ids: Iterable[str]) -> Hashes:
    """The first 64 bits of the SHA-256 of each id in UTF-8."""
    digests = (hashlib.sha256(name.encode(errors="surrogateescape")).digest() for name in ids)
    return np.array([int.from_bytes(digest[:8], "big") for digest in digests], dtype=np.uint64)


def positions(hashes: Hashes, seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each hash: independent ones for every seed.

    SplitMix64's finaliser of the sum of the hash and the finalised seed (Steele, Lea and Flood
    2014); its upper 53 bits are used.
    """
    keyed = np.uint64(_finalised(seed + _GOLDEN))
    mixed = hashes + keyed
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return np.asarray((mixed >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def assign(hashes: Hashes, shares: Sequence[float], seed: int) -> Numbers:
    """The part of each group; ``shares`` sum to 1, and the parts lie in [0, 1) in their order."""
    ends = np.cumsum(shares)[:-1]
    return np.searchsorted(ends, positions(hashes, seed), side="right").astype(np.int64)


def imbalance(counts: Numbers, shares: Sequence[float]) -> float:
    """Chi-square distance of the labels' counts in the parts from their shares, over all labels.

    A label that deviates by as much as chance would adds about as much as any other, so rare labels
    count as much as frequent ones.
    """
    expected = np.outer(shares, counts.sum(axis=0))
    inside = expected > 0
    return float(((counts - expected)[inside] ** 2 / expected[inside]).sum())


def best_seed(members: Members, shares: Sequence[float], seed: int) -> int:
    """Of the seeds ``CANDIDATES * seed`` and the following, the one with the least imbalance."""
    first = CANDIDATES * seed
    scores = [
        imbalance(members.counts(assign(members.hashes, shares, one), len(shares)), shares)
        for one in range(first, first + CANDIDATES)
    ]
    return first + int(np.argmin(scores))


def _finalised(value: int) -> int:
    value &= _MASK
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK
    return value ^ (value >> 31)
