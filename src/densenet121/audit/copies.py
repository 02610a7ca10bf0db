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

Codes = NDArray[np.int32]
_NO_CODES: Codes = np.empty(0, dtype=np.int32)


@dataclass
class Copy:
    """An image that is a copy of images before it.

    Attributes:
        index: the image.
        relation: what it is to them.
        first: the first of them.
        is_exact: whether the first has the same pixels.
        number: how many they are.
        codes: their labels as numbers of ``names``, of ``two_classes`` only.
        names: all labels, sorted.
    """

    index: int
    relation: Relation
    first: int
    is_exact: bool
    number: int
    codes: Codes
    names: Sequence[str]

    @property
    def labels(self) -> list[str]:
        """Their labels, sorted."""
        return [self.names[code] for code in np.sort(self.codes)]


def find_copies(
    splits: Sequence[str], labels: Sequence[str], facts: Sequence[ImageFacts], near: int
) -> tuple[list[Copy], set[int]]:
    """The copies, one for each image and relation; and the training images that val has too.

    Args:
        splits: the split of each image, those of train first.
        labels: its class or labels, as text.
        facts: what was found in it.
        near: see ``near_copies``.
    """
    found: dict[tuple[int, Relation], Copy] = {}
    leaked: set[int] = set()
    names, codes = _numbered(labels)
    for group in exact_groups(facts):
        if splits[group[0]] != splits[group[-1]]:
            leaked |= {index for index in group if splits[index] == splits[group[0]]}
        for copy in _of_group(group, splits, codes, names):
            found[copy.index, copy.relation] = copy
    split = _numbered(splits)[1]
    new: list[Copy] = []
    for index, before in near_copies(facts, near):
        leaked |= set(before[split[before] != split[index]].tolist())
        for copy in _of_near(index, before, split, codes, names):
            known = found.get((copy.index, copy.relation))
            if known is None:
                new.append(copy)
            else:
                known.number += copy.number
                known.codes = np.union1d(known.codes, copy.codes)
    new.sort(key=lambda copy: (copy.first, copy.index))
    return [*found.values(), *new], leaked


def _numbered(texts: Sequence[str]) -> tuple[list[str], Codes]:
    """The texts that there are, sorted, and the number of each text in them."""
    names = sorted(set(texts))
    number = {name: code for code, name in enumerate(names)}
    return names, np.array([number[text] for text in texts], dtype=np.int32)


def _of_group(
    group: Sequence[int], splits: Sequence[str], codes: Codes, names: Sequence[str]
) -> Iterator[Copy]:
    """The copies in a group of images with the same pixels.

    In time linear in the group, which may be large: all black images are one.
    """
    of_split: dict[str, list[int]] = defaultdict(list)
    of_label: dict[int, list[int]] = defaultdict(list)
    for index in group:
        split, label = splits[index], int(codes[index])
        before = of_split[split]
        if before:
            yield Copy(index, "copy", before[0], True, len(before), _NO_CODES, names)
        if train := [own for other, own in of_split.items() if other != split]:
            first, number = train[0][0], len(train[0])
            yield Copy(index, "train_and_val", first, True, number, _NO_CODES, names)
        if others := {other: own for other, own in of_label.items() if other != label}:
            first = min(own[0] for own in others.values())
            number = sum(len(own) for own in others.values())
            several = np.array(list(others), dtype=np.int32)
            yield Copy(index, "two_classes", first, True, number, several, names)
        of_split[split].append(index)
        of_label[label].append(index)


def _of_near(
    index: int, before: NDArray[np.int64], split: Codes, codes: Codes, names: Sequence[str]
) -> Iterator[Copy]:
    """What an image is to the images ``before`` it that look the same."""
    own = split[before] == split[index]
    other = before[codes[before] != codes[index]]
    parts: list[tuple[Relation, NDArray[np.int64], Codes]] = [
        ("copy", before[own], _NO_CODES),
        ("train_and_val", before[~own], _NO_CODES),
        ("two_classes", other, np.unique(codes[other])),
    ]
    for relation, images, several in parts:
        if len(images):
            yield Copy(index, relation, int(images[0]), False, len(images), several, names)


def exact_groups(facts: Sequence[ImageFacts]) -> list[list[int]]:
    """Groups of at least two indices of images with the same pixels."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, image in enumerate(facts):
        if image.fault is None:
            groups[image.digest].append(index)
    return [group for group in groups.values() if len(group) > 1]


def near_copies(
    facts: Sequence[ImageFacts], most_bits: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Images, each with those before it that look the same but have different pixels.

    Only different images are compared, so that many copies of one cost nothing; nothing is kept of
    a comparison, so that memory stays linear where all images look the same, as frames of a film.
    """
    of_digest: dict[bytes, list[int]] = defaultdict(list)
    for index, image in enumerate(facts):
        if image.fault is None and image.grey is not None:
            of_digest[image.digest].append(index)
    groups = [np.array(group, dtype=np.int64) for group in of_digest.values()]
    if most_bits < 0 or len(groups) < 2:
        return
    own = [facts[group[0]] for group in groups]
    hashes = np.array([image.perceptual for image in own], dtype=np.uint64)
    firsts = np.array([group[0] for group in groups])
    for number, others in enumerate(_candidates(hashes, most_bits)):
        group = groups[number]
        others = others[firsts[others] < group[-1]]
        others = others[_different_bits(hashes[others], hashes[number]) <= most_bits]
        alike = [groups[other] for other in others.tolist() if _alike(own[other], own[number])]
        if alike:
            around = np.sort(np.concatenate(alike))
            for index in group.tolist():
                before = around[: np.searchsorted(around, index)]
                if len(before):
                    yield index, before


def _candidates(hashes: NDArray[np.uint64], most_bits: int) -> Iterator[NDArray[np.int64]]:
    """For each hash the others that may differ from it in at most ``most_bits`` bits.

    Two hashes of 64 bits that differ in at most n agree in one of n + 1 parts: only images that
    share a part are compared (Norouzi, Punjani and Fleet 2012, multi-index hashing).
    """
    edges = np.linspace(0, 64, most_bits + 2).astype(int)
    parts = []
    for low, high in itertools.pairwise(edges):
        part = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(part, kind="stable")
        begin, end = (np.searchsorted(part[order], part, side) for side in ("left", "right"))
        parts.append((order, begin.tolist(), end.tolist()))
    for number in range(len(hashes)):
        sharing = [order[begin[number] : end[number]] for order, begin, end in parts]
        others = np.unique(np.concatenate(sharing))
        yield others[others != number]


def _different_bits(hashes: NDArray[np.uint64], own: np.uint64) -> NDArray[np.uint64]:
    """In how many bits each hash differs from ``own``."""
    counts: NDArray[np.uint64] = _BITS[(hashes ^ own).view(np.uint8).reshape(-1, 8)].sum(axis=1)
    return counts


def _alike(a: ImageFacts, b: ImageFacts) -> bool:
    assert a.grey is not None and b.grey is not None
    shapes = a.width * b.height / (a.height * b.width)
    return 0.9 < shapes < 1 / 0.9 and float((a.grey * b.grey).sum()) >= _ALIKE
