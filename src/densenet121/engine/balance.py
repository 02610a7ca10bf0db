"""The settings about classes of unequal size, for one training set."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from densenet121.config import TrainConfig, absolute
from densenet121.datasets.class_balance import (
    balanced_weights,
    class_counts,
    effective_weights,
    read_weights_file,
    sqrt_weights,
)
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.sampler import Indices, class_draws, epoch_order
from densenet121.tasks import MultiLabel, SingleLabel, Task
from densenet121.utils.errors import InputError
from densenet121.utils.files import file_digest
from densenet121.utils.logging import log

_LARGEST_POS_WEIGHT = 50.0
_MOST_SHOWN = 20  # classes in a log line


def make_class_weights(config: TrainConfig, dataset: ImageDataset) -> tuple[float, ...] | None:
    """The weight of each class in the loss, with mean 1; None without weights.

    Raises:
        InputError: a class has no training image, or the file of weights cannot be used.
    """
    rule = config.class_weights
    if rule == "none":
        return None
    counts = class_counts(dataset, "class_weights")
    if rule == "balanced":
        weights = balanced_weights(counts)
    elif rule == "sqrt":
        weights = sqrt_weights(counts)
    elif config.effective_beta is not None:
        weights = effective_weights(counts, config.effective_beta)
    else:
        weights = read_weights_file(_weights_file(rule), dataset.class_names)
    return tuple(weights.tolist())


def make_pos_weight(config: TrainConfig, dataset: ImageDataset) -> tuple[float, ...]:
    """The factor of the loss of positive cells, by label; empty without one.

    Raises:
        InputError: a label has no positive training image, or no negative one.
    """
    if config.pos_weight == "none":
        return ()
    positives, negatives = (dataset.labels == 1).sum(axis=0), (dataset.labels == 0).sum(axis=0)
    for kind, counts in (("positive", positives), ("negative", negatives)):
        if counts.all():
            continue
        # Without negatives the weight would be 0: the label had no loss, and any probability.
        advice = "leave it out of `labels`"
        if config.label_column is not None:
            advice = "leave it out by `ignore_labels`"
        raise InputError(
            f"{dataset.root}: the label {dataset.class_names[counts.argmin()]} has no {kind} "
            f"image, so `pos_weight` {config.pos_weight} has no value for it; {advice}"
        )
    weights = np.minimum(negatives / positives, _LARGEST_POS_WEIGHT)
    return tuple((np.sqrt(weights) if config.pos_weight == "sqrt" else weights).tolist())


def make_order(config: TrainConfig, dataset: ImageDataset) -> Callable[[int], Indices]:
    """Epoch to the order of its images, as `sampler` says.

    Raises:
        InputError: a class has no training image, so it cannot be drawn.
    """
    if config.sampler == "uniform":
        return partial(epoch_order, len(dataset), config.seed)
    counts = class_counts(dataset, "sampler")
    shares = np.sqrt(counts) if config.sampler == "sqrt" else np.ones(len(counts))
    return partial(class_draws, dataset.labels, shares, config.seed)


def weights_setting(config: TrainConfig) -> str:
    """`class_weights` for run.json: of a file its digest, so that a resume sees a change.

    Raises:
        InputError: it is neither a rule nor a file.
    """
    rule = config.class_weights
    if rule in ("none", "balanced", "sqrt") or config.effective_beta is not None:
        return rule
    return f"file {file_digest(_weights_file(rule))[:16]}"


def _weights_file(rule: str) -> Path:
    file = absolute(rule)
    if not file.exists():
        raise InputError(
            "`class_weights` must be none, balanced, sqrt, effective:B or a file of class,weight "
            f"lines; there is no file {file}"
        )
    return file


def log_balance(config: TrainConfig, dataset: ImageDataset, task: Task) -> None:
    """Log the images and the weight of each class, if anything is done about them."""
    if isinstance(task, MultiLabel):
        _log_labels(dataset, task)
        return
    weights = task.class_weights if isinstance(task, SingleLabel) else None
    if weights is None and config.sampler == "uniform":
        return
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names)).tolist()
    facts = [
        f"{name} {count}" + ("" if weights is None else f" x {weights[label]:.4g}")
        for label, (name, count) in enumerate(zip(dataset.class_names, counts, strict=True))
    ]
    more = f" and {len(facts) - _MOST_SHOWN} more" if len(facts) > _MOST_SHOWN else ""
    what = "images" if weights is None else "images x weight"
    log.info("classes (training %s): %s%s", what, ", ".join(facts[:_MOST_SHOWN]), more)
    if weights is not None and config.sampler != "uniform":
        log.warning(
            "`sampler` %s and `class_weights` %s are both on: rare classes count twice",
            config.sampler,
            config.class_weights,
        )


def _log_labels(dataset: ImageDataset, task: MultiLabel) -> None:
    """Log the positive, negative and unknown training images of each label, and its weight."""
    weights = task.pos_weight or (1.0,) * len(dataset.class_names)
    for k, (name, weight) in enumerate(zip(dataset.class_names, weights, strict=True)):
        column = dataset.labels[:, k]
        log.info(
            "label %s: %d positive, %d negative, %d unknown training images%s",
            name,
            (column == 1).sum(),
            (column == 0).sum(),
            np.isnan(column).sum(),
            f"; positives weigh {weight:.4g}" if task.pos_weight else "",
        )
