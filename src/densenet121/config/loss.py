"""The loss of a training run, and what it does about classes of unequal size."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from densenet121.config.shared import Settings, Switch
from densenet121.config.values import between
from densenet121.utils.errors import UsageError

_EFFECTIVE = "effective:"


@dataclass(frozen=True, kw_only=True)
class LossSettings(Settings):
    """The training loss and the balance of the classes.

    Attributes:
        loss: ce is cross-entropy; focal is the mean of -(1-p)^g log p, where p is the probability
            of the true class (of several labels: of each label's true value) and g is focal_gamma.
        focal_gamma: exponent of the focal loss; 0 is cross-entropy (default: 2).
        label_smooth: 1 smooths the labels, 0 does not.
        label_smooth_factor: share s taken from the true class; each wrong class gets s/(C-1).
        class_weights: weight of each class in the loss, from its n training images, scaled to mean
            1: none; balanced is 1/n; sqrt is 1/sqrt(n); effective:B is (1-B)/(1-B^n), such as
            effective:0.999; or a CSV file of a class and its weight a line. The loss is the
            weighted mean.
        pos_weight: factor of the loss of positive images of each label, for several labels per
            image: none; balanced is negative / positive training images, at most 50; sqrt is its
            square root.
        sampler: uniform shows every image once an epoch; balanced draws with replacement, every
            class equally often; sqrt in between, in proportion to sqrt(n). An epoch has as many
            images in any case.
    """

    section: ClassVar[str] = "loss"
    loss: Literal["ce", "focal"] = "ce"
    focal_gamma: float | None = None
    label_smooth: Switch = 0
    label_smooth_factor: float = 0.1
    class_weights: Annotated[str, "none|balanced|sqrt|effective:B|FILE"] = "none"
    pos_weight: Literal["none", "balanced", "sqrt"] = "none"
    sampler: Literal["uniform", "balanced", "sqrt"] = "uniform"

    def check(self) -> None:
        """Refuse values out of range, and settings of another loss."""
        between("label_smooth_factor", self.label_smooth_factor, 0, 1, upper_open=True)
        between("focal_gamma", self.focal_gamma, 0, 100)
        if self.focal_gamma is not None and self.loss != "focal":
            raise UsageError(f"--focal_gamma is for --loss focal, but --loss is {self.loss}")
        if self.loss == "focal" and self.smooth_factor:
            raise UsageError(
                "--loss focal and --label_smooth 1 exclude each other: the focal loss has one true "
                "class"
            )
        if not self.class_weights:
            raise UsageError("--class_weights must be a rule or a file, got an empty text")
        beta = self.effective_beta
        if beta is not None and not 0 <= beta < 1:
            raise UsageError(
                f"--class_weights {_EFFECTIVE}B needs a B of at least 0 and below 1, got "
                f"{self.class_weights.removeprefix(_EFFECTIVE)}"
            )

    @property
    def smooth_factor(self) -> float:
        """The original's rule: without --label_smooth the factor is 0."""
        return self.label_smooth_factor if self.label_smooth else 0.0

    @property
    def gamma(self) -> float | None:
        """Exponent of the focal loss; None for cross-entropy."""
        if self.loss != "focal":
            return None
        return 2.0 if self.focal_gamma is None else self.focal_gamma

    @property
    def effective_beta(self) -> float | None:
        """The B of --class_weights effective:B; nan if it is not a number; None for other rules."""
        if not self.class_weights.startswith(_EFFECTIVE):
            return None
        try:
            return float(self.class_weights.removeprefix(_EFFECTIVE))
        except ValueError:
            return float("nan")
