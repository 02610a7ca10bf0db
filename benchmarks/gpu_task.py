"""What each part of gpu.py is given, and what it gives."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

Rows = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """What the parts share.

    Attributes:
        device: the device to check.
        dry: small shapes and few repetitions.
        until: clock time at which the run ends, of ``time.monotonic``.
    """

    device: torch.device
    dry: bool
    until: float

    @property
    def net(self) -> str:
        """The network to build."""
        return "densenet100" if self.dry else "densenet121"

    @property
    def side(self) -> int:
        """Height and width of the images."""
        return 32 if self.dry else 224

    @property
    def is_cuda(self) -> bool:
        """Whether CUDA's own tools can be used."""
        return self.device.type == "cuda"
