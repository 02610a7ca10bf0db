"""One epoch of training steps."""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing

import torch

from densenet121.datasets.loader import Batch, load_batches
from densenet121.datasets.preparation import training_images
from densenet121.datasets.sampler import split_batches, training_batches
from densenet121.distributed.ranks import any_rank, sum_over_ranks
from densenet121.engine.clock import StepClock
from densenet121.engine.loading import LoadingClock, advice
from densenet121.engine.plan import EpochPlan
from densenet121.engine.state import Training, save_checkpoint
from densenet121.engine.step import TrainingBatch, train_step
from densenet121.losses.mixing import Mix
from densenet121.network import DenseNet
from densenet121.runs.folder import RunFolder
from densenet121.tasks.given import check_weight, targets_of
from densenet121.utils.cores import default_workers
from densenet121.utils.errors import InputError
from densenet121.utils.logging import log
from densenet121.utils.progress import progress_bar

# Halvings that bring the first loss scale, 65536, below 1. An overflow that survives them does not
# come from the scale.
_MOST_SKIPPED_STEPS = 17


def train_epoch(
    training: Training, plan: EpochPlan, folder: RunFolder, should_stop: Callable[[], bool]
) -> bool:
    """Train from the current step of ``training`` to the end of its epoch.

    Returns:
        False if ``should_stop`` returned true between two steps.

    Raises:
        InputError: an image cannot be read (after saving), or of a whole epoch too few to train on,
            or the loss is nan or infinite.
    """
    state, losses = training.state, training.losses
    epoch = state.evaluated_epochs
    end = (epoch + 1) * plan.steps
    first_step = state.step - epoch * plan.steps
    trained = first_step > 0  # before the run was stopped
    loading_clock = LoadingClock()
    clock = StepClock(plan.runtime.timed_device)
    with (
        closing(load_epoch(plan, epoch, first_step, loading_clock)) as batches,
        progress_bar(f"epoch {epoch + 1}/{plan.max_epoch}", plan.steps, done=first_step) as advance,
    ):
        while state.step < end:
            if any_rank(should_stop()):
                return False
            parts = _read_step(training, plan, folder, batches, clock)
            lr = _learning_rate(training, plan)
            if parts:
                trained = True
                losses.add(*run_step(training, plan, parts, lr))
            if training.average is not None:
                training.average.update(training.model, state.step)
            state.step += 1
            clock.images += _count(parts) * plan.runtime.process.world_size
            note = ""
            if state.step % plan.log_interval == 0 or state.step == end:
                check_loss(training, plan, folder)
                mean = losses.mean()
                note = f"loss {mean:.3f}"
                _log_step(folder, clock, epoch, state.step - 1, mean, lr)
                losses.reset()
            # The caller saves at the end of the epoch.
            if state.step % plan.ckpt_interval == 0 and state.step != end:
                check_loss(training, plan, folder)
                save_checkpoint(training, folder)
            advance(note=note)
    if not trained:
        reason = next(iter(state.bad_images.values()))
        raise InputError(
            f"too few of the {len(plan.dataset)} images can be read for one step; {folder.good}; "
            f"the first fault: {reason}"
        )
    _log_loading(loading_clock, clock, plan)
    return True


def _read_step(
    training: Training,
    plan: EpochPlan,
    folder: RunFolder,
    batches: Generator[Batch],
    clock: StepClock,
) -> list[Batch]:
    """Read the batches of one step, without those that have too few readable images.

    All are read before the first forward pass, which changes running statistics. If an image cannot
    be read, the saved checkpoint is then the state between two steps.

    Raises:
        InputError: an image cannot be read; the state has been saved.
    """
    try:
        parts = [clock.wait_for(batches) for _ in range(plan.micro_batches)]
        parts = [part.of_images(len(plan.dataset)) for part in parts]
        for part in parts:
            read = len(part.indices)
            if plan.runtime.process.world_size > 1 and not can_train_on(training.model, part):
                raise InputError(
                    f"none of the {len(part.bad)} images of a step can be read"
                    if not read
                    else f"only {read} of the {read + len(part.bad)} images of a batch can be "
                    "read, and batch norm needs 2 of this size"
                )
    except InputError as error:
        path = save_checkpoint(training, folder, alone=True)
        kept = f"saved {path}" if folder.saves else folder.good
        raise folder.unreadable(error, kept) from None
    for index, reason in (fault for part in parts for fault in part.bad):
        training.state.bad_images[plan.dataset.paths[index]] = reason
    return [part for part in parts if can_train_on(training.model, part)]


def can_train_on(model: DenseNet, batch: Batch) -> bool:
    """Whether enough images of a batch could be read for batch norm."""
    height, width = batch.images.shape[1:3]
    return len(batch.indices) >= model.least_batch(height, width)


def run_step(
    training: Training, plan: EpochPlan, parts: Sequence[Batch], lr: float
) -> tuple[torch.Tensor, float]:
    """Run one step with these batches.

    Returns:
        Its loss, on the device (``train_step``), and its weight in a mean over steps: that of its
        images on all ranks, 1 for whole batches of images that weigh 1 each.
    """
    targets = [targets_of(plan.task, plan.dataset, part.indices) for part in parts]
    weights = [plan.task.weight(target) for target in targets]
    total = sum(weights)
    of_rank, of_all = _step_weights(total, plan, _count(parts))

    def on_device() -> Iterator[TrainingBatch]:
        to_device = plan.runtime.to_device
        for number, (part, target, weight) in enumerate(zip(parts, targets, weights, strict=True)):
            images = plan.preprocessing.normalise(to_device(part.images))
            mix = _draw_mix(plan, training.state.step, number, images)
            images = mix.images(images) if mix else images
            share = weight / total if total else 0.0
            learnt_from = plan.distillation
            teacher = learnt_from.logits(images, plan.runtime) if learnt_from else None
            yield TrainingBatch(images, to_device(target), share, teacher, mix)

    loss = train_step(
        training.synchronised,
        training.optimizer,
        training.scaler,
        on_device(),
        plan.distillation.loss if plan.distillation else plan.task.loss,
        micro_batches=len(parts),
        lr=lr,
        precision=plan.runtime.precision,
        weight=of_rank,
        clip_grad=plan.clip_grad,
    )
    images = min(plan.step_size, len(plan.dataset)) * plan.runtime.process.world_size
    return loss, of_all / images


def _learning_rate(training: Training, plan: EpochPlan) -> float:
    lr, factor = plan.learning_rate(training.state.step), training.state.progress.lr_factor
    return lr if factor == 1 else max(lr * factor, plan.least_lr)


def _draw_mix(plan: EpochPlan, step: int, part: int, images: torch.Tensor) -> Mix | None:
    """How one batch of a step is mixed; a single image has none to mix with."""
    epoch = step // plan.steps
    if plan.mixing is None or epoch >= plan.mixed_epochs or len(images) < 2:
        return None
    height, width = images.shape[2:]
    rank, step = plan.runtime.process.rank, step % plan.steps
    return plan.mixing.draw(
        (height, width), seed=plan.seed, epoch=epoch, step=step, rank=rank, part=part
    )


def _count(parts: Sequence[Batch]) -> int:
    return sum(len(part.indices) for part in parts)


def _step_weights(total: float, plan: EpochPlan, count: int) -> tuple[float, float]:
    """Weight of this rank's loss, such that the mean over ranks is the mean over all images.

    And the sum of the weights of all images, of which this rank has ``count`` with ``total``.

    Raises:
        InputError: the task says that each image weighs 1, and these do not.
    """
    world_size = plan.runtime.process.world_size
    equal = plan.task.every_image_weighs_one and not (plan.skip_bad or plan.least_last)
    if world_size > 1 and equal:
        check_weight(plan.task, total, count)
    if world_size == 1 or equal:
        return 1.0, total * world_size
    of_all = float(sum_over_ranks(torch.tensor(total, dtype=torch.float64)))
    return (total * world_size / of_all if of_all else 0.0), of_all


def check_loss(training: Training, plan: EpochPlan, folder: RunFolder) -> None:
    """Stop a run whose loss is nan or infinite. This waits for the device.

    Raises:
        InputError: the loss is bad; the text names the first bad step and the last good checkpoint.
    """
    allowed = _MOST_SKIPPED_STEPS if plan.runtime.precision == torch.float16 else 0
    bad_run = training.losses.longest_bad_run()
    if bad_run > allowed:
        step = training.state.step - bad_run
        raise InputError(
            f"loss is nan or infinite at epoch {step // plan.steps}, step {step} (both from 0); "
            f"{folder.good}; a lower `lr` or `warmup_epochs` may help"
        )


def load_epoch(
    plan: EpochPlan, epoch: int, first_step: int, clock: LoadingClock
) -> Generator[Batch]:
    """The batches of this rank in an epoch, of draws: see ``Batch.of_images``."""
    process = plan.runtime.process
    augment = plan.augment_small if epoch < plan.small_epochs else plan.augment
    batches = training_batches(
        plan.order(epoch),
        plan.step_size,
        rank=process.rank,
        world_size=process.world_size,
        first_step=first_step,
        least_last=plan.least_last,
    )
    return load_batches(
        clock.timed(training_images(plan.dataset, augment, plan.seed, epoch, clock.read)),
        split_batches(batches, plan.micro_batches),
        (augment.height, augment.width),
        workers=plan.runtime.workers,
        skip_bad=plan.skip_bad,
        pin_memory=plan.runtime.pins_memory,
        at_once=plan.micro_batches,
    )


def _log_loading(loading_clock: LoadingClock, clock: StepClock, plan: EpochPlan) -> None:
    message = advice(
        loading_clock,
        waited_share=clock.waited_share,
        workers=plan.runtime.workers,
        device_type=plan.runtime.device.type,
        cores=default_workers(),
    )
    if message:
        log.warning("%s", message)


def _log_step(
    folder: RunFolder, clock: StepClock, epoch: int, step: int, loss: float, lr: float
) -> None:
    images_per_second, data_wait = clock.lap()
    log.info(
        "epoch[%d], iter[%d], loss:%.3f, mean_fps:%.2f imgs/sec",
        epoch,
        step,
        loss,
        images_per_second,
    )
    folder.note(
        {
            "kind": "train",
            "epoch": epoch,
            "step": step,
            "loss": loss if math.isfinite(loss) else None,
            "lr": lr,
            "images_per_second": round(images_per_second, 2),
            "data_wait": round(data_wait, 4),
        }
    )
