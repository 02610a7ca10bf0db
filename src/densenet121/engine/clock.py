"""Speed of training steps."""

import time
from collections.abc import Iterator

import torch

from densenet121.datasets.loader import Batch


class StepClock:
    """Images per second and the share of the time spent waiting for images, between log lines.

    On a CPU it is the time of ``wait_for``. A GPU still works on earlier steps while the host waits
    for images; there it is the time during which the device had nothing to do, by its own clock.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        """``device`` has events if it is given; else the host's time counts."""
        self.images = 0
        self._device = device
        self._idle: list[tuple[torch.Event, torch.Event]] = []
        self._waited_seconds = 0.0
        self._start = self._first = time.perf_counter()
        self._all_waited_seconds = 0.0

    @property
    def waited_share(self) -> float:
        """Share of the time since the start of the epoch that was spent waiting."""
        self._read_events()
        return self._all_waited_seconds / max(time.perf_counter() - self._first, 1e-9)

    def wait_for(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; the time it takes counts as waiting."""
        if self._device is not None:
            # The device passes the first after all work so far, the second after it and the wait.
            before = self._event()
            batch = next(batches)
            self._idle.append((before, self._event()))
            return batch
        start = time.perf_counter()
        batch = next(batches)
        self._wait(time.perf_counter() - start)
        return batch

    def lap(self) -> tuple[float, float]:
        """(images per second, share of time spent waiting) since the last call.

        With a device, call it after the loss was read: then the events have passed.
        """
        self._read_events()
        now = time.perf_counter()
        seconds = max(now - self._start, 1e-9)
        images_per_second, data_wait = self.images / seconds, self._waited_seconds / seconds
        self.images, self._waited_seconds, self._start = 0, 0.0, now
        return images_per_second, data_wait

    def _event(self) -> torch.Event:
        event = torch.Event(self._device, enable_timing=True)
        event.record()
        return event

    def _read_events(self) -> None:
        for before, after in self._idle:
            self._wait(before.elapsed_time(after) / 1000)  # milliseconds
        self._idle.clear()

    def _wait(self, seconds: float) -> None:
        self._waited_seconds += seconds
        self._all_waited_seconds += seconds
