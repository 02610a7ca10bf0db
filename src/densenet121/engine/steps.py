"""One training step, and one epoch of them."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from densenet121.config import default_workers
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.loader import Batch, load_batches
from densenet121.datasets.preparation import training_images
from densenet121.datasets.sampler import epoch_order, split_batches, training_batches
from densenet121.datasets.transforms import TrainTransform, normalise
from densenet121.device import arithmetic
from densenet121.distributed.ranks import any_rank, keep_gradients_local, sum_over_ranks
from densenet121.engine.loading import LoadingClock, advice
from densenet121.engine.state import Training
from densenet121.losses import smooth_cross_entropy
from densenet121.runs.folder import RunFolder
from densenet121.utils.errors import InputError
from densenet121.utils.logging import log
from densenet121.utils.progress import progress_bar

# Halvings that bring the first loss scale, 65536, below 1. An overflow that survives them does not
# come from the scale.
_MOST_SKIPPED_STEPS = 17


@dataclass(frozen=True)
class EpochPlan:
    """What stays the same in every epoch of a run.

    Attributes:
        images: the training images.
        augment: what each goes through, in every epoch but the first ``small_epochs``.
        augment_small: what each goes through in those.
        small_epochs: how many there are.
        mean: ``(3,)`` of R, G, B, in grey levels.
        std: likewise.
        seed: of the order and the augmentation.
        batch_size: images a forward and rank.
        micro_batches: forwards a step.
        rank: of this process.
        world_size: processes that train together.
        steps: steps an epoch.
        max_epoch: epochs of the run, for the progress bar.
        learning_rate: of each step.
        smooth_factor: see ``smooth_cross_entropy``.
        device: where the network is.
        precision: dtype of its arithmetic.
        workers: threads that decode.
        skip_bad: leave images that cannot be read out.
        log_interval: steps between log lines.
        ckpt_interval: steps between checkpoints.
    """

    dataset: ImageDataset
    augment: TrainTransform
    augment_small: TrainTransform
    small_epochs: int
    mean: Tensor
    std: Tensor
    seed: int
    batch_size: int
    micro_batches: int
    rank: int
    world_size: int
    steps: int
    max_epoch: int
    learning_rate: Callable[[int], float]
    smooth_factor: float
    device: torch.device
    precision: torch.dtype
    workers: int
    skip_bad: bool
    log_interval: int
    ckpt_interval: int


def train_epoch(
    training: Training, plan: EpochPlan, folder: RunFolder, should_stop: Callable[[], bool]
) -> bool:
    """Train from where ``training`` stands to the end of its epoch.

    Returns:
        False if ``should_stop`` said so between two steps.

    Raises:
        InputError: an image cannot be read (after saving), or the loss is nan or infinite.
    """
    state, losses = training.state, training.losses
    epoch = state.evaluated_epochs
    end = (epoch + 1) * plan.steps
    first_step = state.step - epoch * plan.steps
    load_clock = LoadingClock()
    batches = _load_epoch(plan, epoch, first_step, load_clock)
    clock = _Clock()
    with progress_bar(
        f"epoch {epoch + 1}/{plan.max_epoch}", plan.steps, done=first_step
    ) as advance:
        while state.step < end:
            if any_rank(should_stop()):
                batches.close()
                return False
            try:
                # All of a step before its first forward, which moves running statistics: what is
                # saved where an image cannot be read is then the state between two steps.
                parts = [clock.wait_for(batches) for _ in range(plan.micro_batches)]
                for part in parts:
                    if plan.world_size > 1 and not len(part.indices):
                        raise InputError(f"none of {len(part.bad)} images of a step can be read")
            except InputError as error:
                path = folder.save_checkpoint(training, alone=True)
                raise InputError(
                    f"{error}; saved {path}; mend or remove the image, or pass --on_bad_image "
                    f"skip, and go on with --resume auto --output_dir {folder.path}"
                ) from None
            for index, reason in (fault for part in parts for fault in part.bad):
                state.bad_images[plan.dataset.paths[index]] = reason
            lr = plan.learning_rate(state.step)
            parts = [part for part in parts if len(part.indices)]
            count = sum(len(part.indices) for part in parts)
            if count:
                loss = train_step(
                    training.synchronised,
                    training.optimizer,
                    training.scaler,
                    _to_device(parts, plan),
                    micro_batches=len(parts),
                    lr=lr,
                    smooth_factor=plan.smooth_factor,
                    precision=plan.precision,
                    weight=_weight(count, plan),
                )
                losses.add(loss)
            state.step += 1
            clock.images += count * plan.world_size
            note = ""
            if state.step % plan.log_interval == 0 or state.step == end:
                check_loss(training, plan, folder)
                mean = losses.mean()
                note = f"loss {mean:.3f}"
                _log_step(folder, clock, epoch, state.step - 1, mean, lr)
                losses.reset()
            # The epoch's end saves by itself.
            if state.step % plan.ckpt_interval == 0 and state.step != end:
                check_loss(training, plan, folder)
                folder.save_checkpoint(training)
            advance(note=note)
    found = advice(
        load_clock,
        waited_share=clock.waited_share,
        workers=plan.workers,
        device_type=plan.device.type,
        cores=default_workers(),
    )
    if found:
        log.warning("%s", found)
    return True


def train_step(
    model: nn.Module,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
    batches: Iterable[tuple[Tensor, Tensor, float]],
    *,
    micro_batches: int = 1,
    lr: float,
    smooth_factor: float,
    precision: torch.dtype,
    weight: float = 1.0,
) -> Tensor:
    """One update of the weights. The loss stays on the device: nothing here waits for it.

    Args:
        model: images to logits, in training mode.
        optimizer: momentum SGD.
        scaler: loss scale; disabled unless ``precision`` is float16.
        batches: of each forward: images ``(N, 3, H, W)``, float32 and normalised; labels ``(N,)``,
            int64; their share of the step's images on this rank. Taken one at a time.
        micro_batches: how many they are; the ranks exchange gradients in the last alone.
        lr: learning rate of this step.
        smooth_factor: see ``smooth_cross_entropy``.
        precision: dtype of the network's arithmetic; weights and momentum stay float32.
        weight: of these images' loss in the mean over the ranks.

    Returns:
        The mean loss before the update, a scalar without gradient.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    losses = []
    for number, (images, labels, share) in enumerate(batches, start=1):
        with keep_gradients_local(model, number < micro_batches):
            with arithmetic(images.device, precision):
                logits = model(images)
            loss = smooth_cross_entropy(logits, labels, smooth_factor)
            factor = weight * share
            torch.autograd.backward(scaler.scale(loss if factor == 1 else loss * factor))
        losses.append(loss.detach() if share == 1 else loss.detach() * share)
    # Skips the update where a scaled gradient overflowed.
    scaler.step(optimizer)
    scaler.update()
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def _to_device(parts: list[Batch], plan: EpochPlan) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Normalised images, labels and share of the step of each part."""
    count = sum(len(part.indices) for part in parts)
    for part in parts:
        images = normalise(part.images.to(plan.device, non_blocking=True), plan.mean, plan.std)
        labels = torch.from_numpy(plan.dataset.labels[part.indices])
        yield images, labels.to(plan.device, non_blocking=True), len(part.indices) / count


def _weight(count: int, plan: EpochPlan) -> float:
    """Of a rank with ``count`` images: the others may have lost some that cannot be read.

    With it the mean over the ranks is the mean over the images.
    """
    if plan.world_size == 1 or not plan.skip_bad:
        return 1.0
    return count * plan.world_size / float(sum_over_ranks(torch.tensor(count)))


def check_loss(training: Training, plan: EpochPlan, folder: RunFolder) -> None:
    """Stop a run whose loss is nan or infinite; this waits for the device.

    Raises:
        InputError: naming the first bad step and the last good checkpoint.
    """
    allowed = _MOST_SKIPPED_STEPS if plan.precision == torch.float16 else 0
    bad_run = training.losses.worst_bad_run()
    if bad_run > allowed:
        step = training.state.step - bad_run
        raise InputError(
            f"loss is nan or infinite at epoch {step // plan.steps}, step {step} (both from 0); "
            f"{folder.good}; a lower --lr or --warmup_epochs may help"
        )


def _load_epoch(
    plan: EpochPlan, epoch: int, first_step: int, clock: LoadingClock
) -> Generator[Batch]:
    order = epoch_order(len(plan.dataset), plan.seed, epoch)
    augment = plan.augment_small if epoch < plan.small_epochs else plan.augment
    return load_batches(
        clock.timed(training_images(plan.dataset, augment, plan.seed, epoch, clock.read)),
        split_batches(
            training_batches(
                order,
                plan.batch_size * plan.micro_batches,
                rank=plan.rank,
                world_size=plan.world_size,
                first_step=first_step,
            ),
            plan.micro_batches,
        ),
        (augment.height, augment.width),
        workers=plan.workers,
        skip_bad=plan.skip_bad,
        pin_memory=plan.device.type != "cpu",
        at_once=plan.micro_batches,
    )


class _Clock:
    """Images per second and the share of the time spent waiting for images, between log lines."""

    def __init__(self) -> None:
        self.images = 0
        self._waited_seconds = 0.0
        self._start = self._first = time.perf_counter()
        self._all_waited_seconds = 0.0

    @property
    def waited_share(self) -> float:
        """Share of the time since the beginning that was spent waiting."""
        return self._all_waited_seconds / max(time.perf_counter() - self._first, 1e-9)

    def wait_for(self, batches: Generator[Batch]) -> Batch:
        before = time.perf_counter()
        batch = next(batches)
        seconds = time.perf_counter() - before
        self._waited_seconds += seconds
        self._all_waited_seconds += seconds
        return batch

    def lap(self) -> tuple[float, float]:
        """(images per second, share of the time waited); starts again."""
        now = time.perf_counter()
        seconds = max(now - self._start, 1e-9)
        images_per_second, data_wait = self.images / seconds, self._waited_seconds / seconds
        self.images, self._waited_seconds, self._start = 0, 0.0, now
        return images_per_second, data_wait


def _log_step(
    folder: RunFolder, clock: _Clock, epoch: int, step: int, loss: float, lr: float
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
            "loss": loss,
            "lr": lr,
            "images_per_second": round(images_per_second, 2),
            "data_wait": round(data_wait, 4),
        }
    )
