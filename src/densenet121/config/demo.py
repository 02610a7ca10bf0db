"""The settings of ``demo``."""

from dataclasses import dataclass
from typing import ClassVar

from densenet121.config.shared import DeviceSettings, Folder, WorkerSettings
from densenet121.config.values import at_least


@dataclass(frozen=True, kw_only=True)
class DemoConfig(DeviceSettings, WorkerSettings):
    """Train DenseNet-121 on scikit-learn's handwritten digits, evaluate it and write a report.

    Attributes:
        output_dir: folder for the images and the run (default: a dated one under output).
        max_epoch: epochs to train.
    """

    section: ClassVar[str] = "training"
    output_dir: Folder | None = None
    max_epoch: int = 10

    def check(self) -> None:
        """Refuse a training of no epochs."""
        at_least("max_epoch", self.max_epoch, 1, "epoch")
