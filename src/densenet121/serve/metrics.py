"""The values of /metrics, in a separate registry for each server of the process."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server.

    Attributes:
        registry: all of them, and those of the process (memory, processor time).
        answers: HTTP answers by status.
        images: number of classified images.
        request_seconds: duration of /predict requests, from the headers to the answer.
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
            "Seconds of /predict requests from the headers to the answer",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch_size = Histogram(
            "densenet121_batch_pictures", "Images per batch", buckets=_SIZES,
            registry=self.registry,
        )  # fmt: skip
        self._batch_seconds = Histogram(
            "densenet121_batch_seconds", "Seconds per batch in the network", buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip

    def count(self, status: int) -> None:
        """Count an answer."""
        self.answers.labels(str(status)).inc()

    def observe_batch(self, images: int, seconds: float) -> None:
        """Count a batch."""
        self._batch_size.observe(images)
        self._batch_seconds.observe(seconds)

    def watch(self, images: Callable[[], float], body_bytes: Callable[[], float]) -> None:
        """Call these functions for every request of /metrics."""
        Gauge(
            "densenet121_waiting_pictures", "Images accepted and not yet answered",
            registry=self.registry,
        ).set_function(images)  # fmt: skip
        Gauge(
            "densenet121_body_bytes", "Bytes of request bodies being read or decoded",
            registry=self.registry,
        ).set_function(body_bytes)  # fmt: skip
