"""A network with weights, and everything that is needed to classify images with it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import ModelInfo
from densenet121.checkpoint.pretrained import load_state
from densenet121.checkpoint.weights import Weights
from densenet121.datasets.grey import NOTE
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.network import DenseNet, Variant, build
from densenet121.network.int8 import Int8Network, check_tensors
from densenet121.runtime import Runtime
from densenet121.tasks import Task, task_named
from densenet121.utils.errors import UsageError

# The original's preprocessing, for weights that do not record theirs.
ORIGINAL = Preprocessing((224, 224), "256,256")


@dataclass(frozen=True)
class Classifier:
    """A network with its classes, preprocessing and task.

    Attributes:
        model: normalised images ``(N, C, H, W)`` to logits ``(N, K)``; in evaluation mode.
        class_names: in the order of the labels; numbers if the weights have no names.
        preprocessing: how each image is prepared.
        task: what the logits mean.
        net: name of the network.
        variant: paper or model_zoo.
        calibration: the task's calibration that `calibrate` stored with the weights, or None.
        arithmetic: float32 or int8, if the network computes in that whatever is asked for.
        notes: of ``Weights``: what was assumed of weights of another program.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    task: Task
    net: str
    variant: Variant
    calibration: Any = None
    arithmetic: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_int8(self) -> bool:
        """Whether it computes in 8-bit integers, which approximate the network exported."""
        return self.arithmetic == "int8"

    @property
    def remarks(self) -> list[str]:
        """What whoever reads the answers should know: a line for each thing."""
        lines = [f"note: {note}" for note in self.notes]
        if self.preprocessing.channels == 1:
            lines.append(f"images are read with {NOTE}")
        if self.is_int8:
            lines.append("int8 weights: answers are approximate")
        return lines


@dataclass(frozen=True)
class Choices:
    """Settings that override those of a weights file; None uses the file's.

    Attributes:
        net: the network, for weights that do not record it (default: densenet121); a contradiction
            is refused.
        variant: paper or model_zoo, for weights that do not record it; a contradiction is refused.
        image_size: height and width of the network's input, in pixels.
        eval_resize: size before the central crop, in the form of the setting ``eval_resize``.
        interpolation: how images are resized.
        tta: views of an image whose probabilities are averaged.
        depth: bits that are used of 16-bit grey samples.
        window: values that become black and white.
        task: the caller's own task.
    """

    net: str | None = None
    variant: Variant | None = None
    image_size: tuple[int, int] | None = None
    eval_resize: str | None = None
    interpolation: str | None = None
    tta: str | None = None
    depth: int | None = None
    window: str | None = None
    task: Task | None = None


def load_classifier(file: Path, choices: Choices, *, any_head: bool = False) -> Classifier:
    """Read a weights file and build the network, as ``make_classifier`` does.

    Raises:
        InputError: the file cannot be used; a UsageError if a choice contradicts it.
    """
    weights = read_weights(file, int8=not any_head)
    return make_classifier(weights, file, choices, any_head=any_head)


def make_classifier(
    weights: Weights, file: Path, choices: Choices, *, any_head: bool = False
) -> Classifier:
    """Build a classifier from weights; ``choices`` override what the file contains.

    Args:
        weights: the weights.
        file: their file, for messages.
        choices: settings that override what the file contains.
        any_head: allow weights without a classifier, or with another head than one linear layer,
            and give them a new one of two classes, which the caller replaces.

    Raises:
        InputError: the weights cannot be used; a UsageError if a choice contradicts them.
    """
    info = weights.info
    if not any_head:
        weights.check_head(file)
    weights.check_finite(file)
    num_classes = weights.num_classes or 2
    if info:
        check_network(file, info, choices, variant_is_certain=weights.variant_is_certain)
    net = info.net if info else choices.net or "densenet121"
    variant = weights.variant_for(choices.variant)
    model = _build(weights, file, net, num_classes, variant)
    recorded = info.preprocessing if info else ORIGINAL.with_channels(weights.channels)
    check_views(file, recorded, choices, calibrated=bool(weights.calibration))
    preprocessing = recorded.changed(
        choices.image_size,
        choices.eval_resize,
        choices.interpolation,
        choices.tta,
        choices.depth,
        choices.window,
    )
    _ = preprocessing.transform  # raises if the crop does not fit
    if min(preprocessing.image_size) < model.min_image_size:
        raise UsageError(
            f"`image_size` must be at least {model.min_image_size} for {net}, got "
            f"{preprocessing.image_size}"
        )
    task = task_named(weights.task, file, choices.task)
    names = (info.class_names if info else ()) or tuple(map(str, range(num_classes)))
    return Classifier(
        model=model.eval(),
        class_names=names,
        preprocessing=preprocessing,
        task=task,
        net=net,
        variant=variant,
        calibration=task.read_calibration(weights.calibration) if weights.calibration else None,
        arithmetic=None if weights.int8 is None else "int8",
        notes=weights.notes,
    )


def _build(
    weights: Weights, file: Path, net: str, num_classes: int, variant: Variant
) -> DenseNet | Int8Network:
    if weights.int8 is not None:
        with torch.device("meta"):
            like = build(
                net, num_classes=num_classes, variant=variant, in_channels=weights.channels
            )
        check_tensors(weights.state_dict, like, weights.int8, file)
        return Int8Network(weights.state_dict, like)
    model = build(net, num_classes=num_classes, variant=variant, in_channels=weights.channels)
    model.float()  # not the caller's default dtype
    state_dict = weights.state_dict if weights.num_classes else weights.with_head_of(model)
    load_state(model, state_dict, file)
    return model


def check_network(
    file: Path, recorded: ModelInfo, choices: Choices, *, variant_is_certain: bool = True
) -> None:
    """Refuse another network or variant than those of a file.

    Raises:
        UsageError: they differ.
    """
    if choices.net not in (None, recorded.net):
        raise UsageError(
            f"`net` is {choices.net}, but {file} has weights of {recorded.net}; pass `net` "
            f"{recorded.net} or omit it"
        )
    if variant_is_certain and choices.variant not in (None, recorded.variant):
        raise UsageError(
            f"`variant` is {choices.variant}, but {file} has weights of {recorded.variant}, which "
            f"give wrong results in the other; pass `variant` {recorded.variant} or omit it"
        )


def check_views(file: Path, recorded: Preprocessing, choices: Choices, *, calibrated: bool) -> None:
    """Refuse other views than those that the probabilities of a file were calibrated with.

    Raises:
        UsageError: they differ.
    """
    if calibrated and choices.tta not in (None, recorded.tta):
        raise UsageError(
            f"`tta` is {choices.tta}, but {file} was calibrated with `tta` {recorded.tta}; omit "
            "`tta`, or take the weights from before calibration or calibrate them anew with it"
        )


class PendingLogits:
    """Logits that the device still computes or copies; the host can prepare the next images."""

    def __init__(self, views: list[Tensor], task: Task, runtime: Runtime) -> None:
        """``views`` are on the device, one for each view of the images."""
        self._task = task
        # To page-locked memory, and only then asynchronous.
        self._views = [view.to("cpu", non_blocking=runtime.pins_memory) for view in views]
        self._copied = None
        if runtime.timed_device is not None:
            self._copied = torch.Event(runtime.timed_device)
            self._copied.record()

    def read(self) -> Tensor:
        """The logits ``(N, K)``, float32 on the CPU. This waits for the device."""
        if self._copied is not None:
            self._copied.synchronize()
        views = self._views
        return views[0] if len(views) == 1 else self._task.mean_of_views(torch.stack(views))


def logits_of(
    model: nn.Module, images: Tensor, preprocessing: Preprocessing, task: Task, runtime: Runtime
) -> Tensor:
    """Logits ``(N, K)`` of prepared pixels: float32, on the CPU.

    With several views of each image, logits of the mean of their probabilities. ``images`` may also
    be normalised already, ``(N, 3, H, W)`` float32, which is one view.
    """
    return begin_logits(model, images, preprocessing, task, runtime).read()


def begin_logits(
    model: nn.Module, images: Tensor, preprocessing: Preprocessing, task: Task, runtime: Runtime
) -> PendingLogits:
    """``logits_of``, without waiting for the device."""
    images = runtime.to_device(images)
    given: Iterable[Tensor]
    if images.is_floating_point():
        given = [images.contiguous(memory_format=torch.channels_last)]
    else:
        given = (preprocessing.normalise(view) for view in preprocessing.views(images))
    found = []
    for normalised in given:
        with runtime.arithmetic():
            logits: Tensor = model(normalised)
        found.append(logits.float())
    return PendingLogits(found, task, runtime)
