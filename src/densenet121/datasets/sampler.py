"""The image order and batches of each rank: pure functions of (seed, epoch), for exact resume."""

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

# Separates the random stream of the order from that of augmentation, which has the same seed.
_ORDER_STREAM = 2**63


def epoch_order(num_images: int, seed: int, epoch: int) -> Indices:
    """A random order of all images, the same on every rank.

    Sorts one raw Philox number per image: unlike for ``Generator.permutation``, the stream is
    defined by the algorithm and does not depend on the numpy version.
    """
    philox = np.random.Philox(key=np.array([seed, _ORDER_STREAM + epoch], dtype=np.uint64))
    return np.argsort(philox.random_raw(num_images), kind="stable")


def class_draws(
    labels: NDArray[np.int64], shares: NDArray[np.float64], seed: int, epoch: int
) -> Indices:
    """As many draws with replacement as there are images, the same on every rank.

    A class is drawn with a probability in proportion to its share, then one of its images. The
    result has draws, not images: draw ``index + k * num_images`` is the copy number k (from 0) of
    image ``index`` in this epoch, so that each copy can have its own random numbers.

    Args:
        labels: ``(num_images,)``.
        shares: ``(num_classes,)``, above 0; each class has an image.
        seed: seed of the run.
        epoch: number of the epoch.
    """
    num_images = len(labels)
    philox = np.random.Philox(key=np.array([seed, _ORDER_STREAM + epoch], dtype=np.uint64))
    raw = philox.random_raw(2 * num_images).reshape(2, num_images)
    u = (raw >> np.uint64(11)) * 2.0**-53
    bounds = np.cumsum(shares)
    chosen = np.searchsorted(bounds[:-1], u[0] * bounds[-1], side="right")
    by_class, counts = np.argsort(labels, kind="stable"), np.bincount(labels)
    first = np.cumsum(counts) - counts
    images = by_class[first[chosen] + (u[1] * counts[chosen]).astype(np.int64)]
    return np.asarray(images + num_images * _copy_numbers(images))


def _copy_numbers(images: Indices) -> Indices:
    """For each element, how many equal ones are before it."""
    order = np.argsort(images, kind="stable")
    ordered = images[order]
    numbers = np.empty_like(images)
    numbers[order] = np.arange(len(images)) - np.searchsorted(ordered, ordered)
    return numbers


def steps_per_epoch(
    num_images: int, batch_size: int, world_size: int = 1, least_last: int = 0
) -> int:
    """Number of batches in an epoch; at least one, smaller than ``batch_size`` if necessary.

    The images that do not fill a batch are dropped (the original's drop_remainder). The next epoch
    has another order. With ``least_last`` they are a smaller batch, if each rank gets at least that
    many.
    """
    full, left = divmod(num_images, batch_size * world_size)
    return max(1, full + (left >= least_last * world_size > 0))


def training_batches(
    order: Indices,
    batch_size: int,
    *,
    rank: int = 0,
    world_size: int = 1,
    first_step: int = 0,
    least_last: int = 0,
) -> list[Indices]:
    """Batches of this rank in an epoch, from ``first_step`` on; no place of the order has two."""
    steps = steps_per_epoch(len(order), batch_size, world_size, least_last)
    across = min(batch_size * world_size, len(order))
    return [
        order[step * across : (step + 1) * across][rank::world_size]
        for step in range(first_step, steps)
    ]


def split_batches(batches: list[Indices], parts: int) -> list[Indices]:
    """Split each batch into ``parts`` of nearly equal size, in order."""
    return [part for batch in batches for part in np.array_split(batch, parts)]


def evaluation_batches(
    num_images: int, batch_size: int, *, rank: int = 0, world_size: int = 1
) -> list[Indices]:
    """Batches of this rank; all ranks together have every image exactly once."""
    own = np.arange(rank, num_images, world_size, dtype=np.int64)
    return [own[start : start + batch_size] for start in range(0, len(own), batch_size)]
