"""Whether a run waits for its images, and what to do about it."""

import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.image_dataset import Encoded, ImageDataset
from densenet121.native.images import image_kernel

_WORTH_A_WORD = 0.1  # share of the time


class LoadingClock:
    """Seconds that threads spent on reading and on preparing images, summed over the threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.read_seconds = 0.0
        self.total_seconds = 0.0
        self.images = 0
        self.bytes = 0

    def read(self, dataset: ImageDataset, index: int) -> Encoded:
        """``images.read(index)``, timed."""
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
    """What to say of an epoch whose steps waited for images; None where they hardly did.

    Args:
        clock: of the epoch.
        waited_share: of its time, spent waiting for images.
        workers: threads that decoded.
        device_type: of the network; "cpu" shares its cores with them.
        cores: that this process may use.
    """
    if waited_share < _WORTH_A_WORD or not clock.images:
        return None
    read_share = clock.read_seconds / max(clock.total_seconds, 1e-9)
    per_image = clock.total_seconds / clock.images
    text = (
        f"loading binds: {waited_share:.0%} of the epoch was spent waiting for images; a thread "
        f"prepares {1 / per_image:.0f} a second of {clock.bytes / clock.images / 1000:.0f} kB, "
        f"{read_share:.0%} of that time is reading; "
    )
    kernel = image_kernel()
    if workers < cores and device_type != "cpu":
        text += f"raise --workers from {workers} to {cores}, the cores here"
    elif workers == 0:
        text += f"pass --workers {cores}: with 0 nothing is prepared ahead"
    elif read_share > 0.5:
        text += (
            "the disk or network is slow: `densenet121 pack` makes shards that are read in long "
            "stretches, and a local copy helps most"
        )
    elif isinstance(kernel, str):
        text += f"the image kernel does not run here ({kernel})"
    elif device_type == "cpu":
        text += "decoding and training share the cores; smaller images on disk cost less"
    else:
        text += (
            f"all {cores} cores decode: store the images smaller (the shorter side a little "
            "above --image_size), or give the job more cores"
        )
    return text + "; `densenet121 bench data` measures loading and computing apart"
