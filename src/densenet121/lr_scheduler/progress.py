"""Whether validations still improve: for the end of a run, and for the plateau schedule."""

import math
from dataclasses import dataclass


@dataclass
class Progress:
    """The best validation so far, and what depends on it; part of every checkpoint.

    Attributes:
        best: the metric at the last improvement, None before the first validation.
        waited: validations since then.
        plateau_waited: validations since then, or since the learning rate was lowered.
        lr_factor: what the plateau schedule multiplies the learning rate by.
        ended: whether ``patience`` has ended the run.
    """

    best: float | None = None
    waited: int = 0
    plateau_waited: int = 0
    lr_factor: float = 1.0
    ended: bool = False

    def add(
        self,
        value: float,
        *,
        higher_is_better: bool,
        min_delta: float = 0.0,
        patience: int | None = None,
        plateau_patience: int | None = None,
        factor: float = 0.1,
    ) -> None:
        """Count one validation. A value that is not finite is no improvement.

        Args:
            value: the metric.
            higher_is_better: the direction of the metric.
            min_delta: a gain must be larger than this.
            patience: validations without improvement that end the run; None: none do.
            plateau_patience: validations without improvement that lower the learning rate.
            factor: what the learning rate is then multiplied by.
        """
        gain = math.inf if self.best is None else value - self.best
        gain = gain if higher_is_better or self.best is None else -gain
        if math.isfinite(value) and gain > min_delta:
            self.best, self.waited, self.plateau_waited = value, 0, 0
            return
        self.waited += 1
        self.plateau_waited += 1
        if plateau_patience is not None and self.plateau_waited >= plateau_patience:
            self.lr_factor *= factor
            self.plateau_waited = 0
        self.ended = patience is not None and self.waited >= patience
