"""Find out whether data loading is the bottleneck of a run, and advise what to do about it."""

import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.image_dataset import Encoded, ImageDataset
from densenet121.native.images import image_kernel

_LEAST_SHARE = 0.1  # share of the epoch's time; below it there is no message


class LoadingClock:
    """Seconds that threads spent reading and preparing images, summed over the threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.read_seconds = 0.0
        self.total_seconds = 0.0
        self.images = 0
        self.bytes = 0

    def read(self, dataset: ImageDataset, index: int) -> Encoded:
        """``dataset.read(index)``, timed."""
        start = time.perf_counter()
        try:
            image = dataset.read(index)
        finally:
            seconds = time.perf_counter() - start
            with self._lock:
                self.read_seconds += seconds
        with self._lock:
            self.bytes += len(image) if isinstance(image, bytes) else image.nbytes
        return image

    def timed(
        self, prepare: Callable[[int, NDArray[np.uint8]], None]
    ) -> Callable[[int, NDArray[np.uint8]], None]:
        """``prepare``, timed as a whole."""

        def run(index: int, out: NDArray[np.uint8]) -> None:
            start = time.perf_counter()
            try:
                prepare(index, out)
            finally:
                seconds = time.perf_counter() - start
                with self._lock:
                    self.total_seconds += seconds
                    self.images += 1

        return run


def advice(
    clock: LoadingClock, *, waited_share: float, workers: int, device_type: str, cores: int
) -> str | None:
    """A message for an epoch whose steps waited for images; None if they hardly waited.

    Args:
        clock: the clock of the epoch.
        waited_share: share of the epoch's time spent waiting for images.
        workers: number of decoding threads.
        device_type: device type of the network; on "cpu" it shares the cores with the workers.
        cores: number of cores that this process may use.
    """
    if waited_share < _LEAST_SHARE or not clock.images:
        return None
    read_share = clock.read_seconds / max(clock.total_seconds, 1e-9)
    per_image = clock.total_seconds / clock.images
    text = (
        f"data loading is the bottleneck: {waited_share:.0%} of the epoch was spent waiting for "
        f"images. A worker prepares {1 / per_image:.0f} images/s of "
        f"{clock.bytes / clock.images / 1000:.0f} kB each, and {read_share:.0%} of that time is "
        "reading. "
    )
    kernel = image_kernel()
    if workers < cores and device_type != "cpu":
        text += f"Raise `workers` from {workers} to {cores}, the number of cores."
    elif workers == 0:
        text += f"Pass `workers` {cores}: with 0, no image is prepared in advance."
    elif read_share > 0.5:
        text += (
            "The disk or network is slow: a local copy helps most, and densenet121 pack makes "
            "shards that can be read sequentially."
        )
    elif isinstance(kernel, str):
        text += f"The image kernel does not run here ({kernel})."
    elif device_type == "cpu":
        text += "Decoding and training share the cores; smaller images on disk decode faster."
    else:
        text += (
            f"All {cores} cores are decoding: store smaller images (shorter side a little above "
            "`image_size`), or give the job more cores."
        )
    return text + " densenet121 bench data measures loading and computing separately."
