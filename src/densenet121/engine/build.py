"""What a training run is made of before its first step: network, state, plan."""

from dataclasses import replace
from typing import NamedTuple

from densenet121.checkpoint.native import ModelInfo
from densenet121.checkpoint.weights import Weights
from densenet121.config import TrainConfig
from densenet121.datasets.image_dataset import ImageDataset, check_num_classes
from densenet121.engine.plan import (
    EpochPlan,
    first_steps,
    frozen_epochs,
    make_plan,
    train_sizes,
)
from densenet121.engine.setup import check_size, make_model, pick_preprocessing, pick_variant
from densenet121.engine.start import begin_training
from densenet121.engine.state import Training
from densenet121.runs.checkpoints import Checkpoint
from densenet121.runtime import Runtime
from densenet121.tasks import Task


class Built(NamedTuple):
    """The result of ``build_training``; ``note`` is a log message about the initial weights."""

    info: ModelInfo
    training: Training
    plan: EpochPlan
    note: str


def build_training(
    config: TrainConfig,
    task: Task,
    dataset: ImageDataset,
    runtime: Runtime,
    weights: Weights | None,
    checkpoint: Checkpoint | None = None,
) -> Built:
    """Network, optimiser, loss scale and schedule, in the state before the first step.

    Args:
        config: the settings.
        task: what the labels mean.
        dataset: the training images.
        runtime: process, device, arithmetic, batch size and workers.
        weights: weights to start from, or None.
        checkpoint: of the run that is resumed; its variant and preprocessing are taken, its state
            is not restored here.

    Raises:
        UsageError: a setting cannot be used.
        InputError: the data or the weights cannot be used.
    """
    num_classes = check_num_classes(dataset, config.num_classes)
    variant = pick_variant(config, checkpoint, weights)
    preprocessing = pick_preprocessing(config, checkpoint, weights, dataset, runtime)
    info = ModelInfo(config.net, variant, dataset.class_names, preprocessing, task.name)
    model, note = make_model(config, info, task.num_outputs(num_classes), weights)
    for side in train_sizes(config, preprocessing):
        check_size(model, *side, min(runtime.batch_size, len(dataset)))
    training = begin_training(model, config, runtime)
    plan = make_plan(config, dataset, task, runtime, preprocessing, model)
    if checkpoint:  # other steps than the run began with freeze nothing again
        steps = first_steps(checkpoint.content["run"])
        plan = replace(plan, frozen_epochs=frozen_epochs(config, steps))
    return Built(info, training, plan, note)
