"""The settings of ``lr-find``."""

from dataclasses import dataclass
from typing import ClassVar

from densenet121.config.shared import File, Settings
from densenet121.config.train import TrainConfig
from densenet121.config.values import at_least, ends_in
from densenet121.utils.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class LrRangeSettings(Settings):
    """The learning rates to try.

    Attributes:
        lr_min: learning rate of the first step.
        lr_max: learning rate of the last step; the rates between them are a geometric series.
        steps: number of steps; the test ends earlier where the loss diverges.
        output: PNG file for the plot; the numbers are written beside it, with the suffix .csv.
    """

    section: ClassVar[str] = "learning rates"
    lr_min: float = 1e-5
    lr_max: float = 10.0
    steps: int = 100
    output: File = "lr_find.png"

    def check(self) -> None:
        """Refuse an empty range and names of files that would be the same."""
        if not 0 < self.lr_min < self.lr_max < float("inf"):
            raise UsageError(
                f"--lr_min must be above 0 and below --lr_max, got {self.lr_min} and {self.lr_max}"
            )
        at_least("steps", self.steps, 20, "steps")
        ends_in("output", self.output, ".png")


@dataclass(frozen=True, kw_only=True)
class LrFindConfig(LrRangeSettings, TrainConfig):
    """Try rising learning rates for some steps, plot the loss, and suggest one for train."""

    def check(self) -> None:
        """Refuse to start from the middle of a run."""
        if self.resume is not None:
            raise UsageError(
                "--resume has no place in lr-find, which starts afresh; pass the weights as "
                "--pretrained"
            )
