"""Pick the parts of a training run: task, variant, preprocessing, network and its weights."""

from dataclasses import replace
from types import NoneType
from typing import Any

import numpy as np
import torch

from densenet121.checkpoint.native import ModelInfo
from densenet121.checkpoint.pretrained import load_state
from densenet121.checkpoint.weights import Weights
from densenet121.config import TrainConfig
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.distributed.launchers import ALONE
from densenet121.engine.balance import make_class_weights, make_pos_weight
from densenet121.engine.image_statistics import mean_and_std
from densenet121.losses import Asymmetry
from densenet121.network import DenseNet, Variant, build
from densenet121.runs.checkpoints import Checkpoint
from densenet121.runtime import Runtime
from densenet121.tasks import MultiLabel, SingleLabel, Task
from densenet121.utils.checks import check_type
from densenet121.utils.errors import InputError, UsageError, some
from densenet121.utils.resizing import default_eval_resize
from densenet121.utils.var_init import initialise

_ORIGINS = {"original": "the original", "data": "its images"}


def check_call(config: Any, settings: type, task: Any) -> None:
    """Refuse what a caller in Python passes as settings or task and is neither.

    Raises:
        UsageError: the text has the argument, its type and what it is.
    """
    check_type("config", config, settings)
    check_type("task", task, Task, NoneType)


def pick_task(config: TrainConfig, task: Task | None, dataset: ImageDataset) -> Task:
    """The caller's own task, or one class per image with the loss of the settings.

    Raises:
        UsageError: a setting of the loss is given, and the task is the caller's own.
        InputError: the class weights cannot be computed from the training images.
    """
    if task is None:
        if config.task == MultiLabel.name:
            pos_weight = make_pos_weight(config, dataset)
            asymmetry = Asymmetry(*config.asymmetry) if config.asymmetry else None
            return MultiLabel(config.smooth_factor, pos_weight, config.gamma or 0.0, asymmetry)
        weights = make_class_weights(config, dataset)
        return SingleLabel(config.smooth_factor, config.gamma, weights)
    given = {
        "label_smooth": config.smooth_factor != 0,
        "loss": config.loss != "ce",
        "class_weights": config.class_weights != "none",
    }
    for name, is_given in given.items():
        if is_given:
            raise UsageError(
                f"`{name}` is a setting of the task {SingleLabel.name}; the task {task.name} "
                "defines its own loss"
            )
    return task


def pick_variant(
    config: TrainConfig, checkpoint: Checkpoint | None, pretrained: Weights | None
) -> Variant:
    """The variant recorded in the weights, else the `variant` setting, else the paper's.

    Raises:
        UsageError: weights and setting contradict each other.
    """
    info = checkpoint.info if checkpoint else pretrained.info if pretrained else None
    recorded = info.variant if info else None
    if pretrained and not checkpoint and not pretrained.variant_is_certain:
        return pretrained.variant_for(config.variant)
    if recorded and config.variant and recorded != config.variant and not checkpoint:
        raise UsageError(
            f"`variant` is {config.variant}, but {config.pretrained} has weights of {recorded}, "
            f"which give wrong results in the other; pass `variant` {recorded} or omit it"
        )
    return "model_zoo" if (config.variant or recorded) == "model_zoo" else "paper"


def pick_preprocessing(
    config: TrainConfig,
    checkpoint: Checkpoint | None,
    pretrained: Weights | None,
    dataset: ImageDataset | None = None,
    runtime: Runtime | None = None,
) -> Preprocessing:
    """Size, mean and std: of a resumed run, else as set, else as the weights record.

    Args:
        config: the settings.
        checkpoint: of the run that is resumed.
        pretrained: the weights that training starts from.
        dataset: the training images, for `normalisation` data.
        runtime: its process measures its share of them.

    Raises:
        InputError: the crop does not fit into the resized image, or an image cannot be read.
        UsageError: a setting does not fit the channels.
    """
    own = checkpoint.info if checkpoint else pretrained.info if pretrained else None
    size = config.size or (own.preprocessing.image_size if own else (224, 224))
    channels = own.preprocessing.channels if own else _channels(config, pretrained)
    if checkpoint and config.channels not in (None, channels):
        raise UsageError(
            f"`channels` is {config.channels}, but the run of {checkpoint.path} has images of "
            f"{channels}; omit it"
        )
    found = Preprocessing(size, str(config.eval_resize or default_eval_resize(size)))
    found = found.with_channels(channels).changed(
        depth=own.preprocessing.depth if own else None,
        window=own.preprocessing.window if own else None,
    )
    found = found.changed(depth=config.depth, window=config.window)
    # Values that differ only by rounding give way, so that the bits of the original are kept.
    differs = own and not _same_normalisation(own.preprocessing, found)
    if own and differs and (checkpoint or config.normalisation == "weights"):
        found = replace(found, mean=own.preprocessing.mean, std=own.preprocessing.std)
    transform = found.transform  # raises if the crop does not fit
    if config.normalisation in ("weights", "original"):
        return found
    if checkpoint:  # to the bit
        mean, std = checkpoint.info.preprocessing.mean, checkpoint.info.preprocessing.std
    elif config.mean_std:
        mean, std = _of_channels(config, channels)
    else:
        assert dataset is not None
        process = runtime.process if runtime else ALONE
        mean, std = mean_and_std(
            dataset,
            transform,
            workers=config.num_workers,
            skip_bad=config.on_bad_image == "skip",
            rank=process.rank,
            world_size=process.world_size,
        )
        mean, std = mean[:channels], std[:channels]  # those of a grey image are equal
    return replace(found, mean=mean, std=std)


def _channels(config: TrainConfig, pretrained: Weights | None) -> int:
    return config.channels or (pretrained.channels if pretrained else 3)


def _of_channels(config: TrainConfig, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std that the setting gives, of one channel or three."""
    assert config.mean_std is not None
    mean, std = config.mean_std
    if channels == 1 and (len(set(mean)) > 1 or len(set(std)) > 1):
        raise UsageError(
            f"`normalisation` {config.normalisation} is for R, G and B, but the network has one "
            "channel; pass one mean and one std, as in 128,60"
        )
    return mean[:channels], std[:channels]


def _same_normalisation(a: Preprocessing, b: Preprocessing) -> bool:
    return np.allclose([a.mean, a.std], [b.mean, b.std], atol=0.01)


def check_size(model: DenseNet, height: int, width: int, batch_size: int) -> None:
    """Refuse images that are too small for the network's five halvings and batch norm."""
    least = model.min_image_size
    if min(height, width) < least:
        raise UsageError(
            f"`image_size` must be at least {least} for this network, got {height},{width}"
        )
    if batch_size < model.least_batch(height, width):
        raise UsageError(
            "batch norm needs more than one value per channel: with `image_size` "
            f"{height},{width} pass `per_batch_size` 2 or more"
        )


def make_model(
    config: TrainConfig, info: ModelInfo, num_outputs: int, weights: Weights | None
) -> tuple[DenseNet, str]:
    """The network with its initial weights, and a log message about them."""
    channels = info.preprocessing.channels
    model = build(config.net, num_classes=num_outputs, variant=info.variant, in_channels=channels)
    model.float()  # not the caller's default dtype
    initialise(model, torch.Generator().manual_seed(config.seed))
    return model, start_from(model, weights, config, info) if weights else ""


def start_from(model: DenseNet, weights: Weights, config: TrainConfig, info: ModelInfo) -> str:
    """Load pretrained weights, with a new head if the classes differ; returns the log message.

    Raises:
        InputError: the weights are of another network, or do not fit.
    """
    source = config.pretrained or config.resume or ""
    theirs = weights.info
    if theirs and theirs.net != config.net:
        raise InputError(
            f"{source}: weights of {theirs.net}, but `net` is {config.net}; pass `net` {theirs.net}"
        )
    names = theirs.class_names if theirs else ()
    same_head = (not names or names == info.class_names) and (
        theirs is None or theirs.task == info.task
    )
    other = ""
    if theirs:
        own, used = theirs.preprocessing, info.preprocessing
        if not _same_normalisation(own, used):
            other = (
                f"; it was trained with mean {own.mean} and std {own.std}, this run uses those of "
                f"{_ORIGINS.get(config.normalisation, 'the setting')} (`normalisation` "
                f"{config.normalisation})"
            )
        elif config.normalisation == "weights" and not _same_normalisation(
            used, Preprocessing(used.image_size, used.eval_resize).with_channels(used.channels)
        ):
            other = f"; its mean {own.mean} and std {own.std} are used for training too"
    other += "".join(f"; {note}" for note in weights.notes)
    if weights.num_classes == model.num_classes and same_head:
        load_state(model, weights.state_dict, source)
        return f"load model {source} success{other}"
    load_state(model, weights.with_head_of(model), source)
    if weights.other_head:
        reason = f"its head is another ({some(weights.other_head, 4)}) and is left out"
    elif weights.num_classes is None:
        reason = "it has no head"
    elif weights.num_classes != model.num_classes:
        reason = (
            f"its {weights.num_classes} classes differ from the {model.num_classes} of the data"
        )
    else:
        reason = f"its {weights.num_classes} classes have other names or another task"
    return f"load model {source} success; {reason}, so the head is new{other}"
