"""The loss of a training run."""

from dataclasses import dataclass
from typing import ClassVar

from densenet121.config.shared import Settings, Switch
from densenet121.config.values import between


@dataclass(frozen=True, kw_only=True)
class LossSettings(Settings):
    """The training loss.

    Attributes:
        label_smooth: 1 smooths the labels, 0 does not.
        label_smooth_factor: share s taken from the true class; each wrong class gets s/(C-1).
    """

    section: ClassVar[str] = "loss"
    label_smooth: Switch = 0
    label_smooth_factor: float = 0.1

    def check(self) -> None:
        """Refuse values out of range."""
        between("label_smooth_factor", self.label_smooth_factor, 0, 1, upper_open=True)

    @property
    def smooth_factor(self) -> float:
        """The original's rule: without --label_smooth the factor is 0."""
        return self.label_smooth_factor if self.label_smooth else 0.0
