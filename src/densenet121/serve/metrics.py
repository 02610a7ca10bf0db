"""What /metrics tells, in a registry of its own: two servers in a process do not mix."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server.

    Attributes:
        registry: holds all of them, and the process's own (memory, processor time).
        answers: HTTP answers by status.
        images: classified ones.
        request_seconds: of /predict requests, from their head to their answer.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.answers = Counter(
            "densenet121_answers", "HTTP answers by status", ["status"], registry=self.registry
        )
        self.images = Counter("densenet121_pictures", "Images classified", registry=self.registry)
        self.request_seconds = Histogram(
            "densenet121_request_seconds",
            "Seconds of /predict requests from their head to their answer",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch_size = Histogram(
            "densenet121_batch_pictures", "Images in a batch", buckets=_SIZES,
            registry=self.registry,
        )  # fmt: skip
        self._batch_seconds = Histogram(
            "densenet121_batch_seconds", "Seconds of a batch in the network", buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip

    def observe_batch(self, images: int, seconds: float) -> None:
        """Count a batch."""
        self._batch_size.observe(images)
        self._batch_seconds.observe(seconds)

    def watch(self, images: Callable[[], float], body_bytes: Callable[[], float]) -> None:
        """Read these whenever /metrics is asked for."""
        Gauge(
            "densenet121_waiting_pictures", "Images taken in, without an answer yet",
            registry=self.registry,
        ).set_function(images)  # fmt: skip
        Gauge(
            "densenet121_body_bytes", "Bytes of bodies being read or decoded",
            registry=self.registry,
        ).set_function(body_bytes)  # fmt: skip
