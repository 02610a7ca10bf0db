"""What stays the same in every epoch of a run: ``EpochPlan``, made from the settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from densenet121.config import TrainConfig
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.sampler import Indices, steps_per_epoch
from densenet121.datasets.transforms import TrainTransform
from densenet121.engine.augmentation import make_mixing, make_transform
from densenet121.engine.balance import make_order
from densenet121.engine.distillation import Distillation, make_distillation
from densenet121.losses.mixing import Mixing
from densenet121.lr_scheduler import (
    cosine,
    cosine_annealing,
    exponential,
    linear_warmup,
    one_cycle,
    polynomial,
)
from densenet121.network import DenseNet, frozen_stages
from densenet121.runtime import Runtime
from densenet121.tasks import Task
from densenet121.utils.errors import UsageError

HEAD_STEPS = 32  # measured on 60 and on 500 images, docs/internals/experiments.md


@dataclass(frozen=True)
class EpochPlan:
    """What stays the same in every epoch of a run.

    Attributes:
        dataset: the training images.
        task: their targets and the loss.
        distillation: the network that the run learns from beside the labels, or None.
        runtime: process, device, arithmetic, batch size and workers.
        preprocessing: mean and std of the images.
        augment: augmentation of each image, except in the first ``small_epochs``.
        augment_small: augmentation in the first ``small_epochs``.
        small_epochs: number of epochs at the beginning that use smaller images.
        mixing: mixup and CutMix, except in the last epochs; None if both are off.
        mixed_epochs: number of epochs at the beginning that use ``mixing``.
        order: epoch to the order of its images, or of draws of them (``class_draws``).
        seed: seed of the augmentation.
        micro_batches: forward passes per step.
        steps: steps per epoch.
        max_epoch: epochs of the run, for the progress bar.
        learning_rate: step to learning rate, before the factor of the plateau schedule.
        least_lr: the plateau schedule does not go below this learning rate.
        clip_grad: largest length of the gradient; None: any.
        frozen: names of the stages that are frozen in the first ``frozen_epochs``.
        frozen_epochs: ``max_epoch`` if they are frozen in the whole run.
        freeze_bn: which batch norms have fixed statistics, see ``set_frozen``.
        best_metric: metric that decides which weights are the best; None: the task's.
        min_delta: least gain that is an improvement.
        patience: validations without improvement that end the run; None: none do.
        plateau_patience: validations without improvement that lower the learning rate; None: none.
        plateau_factor: what the learning rate is then multiplied by.
        val_interval: epochs from one validation to the next.
        least_last: least images per rank of a last, smaller batch of an epoch; 0: there is none.
        skip_bad: skip images that cannot be read.
        log_interval: steps between log lines.
        ckpt_interval: steps between checkpoints.
    """

    dataset: ImageDataset
    task: Task
    distillation: Distillation | None
    runtime: Runtime
    preprocessing: Preprocessing
    augment: TrainTransform
    augment_small: TrainTransform
    small_epochs: int
    mixing: Mixing | None
    mixed_epochs: int
    order: Callable[[int], Indices]
    seed: int
    micro_batches: int
    steps: int
    max_epoch: int
    learning_rate: Callable[[int], float]
    least_lr: float
    clip_grad: float | None
    frozen: tuple[str, ...]
    frozen_epochs: int
    freeze_bn: str
    best_metric: str | None
    min_delta: float
    patience: int | None
    plateau_patience: int | None
    plateau_factor: float
    val_interval: int
    least_last: int
    skip_bad: bool
    log_interval: int
    ckpt_interval: int

    @property
    def step_size(self) -> int:
        """Images per step on each rank."""
        return self.runtime.batch_size * self.micro_batches

    def frozen_in(self, epoch: int) -> tuple[str, ...]:
        """Names of the stages that are frozen in an epoch, counted from 0."""
        return self.frozen if epoch < self.frozen_epochs else ()

    def next_change(self, epoch: int) -> tuple[int, str] | None:
        """The first later epoch whose steps take another time, and why; None: there is none."""
        size = f"{self.augment.height} x {self.augment.width}"
        changes = [(self.small_epochs, f"images are of {size}")]
        if self.frozen:
            changes.append((self.frozen_epochs, "frozen layers learn, too"))
        return min((c for c in changes if epoch < c[0] < self.max_epoch), default=None)

    def validates(self, epoch: int) -> bool:
        """Whether an epoch, counted from 0, is followed by a validation; the last one always is."""
        return (epoch + 1) % self.val_interval == 0 or epoch + 1 == self.max_epoch


def make_plan(
    config: TrainConfig,
    dataset: ImageDataset,
    task: Task,
    runtime: Runtime,
    preprocessing: Preprocessing,
    model: DenseNet,
) -> EpochPlan:
    """Collect what stays the same in every epoch.

    Raises:
        UsageError: there are fewer images than one step of all ranks needs, or the augmentation
            does not fit them.
        InputError: the teacher cannot be used, or a class has no image.
    """
    batch_size, world_size = runtime.batch_size, runtime.process.world_size
    step_size = batch_size * config.gradient_accumulation
    _check_enough(len(dataset), batch_size, config.gradient_accumulation, world_size)
    # Batch norm needs two images in each forward pass.
    least_last = 2 * config.gradient_accumulation if config.last_batch == "keep" else 0
    steps = steps_per_epoch(len(dataset), step_size, world_size, least_last)
    sizes = train_sizes(config, preprocessing)
    augment_small, augment = (make_transform(config, *size, preprocessing) for size in sizes)
    plateau = config.lr_scheduler == "plateau"
    return EpochPlan(
        dataset=dataset,
        task=task,
        distillation=make_distillation(config, task, dataset.class_names, preprocessing, runtime),
        runtime=runtime,
        preprocessing=preprocessing,
        augment=augment,
        augment_small=augment_small,
        small_epochs=config.small_epochs,
        mixing=make_mixing(config, dataset, batch_size),
        mixed_epochs=mixed_epochs(config),
        order=make_order(config, dataset),
        seed=config.seed,
        micro_batches=-(-min(step_size, len(dataset)) // batch_size),
        steps=steps,
        max_epoch=config.max_epoch,
        learning_rate=make_schedule(config, steps),
        least_lr=config.eta_min,
        clip_grad=config.clip_grad,
        frozen=tuple(frozen_stages(model, config.freeze)),
        frozen_epochs=frozen_epochs(config, steps),
        freeze_bn=config.freeze_bn,
        best_metric=config.best_metric,
        min_delta=config.min_delta,
        patience=config.patience,
        plateau_patience=config.plateau_patience if plateau else None,
        plateau_factor=config.lr_gamma,
        val_interval=config.val_interval,
        least_last=least_last,
        skip_bad=config.on_bad_image == "skip",
        log_interval=config.log_interval,
        ckpt_interval=config.ckpt_interval or steps,
    )


def frozen_epochs(config: TrainConfig, steps: int) -> int:
    """Number of first epochs, of ``steps`` each, for which ``freeze`` holds.

    With ``auto`` a new classifier makes ``HEAD_STEPS`` before the rest learns; of few images these
    are several epochs. A random classifier changes good features for the worse (Kumar et al. 2022,
    "Fine-Tuning can Distort Pretrained Features").
    """
    if isinstance(config.freeze_epochs, int):
        return config.freeze_epochs or config.max_epoch
    enough = min(-(-HEAD_STEPS // steps), config.max_epoch // 3)
    return min(max(enough, 1), config.max_epoch - 1)


def first_steps(before: Mapping[str, Any]) -> int:
    """Steps that an epoch of a run had when it began; ``before`` is what its checkpoint knows."""
    return int(before.get("first_steps_per_epoch", before["steps_per_epoch"]))


def _check_enough(count: int, batch_size: int, accumulated: int, world_size: int) -> None:
    if world_size > 1 and count < batch_size * accumulated * world_size:
        times = "" if accumulated == 1 else f" x {accumulated}"
        raise UsageError(
            f"{count} images are fewer than the {world_size} x {batch_size}{times} of one step; "
            "pass a smaller `per_batch_size`"
        )


def mixed_epochs(config: TrainConfig) -> int:
    """Number of epochs at the beginning whose images are mixed, if any are."""
    return config.max_epoch - int(config.chosen("mix_off_epochs"))


def make_schedule(config: TrainConfig, epoch_steps: int) -> Callable[[int], float]:
    """The learning rate of each step, before the factor of the plateau schedule."""
    name, steps = config.lr_scheduler, config.max_epoch * epoch_steps
    warmup_steps = int(config.warmup_epochs * epoch_steps)
    if name == "exponential":
        return partial(
            exponential,
            base_lr=config.lr,
            steps_per_epoch=epoch_steps,
            milestones=config.milestones,
            gamma=config.lr_gamma,
            warmup_epochs=config.warmup_epochs,
        )
    if name == "cosine_annealing":
        return partial(
            cosine_annealing,
            base_lr=config.lr,
            steps_per_epoch=epoch_steps,
            T_max=config.T_max or config.max_epoch,
            eta_min=config.eta_min,
            warmup_epochs=config.warmup_epochs,
        )
    if name == "one_cycle":
        return partial(
            one_cycle,
            base_lr=config.lr,
            steps=steps,
            eta_min=config.eta_min,
            # None of its steps would be the default, 30 % of the run.
            rising_steps=max(warmup_steps, 1) if config.warmup_epochs else 0,
        )
    after_warmup: Callable[..., float] = _constant
    if name == "cosine":
        after_warmup = partial(cosine, steps=steps, eta_min=config.eta_min)
    elif name == "polynomial":
        after_warmup = partial(
            polynomial, steps=steps, power=config.lr_power, eta_min=config.eta_min
        )
    return partial(after_warmup, base_lr=config.lr, warmup_steps=warmup_steps)


def _constant(step: int, *, base_lr: float, warmup_steps: int) -> float:
    return linear_warmup(step, base_lr, warmup_steps) if step < warmup_steps else base_lr


def train_sizes(
    config: TrainConfig, preprocessing: Preprocessing
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of the training images, pixels: in the first epochs, and later."""
    return config.small or preprocessing.image_size, preprocessing.image_size
