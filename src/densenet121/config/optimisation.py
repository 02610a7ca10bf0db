"""Optimiser and schedule of a training run."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from densenet121.config.shared import Settings
from densenet121.config.values import at_least, between, numbers
from densenet121.utils.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class OptimisationSettings(Settings):
    """Optimiser and schedule.

    Attributes:
        max_epoch: epochs to train.
        lr_scheduler: exponential (times lr_gamma at each of lr_epochs) or cosine_annealing.
        lr: base learning rate; not scaled by batch size or devices.
        lr_epochs: epochs at which the exponential schedule multiplies by lr_gamma, comma list.
        lr_gamma: factor of the exponential schedule.
        eta_min: lowest learning rate of the cosine schedule.
        T_max: epochs of half a cosine (default: max_epoch).
        warmup_epochs: epochs of linear warmup, may be fractional.
        weight_decay: L2 decay of convolution and classifier weights; batch norm and biases have
            none.
        momentum: momentum of SGD.
        gradient_accumulation: batches of per_batch_size per device whose gradients are averaged
            for one step; batch norm normalises each by its own statistics.
        seed: seed of the initial weights, the order of the images and their augmentation.
    """

    section: ClassVar[str] = "optimisation"
    max_epoch: int = 120
    lr_scheduler: Literal["exponential", "cosine_annealing"] = "cosine_annealing"
    lr: float = 0.1
    lr_epochs: Annotated[int | str, "N,N,..."] = "30,60,90,120"
    lr_gamma: float = 0.1
    eta_min: float = 0.0
    T_max: int | None = None
    warmup_epochs: float = 0.0
    weight_decay: float = 1e-4
    momentum: float = 0.9
    gradient_accumulation: int = 1
    seed: int = 1

    def check(self) -> None:
        """Refuse values out of range."""
        at_least("lr", self.lr, 0, "(0 leaves the weights as they are)")
        at_least("eta_min", self.eta_min, 0)
        at_least("lr_gamma", self.lr_gamma, 0)
        at_least("max_epoch", self.max_epoch, 1, "epoch")
        at_least("T_max", self.T_max, 1, "epoch")
        at_least("weight_decay", self.weight_decay, 0)
        at_least("gradient_accumulation", self.gradient_accumulation, 1, "batch")
        between("seed", self.seed, 0, 2**63 - 1)
        between("momentum", self.momentum, 0, 1, upper_open=True)
        between("warmup_epochs", self.warmup_epochs, 0, self.max_epoch)
        if any(epoch < 0 for epoch in self.milestones):
            raise UsageError(f"--lr_epochs must not be negative, got {self.lr_epochs}")

    @property
    def milestones(self) -> tuple[int, ...]:
        """Epochs of --lr_epochs."""
        return tuple(int(x) for x in numbers("lr_epochs", self.lr_epochs, whole=True))
