"""Two classes as one label: the same network with one logit, for which thresholds can be chosen."""

import copy
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from densenet121.checkpoint.native import DEFAULT_TASK, ModelInfo
from densenet121.checkpoint.pretrained import Pretrained
from densenet121.utils.errors import UsageError, some


def as_one_label(
    loaded: Pretrained, info: ModelInfo, positive: str, source: Path
) -> tuple[ModelInfo, Pretrained]:
    """The weights with the label ``positive``, whose sigmoid is that class's softmax.

    The logit is the difference of the two, ``(w1 - w0) x + b1 - b0``, computed in float64 and
    rounded once. A calibration is kept; the caller decides on it.

    Args:
        loaded: weights of two classes.
        info: their description.
        positive: the class that becomes the label.
        source: the weights file, for messages.

    Raises:
        UsageError: the weights have other outputs, or no class of this name.
    """
    outputs = loaded.model.num_classes
    if info.task != DEFAULT_TASK or outputs != 2:
        raise UsageError(
            f"{source}: `positive_class` is for one class per image of two, but these weights have "
            f"{outputs} outputs of the task {info.task}; omit it"
        )
    if not info.class_names:
        raise UsageError(
            f"{source}: does not record which output is {positive} (`positive_class`); pass "
            "`class_names`, a file with both names in the order of the outputs"
        )
    if positive not in info.class_names:
        raise UsageError(
            f"{source}: no class is called {positive} (`positive_class`); its classes are "
            f"{some(list(info.class_names))}"
        )
    model = copy.deepcopy(loaded.model)
    one = info.class_names.index(positive)
    old = model.classifier
    classifier = nn.Linear(old.in_features, 1)
    with torch.no_grad():
        for name in ("weight", "bias"):
            values = getattr(old, name).double()
            getattr(classifier, name).copy_(values[one : one + 1] - values[1 - one])
    model.classifier, model.num_classes = classifier.eval(), 1
    new = replace(info, class_names=(positive,), task="multilabel")
    # The fingerprints are of images with the two classes: see `splits_of`.
    names = list(info.class_names)
    data = {split: {**note, "classes": names} for split, note in loaded.data.items()}
    return new, replace(loaded, model=model, data=data)
