"""Speed of training steps."""

import time
from collections.abc import Iterator

from densenet121.datasets.loader import Batch


class StepClock:
    """Images per second and the share of the time spent waiting for images, between log lines."""

    def __init__(self) -> None:
        self.images = 0
        self._waited_seconds = 0.0
        self._start = self._first = time.perf_counter()
        self._all_waited_seconds = 0.0

    @property
    def waited_share(self) -> float:
        """Share of the time since the start of the epoch that was spent waiting."""
        return self._all_waited_seconds / max(time.perf_counter() - self._first, 1e-9)

    def wait_for(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; the time it takes counts as waiting."""
        before = time.perf_counter()
        batch = next(batches)
        seconds = time.perf_counter() - before
        self._waited_seconds += seconds
        self._all_waited_seconds += seconds
        return batch

    def lap(self) -> tuple[float, float]:
        """(images per second, share of time spent waiting) since the last call."""
        now = time.perf_counter()
        seconds = max(now - self._start, 1e-9)
        images_per_second, data_wait = self.images / seconds, self._waited_seconds / seconds
        self.images, self._waited_seconds, self._start = 0, 0.0, now
        return images_per_second, data_wait
