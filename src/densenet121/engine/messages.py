"""Log messages of a training run about its data, its settings and its result."""

from pathlib import Path

from densenet121.config import TrainConfig
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.engine.state import Training
from densenet121.lr_scheduler import lost_milestones
from densenet121.runs.layout import BEST_WEIGHTS
from densenet121.tasks import Task
from densenet121.utils.logging import log


def log_data(
    dataset: ImageDataset, val: ImageDataset | None, batch_size: int, epoch_steps: int
) -> None:
    """Log which data the run trains and validates on."""
    for name, split in (("training", dataset), ("validation", val)):
        if split is None:
            log.info("no %s images: there is no val/ beside train/ and no `val_dir`", name)
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
                "skipped %d files that are not images by their names, first %s",
                len(split.ignored),
                split.ignored[0],
            )
    log.info("an epoch has %d steps of %d images", epoch_steps, min(batch_size, len(dataset)))
    if len(dataset) < batch_size:
        log.warning("the dataset has fewer images than `per_batch_size` %d", batch_size)


def log_advice(config: TrainConfig, epoch_steps: int) -> None:
    """Log settings that have an effect one might not expect."""
    if config.lr_scheduler == "exponential":
        lost = lost_milestones(
            config.milestones, steps_per_epoch=epoch_steps, warmup_epochs=config.warmup_epochs
        )
        if lost:
            log.warning(
                "`lr_epochs` %s are within the warmup and have no effect, as in the original", lost
            )
    elif config.T_max is not None and config.T_max < config.max_epoch - 1:
        log.warning(
            "`T_max` %d is less than `max_epoch` %d: the learning rate rises again after `T_max`",
            config.T_max,
            config.max_epoch,
        )
    if config.eval_resize is None and config.size != (224, 224):
        log.info(
            "`eval_resize` is %s, scaled from `image_size` as 256 is from 224",
            config.resize,
        )


def log_end(training: Training, task: Task, path: Path) -> None:
    """Log the result of a finished run."""
    state = training.state
    log.info("end network train...")
    if state.best is not None and state.best_epoch is not None:
        best = task.best_line(state.best)
        log.info("best: epoch[%d], %s, %s", state.best_epoch, best, path / BEST_WEIGHTS)
    if state.bad_images:
        log.warning("%d images could not be read and were skipped:", len(state.bad_images))
        for reason in state.bad_images.values():
            log.warning("%s", reason)  # begins with the path
