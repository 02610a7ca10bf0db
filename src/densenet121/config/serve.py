"""The settings of ``serve``."""

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar

from densenet121.config.shared import (
    BatchSettings,
    DeviceSettings,
    File,
    PrecisionSettings,
    Settings,
    ViewSettings,
    WeightsSettings,
    WorkerSettings,
)
from densenet121.config.values import at_least, between
from densenet121.utils.cores import default_workers
from densenet121.utils.errors import UsageError

Seconds = Annotated[float, "SECONDS"]


@dataclass(frozen=True, kw_only=True)
class LimitSettings(Settings):
    """Limits of requests.

    Attributes:
        queue: images that may wait for an answer; beyond, requests get 503 and Retry-After.
        max_bytes: maximum size of a request, in bytes.
        max_pixels: maximum size of an image, in pixels; read from its header before decoding.
        max_pictures: maximum number of images in a request.
        body_seconds: seconds within which a request must have arrived; its head has 10 at most.
        answer_seconds: seconds that an image may wait for its answer; after that it gets 503.
        shutdown_seconds: seconds that accepted requests may take after SIGTERM.
    """

    section: ClassVar[str] = "limits"
    queue: int = 256
    max_bytes: int = 16_777_216
    max_pixels: int = 25_000_000
    max_pictures: int = 32
    body_seconds: Seconds = 30.0
    answer_seconds: Seconds = 60.0
    shutdown_seconds: Seconds = 60.0

    def check(self) -> None:
        """Refuse values out of range."""
        for name in ("queue", "max_bytes", "max_pixels", "max_pictures"):
            at_least(name, getattr(self, name), 1)
        for name in ("body_seconds", "answer_seconds", "shutdown_seconds"):
            at_least(name, getattr(self, name), 0.1, "seconds")
        if self.max_pictures > self.queue:
            raise UsageError(
                f"--max_pictures {self.max_pictures} would never fit into --queue {self.queue}"
            )


@dataclass(frozen=True, kw_only=True)
class AccessSettings(Settings):
    """Who may use the server.

    Attributes:
        token_file: file with a token, 16 characters or more; every request except /healthz and
            /readyz must bring it: "Authorization: Bearer TOKEN", or as the password that a browser
            asks for.
        tls_certificate: certificate for HTTPS, with those between it and its root, as PEM.
        tls_key: its private key, as PEM without a passphrase.
    """

    section: ClassVar[str] = "access"
    token_file: File | None = None
    tls_certificate: File | None = None
    tls_key: File | None = None

    def check(self) -> None:
        """Refuse half of a pair."""
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise UsageError("--tls_certificate and --tls_key must be given together")


@dataclass(frozen=True, kw_only=True)
class ServeThreadSettings(WorkerSettings):
    """Threads that decode and compute.

    Attributes:
        workers: threads that decode images (default: half the number of cores).
        streams: threads that compute, each with its share of the cores (default: 2 on a CPU, 1
            on an accelerator).
    """

    section: ClassVar[str] = WorkerSettings.section
    streams: int | None = None

    @property
    def num_workers(self) -> int:
        """Threads that decode images, with the default in place of None."""
        return self.workers or max(1, default_workers() // 2)

    def check(self) -> None:
        """Refuse less than one thread."""
        at_least("streams", self.streams, 1)
        at_least("workers", self.workers, 1)


@dataclass(frozen=True, kw_only=True)
class ServeConfig(
    LimitSettings,
    AccessSettings,
    WeightsSettings,
    ViewSettings,
    BatchSettings,
    PrecisionSettings,
    DeviceSettings,
    ServeThreadSettings,
):
    """Classify images over HTTP: a page for people, an API for programs, one queue for all.

    Attributes:
        weights: a checkpoint, weights file, Hugging Face folder or exported .onnx.
        host: address to listen on; 0.0.0.0 lets other machines in, see `token_file`.
        port: port to listen on; 0 picks a free one and reports it.
        root_path: path below which a proxy shows the server, such as /cats, and which it removes
            from the addresses that it passes on (default: none).
        top_k: number of classes to return for each image, unless the request says another; all of
            several labels are returned (default: 5).
        cam_layer: layer whose class-activation maps are drawn (default: features, the classifier's
            input; of images so small that this is a single position, features.denseblock2).
        model_name: name of the network for clients of the Open Inference Protocol, in the addresses
            below /v2/models (default: that of the network, such as densenet121).
        per_batch_size: largest batch (default: 256 on an accelerator, 32 on a CPU).
    """

    section: ClassVar[str] = "service"
    positional: ClassVar[tuple[str, ...]] = ("weights",)
    weights: str
    host: Annotated[str, "ADDRESS"] = "127.0.0.1"
    port: int = 8000
    root_path: Annotated[str, "PATH"] = ""
    top_k: int | None = None
    cam_layer: str | None = None
    model_name: str | None = None

    def check(self) -> None:
        """Refuse values out of range."""
        if not self.weights:
            raise UsageError("WEIGHTS must be a file, got an empty path")
        between("port", self.port, 0, 65535)
        if not re.fullmatch(r"(/[\w.~-]+)*", self.root_path, re.ASCII):
            raise UsageError(
                "--root_path must begin with a slash and end without one, such as /cats or "
                f'/models/cats, of letters, digits and ._~-, got "{self.root_path}"'
            )
        at_least("top_k", self.top_k, 1)
        if self.model_name is not None and not re.fullmatch(r"[\w.-]+", self.model_name):
            raise UsageError(
                "--model_name must be letters, digits, dots, dashes and underscores, got "
                f'"{self.model_name}"'
            )
