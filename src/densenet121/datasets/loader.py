"""Load images into uint8 batches, decoded in advance by a pool of threads.

Threads rather than processes: decoding, resizing and colour tables run without the GIL, a batch is
written in place and passed on without a copy, and there is no worker process to start, to feed or
to lose when a signal arrives.
"""

import itertools
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densenet121.datasets.sampler import Indices
from densenet121.utils.errors import InputError

Prepare = Callable[[int, NDArray[np.uint8]], None]
_CHUNK = 8  # images per task: small enough to divide a batch evenly, large enough to be cheap


@dataclass(frozen=True)
class Batch:
    """Images in the requested order, without those that could not be read.

    Attributes:
        images: ``(N, H, W, 3)`` uint8 RGB.
        indices: ``(N,)`` index of each image in the dataset.
        bad: (index, reason) of each image skipped.
    """

    images: Tensor
    indices: Indices
    bad: tuple[tuple[int, str], ...]

    def of_images(self, num_images: int) -> "Batch":
        """The batch with the index of the image in place of that of the draw (``class_draws``)."""
        bad = tuple((draw % num_images, reason) for draw, reason in self.bad)
        return replace(self, indices=self.indices % num_images, bad=bad)


def load_batches(
    prepare: Prepare,
    batches: Sequence[Indices],
    size: tuple[int, int],
    *,
    workers: int,
    skip_bad: bool = False,
    pin_memory: bool = False,
    at_once: int = 1,
) -> Generator[Batch]:
    """Yield the batches in order, while the next ones are being prepared.

    Args:
        prepare: writes the image of an index to ``(H, W, 3)`` uint8 pixels; called from threads.
            Its output depends only on the index, so the result does not depend on ``workers``.
        batches: the indices of each batch.
        size: H, W of the pixels.
        workers: number of threads; 0 prepares in the calling thread, on demand.
        skip_bad: omit an image that cannot be read from its batch, instead of raising.
        pin_memory: page-locked batches, for an asynchronous copy to an accelerator.
        at_once: number of batches that the caller takes at a time.

    Raises:
        InputError: an image cannot be read and ``skip_bad`` is False.
    """
    cv2.setNumThreads(1)  # the pool uses all cores; OpenCV's own threads would compete with it
    if workers == 0:
        for indices in batches:
            images = _empty(len(indices), size, pin_memory)
            chunks = range(0, len(indices), _CHUNK)
            faults = [_fill(prepare, images, indices, first, skip_bad) for first in chunks]
            yield _assemble(images, indices, faults)
        return
    waiting: deque[tuple[Tensor, Indices, list[Future[list[tuple[int, str]]]]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        upcoming = iter(batches)
        while True:
            # Two batches ahead hide a slow one; more would only use memory.
            for indices in itertools.islice(upcoming, 2 + at_once - len(waiting)):
                images = _empty(len(indices), size, pin_memory)
                tasks = [
                    pool.submit(_fill, prepare, images, indices, first, skip_bad)
                    for first in range(0, len(indices), _CHUNK)
                ]
                waiting.append((images, indices, tasks))
            if not waiting:
                return
            images, indices, tasks = waiting.popleft()
            yield _assemble(images, indices, [task.result() for task in tasks])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _empty(count: int, size: tuple[int, int], pin_memory: bool) -> Tensor:
    return torch.empty((count, *size, 3), dtype=torch.uint8, device="cpu", pin_memory=pin_memory)


def _fill(
    prepare: Prepare, images: Tensor, indices: Indices, first: int, skip_bad: bool
) -> list[tuple[int, str]]:
    """Prepare a chunk of images from position ``first`` on; (position, reason) of faults."""
    pixels = images.numpy()
    last = min(first + _CHUNK, len(indices))
    bad = []
    for position in range(first, last):
        try:
            prepare(int(indices[position]), pixels[position])
        except InputError as error:
            if not skip_bad:
                raise
            bad.append((position, str(error)))
    return bad


def _assemble(images: Tensor, indices: Indices, bad: list[list[tuple[int, str]]]) -> Batch:
    faults = [fault for task in bad for fault in task]
    if not faults:
        return Batch(images, indices, ())
    dropped = {position for position, _ in faults}
    kept = [position for position in range(len(indices)) if position not in dropped]
    named = tuple((int(indices[position]), reason) for position, reason in faults)
    return Batch(images[kept], indices[kept], named)
