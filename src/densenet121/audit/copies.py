"""Find exact and near copies of images."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from densenet121.audit.facts import ImageFacts

# Minimum correlation of the small grey images. It is higher after scaling, recompression and slight
# changes of brightness, and lower between two images of one scene.
_ALIKE = 0.96
_BITS = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)

# A second or further image of the same split; a validation image that train has; an image of
# another class or with other labels.
Relation = Literal["copy", "train_and_val", "two_classes"]


@dataclass
class Copy:
    """An image that is a copy of images before it.

    Attributes:
        index: the image.
        relation: what it is to them.
        first: the first of them.
        is_exact: whether the first has the same pixels.
        number: how many they are.
        labels: their labels, of ``two_classes`` only.
    """

    index: int
    relation: Relation
    first: int
    is_exact: bool
    number: int
    labels: set[str]


def find_copies(
    splits: Sequence[str], labels: Sequence[str], facts: Sequence[ImageFacts], near: int
) -> tuple[list[Copy], set[int]]:
    """The copies, one for each image and relation; and the training images that val has too.

    Args:
        splits: the split of each image, those of train first.
        labels: its class or labels, as text.
        facts: what was found in it.
        near: see ``near_pairs``.
    """
    found: dict[tuple[int, Relation], Copy] = {}
    leaked: set[int] = set()
    for group in exact_groups(facts):
        if splits[group[0]] != splits[group[-1]]:
            leaked |= {index for index in group if splits[index] == splits[group[0]]}
        for copy in _of_group(group, splits, labels, is_exact=True):
            found[copy.index, copy.relation] = copy
    for pair in near_pairs(facts, near):
        if splits[pair[0]] != splits[pair[1]]:
            leaked.add(pair[0])
        for copy in _of_group(pair, splits, labels, is_exact=False):
            known = found.setdefault((copy.index, copy.relation), copy)
            if known is not copy:
                known.number += 1
                known.labels |= copy.labels
    return list(found.values()), leaked


def _of_group(
    group: Sequence[int], splits: Sequence[str], labels: Sequence[str], *, is_exact: bool
) -> Iterator[Copy]:
    """The copies in a group of images that look the same.

    In time linear in the group, which may be large: all black images are one.
    """
    of_split: dict[str, list[int]] = defaultdict(list)
    of_label: dict[str, list[int]] = defaultdict(list)
    for index in group:
        split, label = splits[index], labels[index]
        before = of_split[split]
        if before:
            yield Copy(index, "copy", before[0], is_exact, len(before), set())
        if train := [own for other, own in of_split.items() if other != split]:
            yield Copy(index, "train_and_val", train[0][0], is_exact, len(train[0]), set())
        if others := {other: own for other, own in of_label.items() if other != label}:
            first = min(own[0] for own in others.values())
            number = sum(len(own) for own in others.values())
            yield Copy(index, "two_classes", first, is_exact, number, set(others))
        of_split[split].append(index)
        of_label[label].append(index)


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
