"""Who sees which image when: a pure function of (seed, epoch), so any step can be resumed."""

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

# Keeps the order of the images apart from their augmentation, which is keyed by the same seed.
_ORDER_STREAM = 2**63


def epoch_order(num_images: int, seed: int, epoch: int) -> Indices:
    """A random order of all images, the same on every rank.

    Sorts one raw Philox number an image: unlike that of ``Generator.permutation``, its stream is
    fixed by the algorithm, not by a numpy version.
    """
    philox = np.random.Philox(key=np.array([seed, _ORDER_STREAM + epoch], dtype=np.uint64))
    return np.argsort(philox.random_raw(num_images), kind="stable")


def steps_per_epoch(num_images: int, batch_size: int, world_size: int = 1) -> int:
    """Full batches in an epoch; at least one, smaller than ``batch_size`` if need be.

    The images that do not fill a batch wait for another epoch, whose order is another (the
    original's drop_remainder).
    """
    return max(1, num_images // (batch_size * world_size))


def training_batches(
    order: Indices, batch_size: int, *, rank: int = 0, world_size: int = 1, first_step: int = 0
) -> list[Indices]:
    """This rank's batches of an epoch from ``first_step`` on; no rank's image comes twice."""
    steps = steps_per_epoch(len(order), batch_size, world_size)
    across = min(batch_size * world_size, len(order))
    return [
        order[step * across : (step + 1) * across][rank::world_size]
        for step in range(first_step, steps)
    ]


def split_batches(batches: list[Indices], parts: int) -> list[Indices]:
    """Each batch in ``parts``, as equal as can be, one after the other."""
    return [part for batch in batches for part in np.array_split(batch, parts)]


def evaluation_batches(
    num_images: int, batch_size: int, *, rank: int = 0, world_size: int = 1
) -> list[Indices]:
    """This rank's batches, which together with the other ranks' hold every image exactly once."""
    own = np.arange(rank, num_images, world_size, dtype=np.int64)
    return [own[start : start + batch_size] for start in range(0, len(own), batch_size)]
