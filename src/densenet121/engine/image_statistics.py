"""Mean and standard deviation of the training images."""

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.decoding import decode, not_readable
from densenet121.datasets.grey import as_grey
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.transforms import EvalTransform
from densenet121.distributed.ranks import gather
from densenet121.utils.errors import InputError

Triple = tuple[float, float, float]
# Number of pixels, then for each of R, G, B their sum and the sum of their squares.
Sums = tuple[int, tuple[int, ...], tuple[int, ...]]


def mean_and_std(
    dataset: ImageDataset,
    transform: EvalTransform,
    *,
    workers: int,
    skip_bad: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> tuple[Triple, Triple]:
    """Of R, G and B over all pixels of the resized images, in grey levels; equal if those are grey.

    Each image counts with its pixels after the resizing of the evaluation, before the crop and
    without what is filled in. The sums are whole numbers, so that the result depends neither on
    the order of the images nor on the number of threads or ranks, each of which reads its share.

    Args:
        dataset: the images.
        transform: how they are decoded and resized.
        workers: number of threads.
        skip_bad: leave out images that cannot be read.
        rank: of this process.
        world_size: number of processes, all of which call this.

    Raises:
        InputError: an image cannot be read, or all have a channel of one value.
    """

    def one(index: int) -> Sums | None:
        try:
            image = dataset.read(index)
            if isinstance(image, bytes):
                image = decode(image, reading=transform.reading)
            return _sums(transform.resized(as_grey(image) if transform.grey else image))
        except InputError as error:
            if skip_bad:
                return None
            raise not_readable(dataset.name(index), error) from error

    cv2.setNumThreads(1)  # the pool uses all cores
    with ThreadPoolExecutor(max(1, workers)) as pool:
        own = _total(pool.map(one, range(rank, len(dataset), world_size)))
    count, sums, squares = _total(gather(own))
    # n^2 times the variance, in whole numbers: no digit is lost to cancellation.
    spread = [count * square - total**2 for total, square in zip(sums, squares, strict=True)]
    if min(spread) <= 0:
        raise InputError(
            f"{dataset.root}: all pixels of a colour have the same value, so `normalisation` data "
            "has no standard deviation; pass two numbers, or omit it"
        )
    red, green, blue = (total / count for total in sums)
    stds = [math.sqrt(value / count**2) for value in spread]
    return (red, green, blue), (stds[0], stds[1], stds[2])


def _sums(pixels: NDArray[np.uint8]) -> Sums:
    flat = pixels.reshape(-1, 3).astype(np.int64)
    return len(flat), tuple(flat.sum(axis=0).tolist()), tuple((flat**2).sum(axis=0).tolist())


def _total(parts: Iterable[Sums | None]) -> Sums:
    count, sums, squares = 0, [0, 0, 0], [0, 0, 0]
    for part in parts:
        if part is not None:
            count += part[0]
            sums = [a + b for a, b in zip(sums, part[1], strict=True)]
            squares = [a + b for a, b in zip(squares, part[2], strict=True)]
    return count, tuple(sums), tuple(squares)
