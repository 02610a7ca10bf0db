"""The settings of distillation."""

from dataclasses import dataclass
from typing import ClassVar

from densenet121.config.shared import AnyPath, Settings
from densenet121.utils.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class DistillationSettings(Settings):
    """A trained network that the new one learns from.

    Attributes:
        teacher: weights with the same classes, of any of the networks; the loss becomes (1-a) times
            the loss plus a T^2 times the Kullback-Leibler divergence from the teacher's
            probabilities to the network's, both at temperature T; of several labels the mean over
            the known cells (default: none).
        distill_alpha: the share a of the teacher, above 0 and at most 1 (default: 0.5).
        distill_temperature: the temperature T of both networks, above 0; higher shows more of what
            the teacher makes of the wrong classes (default: 2).
    """

    section: ClassVar[str] = "distillation"
    teacher: AnyPath | None = None
    distill_alpha: float | None = None
    distill_temperature: float | None = None

    def check(self) -> None:
        """Refuse values out of range, and settings without a teacher."""
        if self.teacher == "":
            raise UsageError("--teacher must name weights, got an empty path")
        if self.distill_alpha is not None and not 0 < self.distill_alpha <= 1:
            raise UsageError(
                f"--distill_alpha must be above 0 and at most 1, got {self.distill_alpha}"
            )
        if self.distill_temperature is not None and not 0.01 <= self.distill_temperature <= 1000:
            raise UsageError(
                f"--distill_temperature must be from 0.01 to 1000, got {self.distill_temperature}"
            )
        for name in ("distill_alpha", "distill_temperature"):
            if self.teacher is None and getattr(self, name) is not None:
                raise UsageError(f"--{name} needs --teacher, the weights to learn from")

    @property
    def alpha(self) -> float | None:
        """The share of the teacher, with the default in place of None; None without a teacher."""
        return self._value(self.distill_alpha, 0.5)

    @property
    def temperature(self) -> float | None:
        """The temperature, with the default in place of None; None without a teacher."""
        return self._value(self.distill_temperature, 2.0)

    def _value(self, given: float | None, default: float) -> float | None:
        if self.teacher is None:
            return None
        return default if given is None else given
