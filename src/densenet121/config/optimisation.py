"""Optimiser, schedule and end of a training run."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from densenet121.config.shared import NumberList, Settings, Switch
from densenet121.config.values import above, at_least, between, numbers
from densenet121.utils.errors import UsageError

Schedule = Literal[
    "exponential",
    "cosine_annealing",
    "cosine",
    "one_cycle",
    "polynomial",
    "plateau",
    "constant",
]
_ADAM = ("adam", "adamw")
_ORIGINAL = ("exponential", "cosine_annealing")


@dataclass(frozen=True, kw_only=True)
class OptimiserSettings(Settings):
    """The optimiser.

    Attributes:
        optimizer: sgd is the original's; nesterov, adam, adamw (decoupled weight decay) and rmsprop
            are those of torch.optim.
        lr: base learning rate; not scaled by batch size or devices.
        weight_decay: decay of convolution and classifier weights; batch norm and biases have none.
            L2, added to the gradient; with adamw the weights shrink by lr times weight_decay.
        momentum: momentum of sgd, nesterov and rmsprop (default: 0.9, with rmsprop 0).
        betas: decay of the two moments of adam and adamw (default: 0.9,0.999).
        eps: constant in the denominator of adam, adamw and rmsprop (default: 1e-8).
        amsgrad: 1 divides by the largest second moment so far, with adam and adamw.
        clip_grad: scales the gradient of all weights down to this length where it is longer
            (default: none).
        gradient_accumulation: batches of per_batch_size per device whose gradients are averaged
            for one step; batch norm normalises each by its own statistics.
        seed: seed of the initial weights, the order of the images and their augmentation.
    """

    section: ClassVar[str] = "optimisation"
    optimizer: Literal["sgd", "nesterov", "adam", "adamw", "rmsprop"] = "sgd"
    lr: float = 0.1
    weight_decay: float = 1e-4
    momentum: float | None = None
    betas: NumberList | None = None
    eps: float | None = None
    amsgrad: Switch = 0
    clip_grad: float | None = None
    gradient_accumulation: int = 1
    seed: int = 1

    def check(self) -> None:
        """Refuse values out of range, and settings of another optimiser."""
        at_least("lr", self.lr, 0, "(0 leaves the weights as they are)")
        at_least("weight_decay", self.weight_decay, 0)
        at_least("gradient_accumulation", self.gradient_accumulation, 1, "batch")
        between("seed", self.seed, 0, 2**63 - 1)
        between("momentum", self.momentum, 0, 1, upper_open=True)
        above("eps", self.eps, 0)
        above("clip_grad", self.clip_grad, 0)
        adam = self.optimizer in _ADAM
        for name, given, fits in (
            ("momentum", self.momentum is not None, not adam),
            ("betas", self.betas is not None, adam),
            ("eps", self.eps is not None, adam or self.optimizer == "rmsprop"),
            ("amsgrad", bool(self.amsgrad), adam),
        ):
            if given and not fits:
                raise UsageError(
                    f"--{name} has no effect with --optimizer {self.optimizer}; omit one of them"
                )
        if self.optimizer == "nesterov" and self.momentum_value == 0:
            raise UsageError("--optimizer nesterov needs a --momentum above 0, got 0")
        if not all(0 <= beta < 1 for beta in self.beta_values):
            raise UsageError(f"--betas must be two numbers in [0, 1), got {self.betas}")

    @property
    def momentum_value(self) -> float:
        """The momentum, with the default in place of None."""
        default = 0.9 if self.optimizer in ("sgd", "nesterov") else 0.0
        return default if self.momentum is None else self.momentum

    @property
    def beta_values(self) -> tuple[float, float]:
        """The two betas, with the default in place of None."""
        first, second = numbers("betas", self.betas or "0.9,0.999", count=2)
        return first, second


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings(Settings):
    """The learning rate over time, and the end of the run.

    Attributes:
        max_epoch: epochs to train. A resumed run may have more, if no step that is done would have
            been another.
        lr_scheduler: exponential (times lr_gamma at each of lr_epochs) and cosine_annealing (half
            a cosine that changes once an epoch) are the original's. cosine is half a cosine that
            changes every step and ends at eta_min; one_cycle rises from lr/25 to lr during
            warmup_epochs (default there: 30 % of the run) and falls to eta_min, both on a cosine;
            polynomial falls with the power lr_power; plateau multiplies by lr_gamma after
            plateau_patience validations without a better best_metric; constant does not change.
        lr_epochs: epochs at which the exponential schedule multiplies by lr_gamma, comma list.
        lr_gamma: factor of the exponential and the plateau schedule.
        lr_power: power of the polynomial schedule, 1 for a straight line.
        eta_min: lowest learning rate of cosine_annealing, cosine, one_cycle, polynomial and
            plateau.
        T_max: epochs of half a cosine of cosine_annealing (default: max_epoch).
        warmup_epochs: epochs of linear warmup, may be fractional.
        plateau_patience: validations without improvement before the plateau schedule lowers the
            learning rate.
        patience: validations without improvement after which the run ends (default: it does not
            end early).
        best_metric: metric that decides which weights are the best, and what improvement is:
            top1, balanced_accuracy, auroc (mean over at most 100 classes), quadratic_kappa (of
            classes that are grades in their order) or loss, with several labels auroc,
            average_precision or loss (default: top1, with several labels auroc).
        min_delta: a smaller gain of best_metric is no improvement for patience and
            plateau_patience.
        val_interval: epochs from one validation to the next; the last epoch is always validated.
            patience and plateau_patience count validations.
    """

    section: ClassVar[str] = "schedule"
    max_epoch: int = 120
    lr_scheduler: Schedule = "cosine_annealing"
    lr_epochs: Annotated[int | str, "N,N,..."] = "30,60,90,120"
    lr_gamma: float = 0.1
    lr_power: float = 1.0
    eta_min: float = 0.0
    T_max: int | None = None
    warmup_epochs: float = 0.0
    plateau_patience: int = 5
    patience: int | None = None
    best_metric: Annotated[str, "METRIC"] | None = None
    min_delta: float = 0.0
    val_interval: int = 1

    def check(self) -> None:
        """Refuse values out of range."""
        at_least("eta_min", self.eta_min, 0)
        at_least("lr_gamma", self.lr_gamma, 0)
        above("lr_power", self.lr_power, 0)
        at_least("max_epoch", self.max_epoch, 1, "epoch")
        at_least("T_max", self.T_max, 1, "epoch")
        at_least("patience", self.patience, 1, "validation")
        at_least("plateau_patience", self.plateau_patience, 1, "validation")
        at_least("min_delta", self.min_delta, 0)
        at_least("val_interval", self.val_interval, 1, "epoch")
        at_least("warmup_epochs", self.warmup_epochs, 0, "epochs")
        if self.warmup_epochs > self.max_epoch:
            raise UsageError(
                f"--warmup_epochs {self.warmup_epochs:g} is more than --max_epoch "
                f"{self.max_epoch}; pass fewer, or 0"
            )
        if any(epoch < 0 for epoch in self.milestones):
            raise UsageError(f"--lr_epochs must not be negative, got {self.lr_epochs}")
        self._check_used()
        if self.lr_scheduler == "plateau" and self.lr_gamma >= 1:
            raise UsageError(
                f"--lr_gamma must be below 1 with --lr_scheduler plateau, got {self.lr_gamma}"
            )

    def _check_used(self) -> None:
        """Refuse settings of another schedule, where they are not the defaults.

        The original has some of them as flags, and takes them with both of its schedules.
        """
        for name, default, schedules in (
            ("T_max", None, _ORIGINAL),
            ("lr_epochs", "30,60,90,120", _ORIGINAL),
            ("lr_gamma", 0.1, (*_ORIGINAL, "plateau")),
            ("lr_power", 1.0, ("polynomial",)),
            ("eta_min", 0.0, (*_ORIGINAL, "cosine", "one_cycle", "polynomial", "plateau")),
            ("plateau_patience", 5, ("plateau",)),
        ):
            if getattr(self, name) != default and self.lr_scheduler not in schedules:
                raise UsageError(
                    f"--{name} has no effect with --lr_scheduler {self.lr_scheduler}; omit one of "
                    "them"
                )

    @property
    def milestones(self) -> tuple[int, ...]:
        """Epochs of --lr_epochs."""
        return tuple(int(x) for x in numbers("lr_epochs", self.lr_epochs, whole=True))
