"""The loss of a training run, and what it does about classes of unequal size."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from densenet121.config.shared import Settings, Switch
from densenet121.config.values import between
from densenet121.utils.checks import number_in
from densenet121.utils.errors import UsageError

ASL_SETTINGS = ("asl_gamma_neg", "asl_gamma_pos", "asl_clip")  # of LossSettings.asymmetry
_EFFECTIVE = "effective:"


@dataclass(frozen=True, kw_only=True)
class LossSettings(Settings):
    """The training loss and the balance of the classes.

    Attributes:
        loss: ce is cross-entropy; focal is the mean of -(1-p)^g log p, where p is the probability
            of the true class (of several labels: of each label's true value) and g is focal_gamma;
            asl, for several labels, is the asymmetric loss (Ridnik et al. 2021), which counts
            easy negatives less than positives.
        focal_gamma: exponent of the focal loss; 0 is cross-entropy (default: 2).
        asl_gamma_neg: exponent of the asymmetric loss for negative cells (default: 4).
        asl_gamma_pos: the same for positive cells (default: 1).
        asl_clip: margin of the asymmetric loss: it is subtracted from the probability of negative
            cells, so that those with at most this probability do not count (default: 0.05).
        label_smooth: 1 smooths the labels, 0 does not.
        label_smooth_factor: share s taken from the true class; each wrong class gets s/(C-1). With
            several labels the target y becomes y (1 - s) + s / 2.
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
    loss: Literal["ce", "focal", "asl"] = "ce"
    focal_gamma: float | None = None
    asl_gamma_neg: float | None = None
    asl_gamma_pos: float | None = None
    asl_clip: float | None = None
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
        self._check_asymmetric()
        if not self.class_weights:
            raise UsageError("--class_weights must be a rule or a file, got an empty text")
        beta = self.effective_beta
        if beta is not None and not 0 <= beta < 1:
            raise UsageError(
                f"--class_weights {_EFFECTIVE}B needs a B of at least 0 and below 1, got "
                f"{self.class_weights.removeprefix(_EFFECTIVE)}"
            )

    def _check_asymmetric(self) -> None:
        """Refuse settings of the asymmetric loss with another one, and others with it."""
        between("asl_gamma_neg", self.asl_gamma_neg, 0, 100)
        between("asl_gamma_pos", self.asl_gamma_pos, 0, 100)
        between("asl_clip", self.asl_clip, 0, 1, upper_open=True)
        for name in ASL_SETTINGS:
            if getattr(self, name) is not None and self.loss != "asl":
                raise UsageError(f"--{name} is for --loss asl, but --loss is {self.loss}")
        if self.loss == "asl":
            for name, is_given in (
                ("label_smooth 1", self.smooth_factor),
                (f"pos_weight {self.pos_weight}", self.pos_weight != "none"),
            ):
                if is_given:
                    raise UsageError(
                        f"--loss asl and --{name} exclude each other: the asymmetric loss has its "
                        "own weights of positive and negative cells; omit one of them"
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
    def asymmetry(self) -> tuple[float, float, float] | None:
        """Both exponents of the asymmetric loss and its margin; None for another loss."""
        if self.loss != "asl":
            return None
        return (
            4.0 if self.asl_gamma_neg is None else self.asl_gamma_neg,
            1.0 if self.asl_gamma_pos is None else self.asl_gamma_pos,
            0.05 if self.asl_clip is None else self.asl_clip,
        )

    @property
    def effective_beta(self) -> float | None:
        """The B of --class_weights effective:B; nan if it is not a number; None for other rules."""
        if not self.class_weights.startswith(_EFFECTIVE):
            return None
        try:
            return number_in(self.class_weights.removeprefix(_EFFECTIVE))
        except ValueError:
            return float("nan")
