"""What a training run says of its data, its settings and its end."""

from pathlib import Path

import torch

from densenet121.config import TrainConfig, default_eval_resize
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.engine.state import RunState
from densenet121.lr_scheduler import lost_milestones
from densenet121.native.network import instruction_set
from densenet121.utils.logging import log


def describe_arithmetic(device: torch.device, precision: torch.dtype) -> str:
    """With what a run computes, for its log."""
    name = str(precision).removeprefix("torch.")
    if device.type != "cpu":
        return f"{name} on {device}"
    kernels = instruction_set(device)
    return f"{name} on {torch.get_num_threads()} threads" + (
        f", kernels for {kernels}" if kernels else ""
    )


def log_data(
    dataset: ImageDataset, val: ImageDataset | None, batch_size: int, epoch_steps: int
) -> None:
    """Say what is trained and validated on."""
    for name, split in (("training", dataset), ("validation", val)):
        if split is None:
            log.info("no %s images: no val/ beside train/ and no --val_dir", name)
            continue
        log.info(
            "%s: %d images of %d classes in %s",
            name,
            len(split),
            len(split.class_names),
            split.root,
        )
        if split.ignored:
            log.warning(
                "%d files there are no images by their names and are passed over, first %s",
                len(split.ignored),
                split.ignored[0],
            )
    log.info("an epoch has %d steps of %d images", epoch_steps, min(batch_size, len(dataset)))
    if len(dataset) < batch_size:
        log.warning("there are fewer images than --per_batch_size %d", batch_size)


def log_advice(config: TrainConfig, epoch_steps: int) -> None:
    """Say what in the settings has an effect that one might not expect."""
    if config.lr_scheduler == "exponential":
        lost = lost_milestones(
            config.milestones, steps_per_epoch=epoch_steps, warmup_epochs=config.warmup_epochs
        )
        if lost:
            log.warning(
                "--lr_epochs %s fall into the warmup and never act, as in the original", lost
            )
    elif config.T_max is not None and config.T_max < config.max_epoch - 1:
        log.warning(
            "--T_max %d is less than --max_epoch %d: the learning rate rises again after it",
            config.T_max,
            config.max_epoch,
        )
    if config.eval_resize is None and config.size != (224, 224):
        log.info(
            "--eval_resize is %s, in proportion to --image_size as 256 is to 224",
            default_eval_resize(config.size),
        )


def log_end(state: RunState, path: Path, val_dataset: ImageDataset | None) -> None:
    """Say how a finished run came out."""
    log.info("end network train...")
    if val_dataset and state.best_epoch is not None:
        total = len(val_dataset) - sum(p in state.bad_images for p in val_dataset.paths)
        log.info(
            "best: epoch[%d], top1_correct=%d, tot=%d, acc=%.2f%%, %s",
            state.best_epoch,
            state.best_correct,
            total,
            100 * state.best_correct / total,
            path / "best.safetensors",
        )
    if state.bad_images:
        log.warning("%d images could not be read and were left out:", len(state.bad_images))
        for reason in state.bad_images.values():
            log.warning("%s", reason)  # it begins with the path
