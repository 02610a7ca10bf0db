"""A trained network that a run learns from, beside the labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from densenet121.checkpoint.foreign.timm_config import weights_in
from densenet121.checkpoint.load import read_weights
from densenet121.config import TrainConfig, absolute
from densenet121.datasets.image_dataset import check_same_classes
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.inference.classifier import Choices, make_classifier
from densenet121.network import DenseNet
from densenet121.runtime import Runtime
from densenet121.tasks import Task
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.files import file_digest


@dataclass(frozen=True)
class Distillation:
    """The teacher of a run, and how much it counts.

    Attributes:
        model: the teacher, in evaluation mode, without gradients.
        preprocessing: its mean and std; size and augmentation are those of the run.
        of_run: mean and std of the images of the run.
        task: what the logits mean.
        alpha: share of the teacher in the loss.
        temperature: of both softmaxes.
        note: the teacher for the log.
    """

    model: nn.Module
    preprocessing: Preprocessing
    of_run: Preprocessing
    task: Task
    alpha: float
    temperature: float
    note: str = ""

    @torch.no_grad()
    def logits(self, images: Tensor, runtime: Runtime) -> Tensor:
        """The teacher's ``(N, K)`` for images that were normalised for the run.

        They may be mixtures of images: they are normalised anew, not the pixels.
        """
        own, theirs = self.of_run, self.preprocessing
        if (own.mean, own.std) != (theirs.mean, theirs.std):
            images = theirs.renormalise(images, own)
        with runtime.arithmetic():
            found: Tensor = self.model(images)
        return found

    def loss(self, logits: Tensor, targets: Tensor, teacher: Tensor) -> Tensor:
        """``(1 - alpha)`` times the task's loss, plus ``alpha`` times the distillation loss."""
        learnt = self.task.distillation(logits, teacher, targets, self.temperature)
        if self.alpha == 1:
            return learnt
        return (1 - self.alpha) * self.task.loss(logits, targets) + self.alpha * learnt


def make_distillation(
    config: TrainConfig,
    task: Task,
    class_names: Sequence[str],
    preprocessing: Preprocessing,
    runtime: Runtime,
) -> Distillation | None:
    """The teacher of the settings on the device of the run; None without one.

    Args:
        config: the settings.
        task: of the run; the teacher must have the same.
        class_names: of the training images; the teacher must have the same.
        preprocessing: of the run.
        runtime: device and arithmetic.

    Raises:
        InputError: the teacher cannot be used; a UsageError if the task takes none.
    """
    if config.teacher is None:
        return None
    if type(task).distillation is Task.distillation:
        raise UsageError(f"the task {task.name} cannot learn from a `teacher`")
    file = absolute(config.teacher)
    weights = read_weights(file)
    names = weights.info.class_names if weights.info else ()
    if names:
        check_same_classes(class_names, "the training data", names, f"`teacher` {file}")
    elif weights.num_classes != task.num_outputs(len(class_names)):
        raise InputError(
            f"`teacher` {file}: has {weights.num_classes} classes (without names), but the "
            f"training data has {len(class_names)}"
        )
    net = None if weights.info else config.net  # that of the learner; a teacher may be another
    classifier = make_classifier(weights, file, Choices(net=net, task=task))
    if classifier.preprocessing.reading != preprocessing.reading:
        raise InputError(
            f"`teacher` {file}: reads images with {classifier.preprocessing.reading_note}, but "
            f"this run with {preprocessing.reading_note}; pass the same `depth` and `window`"
        )
    model = classifier.model
    assert isinstance(model, DenseNet)
    smallest = min(*preprocessing.image_size, *(config.small or ()))
    if smallest < model.min_image_size:
        raise InputError(
            f"`teacher` {file}: {classifier.net} needs images of at least {model.min_image_size} "
            f"pixels, but those of this run have {smallest}"
        )
    model.requires_grad_(False)
    model.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert config.alpha is not None and config.temperature is not None
    return Distillation(
        model.eval(),
        classifier.preprocessing,
        preprocessing,
        task,
        config.alpha,
        config.temperature,
        note=f"{file} ({classifier.net})",
    )


def teacher_setting(config: TrainConfig) -> str | None:
    """`teacher` for run.json: its digest, so that a resume sees another teacher."""
    if config.teacher is None:
        return None
    file = absolute(config.teacher)
    return f"file {file_digest(weights_in(file) or file)[:16]}"
