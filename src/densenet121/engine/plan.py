"""What stays the same in every epoch of a run: ``EpochPlan``, made from the settings."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from densenet121.config import TrainConfig
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.sampler import steps_per_epoch
from densenet121.datasets.transforms import TrainTransform
from densenet121.lr_scheduler import cosine_annealing, exponential
from densenet121.runtime import Runtime
from densenet121.tasks import Task
from densenet121.utils.errors import UsageError


@dataclass(frozen=True)
class EpochPlan:
    """What stays the same in every epoch of a run.

    Attributes:
        dataset: the training images.
        task: their targets and the loss.
        runtime: process, device, arithmetic, batch size and workers.
        preprocessing: mean and std of the images.
        augment: augmentation of each image, except in the first ``small_epochs``.
        augment_small: augmentation in the first ``small_epochs``.
        small_epochs: number of epochs at the beginning that use smaller images.
        seed: seed of the image order and the augmentation.
        micro_batches: forward passes per step.
        steps: steps per epoch.
        max_epoch: epochs of the run, for the progress bar.
        learning_rate: step to learning rate.
        skip_bad: skip images that cannot be read.
        log_interval: steps between log lines.
        ckpt_interval: steps between checkpoints.
    """

    dataset: ImageDataset
    task: Task
    runtime: Runtime
    preprocessing: Preprocessing
    augment: TrainTransform
    augment_small: TrainTransform
    small_epochs: int
    seed: int
    micro_batches: int
    steps: int
    max_epoch: int
    learning_rate: Callable[[int], float]
    skip_bad: bool
    log_interval: int
    ckpt_interval: int

    @property
    def step_size(self) -> int:
        """Images per step on each rank."""
        return self.runtime.batch_size * self.micro_batches


def make_plan(
    config: TrainConfig,
    dataset: ImageDataset,
    task: Task,
    runtime: Runtime,
    preprocessing: Preprocessing,
) -> EpochPlan:
    """Collect what stays the same in every epoch.

    Raises:
        UsageError: there are fewer images than one step of all ranks needs.
    """
    batch_size, world_size = runtime.batch_size, runtime.process.world_size
    step_size = batch_size * config.gradient_accumulation
    if world_size > 1 and len(dataset) < step_size * world_size:
        times = "" if config.gradient_accumulation == 1 else f" x {config.gradient_accumulation}"
        raise UsageError(
            f"{len(dataset)} images are fewer than the {world_size} x {batch_size}{times} of one "
            "step; pass a smaller `per_batch_size`"
        )
    steps = steps_per_epoch(len(dataset), step_size, world_size)
    augment_small, augment = (_augment(config, *size) for size in config.train_sizes)
    return EpochPlan(
        dataset=dataset,
        task=task,
        runtime=runtime,
        preprocessing=preprocessing,
        augment=augment,
        augment_small=augment_small,
        small_epochs=config.small_epochs,
        seed=config.seed,
        micro_batches=-(-min(step_size, len(dataset)) // batch_size),
        steps=steps,
        max_epoch=config.max_epoch,
        learning_rate=make_schedule(config, steps),
        skip_bad=config.on_bad_image == "skip",
        log_interval=config.log_interval,
        ckpt_interval=config.ckpt_interval or steps,
    )


def make_schedule(config: TrainConfig, epoch_steps: int) -> Callable[[int], float]:
    """The learning rate of each step."""
    if config.lr_scheduler == "exponential":
        return partial(
            exponential,
            base_lr=config.lr,
            steps_per_epoch=epoch_steps,
            milestones=config.milestones,
            gamma=config.lr_gamma,
            warmup_epochs=config.warmup_epochs,
        )
    return partial(
        cosine_annealing,
        base_lr=config.lr,
        steps_per_epoch=epoch_steps,
        T_max=config.T_max or config.max_epoch,
        eta_min=config.eta_min,
        warmup_epochs=config.warmup_epochs,
    )


def _augment(config: TrainConfig, height: int, width: int) -> TrainTransform:
    return TrainTransform(
        height=height,
        width=width,
        crop_scale=config.crop_scale_range,
        crop_ratio=config.crop_ratio_range,
        flip_prob=config.flip_prob,
        color_jitter=config.jitter_amounts,
    )
