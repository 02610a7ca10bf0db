"""What the outputs of another program's network mean, and which layer they come from."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from densenet121.checkpoint.foreign.medical import CHEXNET_LABELS, split_op_threshs
from densenet121.checkpoint.foreign.timm_config import CONFIG, TimmConfig
from densenet121.checkpoint.native import named_twice
from densenet121.utils.errors import InputError, some

Family = Literal[
    "native",
    "torchvision",
    "timm",
    "keras",
    "mmpretrain",
    "mindspore",
    "mindcv",
    "densenet-bc",
    "monai",
    "torchxrayvision",
    "chexnet",
]

# A softmax of one output is 1 whatever the image shows, so one output was never trained with it.
ONE_OUTPUT = (
    "its one output is assumed to be the logit of one label, whose probability is a sigmoid"
)


@dataclass(frozen=True)
class Labels:
    """The part of Foreign that concerns the outputs."""

    task: str = "single_label"
    class_names: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


def labels_of(
    family: Family,
    state_dict: dict[str, Tensor],
    path: Path,
    beside: Mapping[str, Any],
    config: TimmConfig | None = None,
) -> tuple[dict[str, Tensor], Labels]:
    """The state dict with the outputs that are used, and what they mean.

    Raises:
        InputError: config.json has more or fewer names than the network has outputs, or one twice.
    """
    state_dict, labels = _documented(family, state_dict, path, beside, config)
    if labels.task == "single_label" and _has_one_output(state_dict):
        labels = replace(labels, task="multilabel", notes=(*labels.notes, ONE_OUTPUT))
    return state_dict, labels


def _has_one_output(state_dict: Mapping[str, Tensor]) -> bool:
    head, last = state_dict.get("classifier.weight"), state_dict.get("features.norm5.weight")
    if head is None or head.ndim != 2 or len(head) != 1:
        return False
    return last is None or head.shape[1] == last.shape[0]  # else it follows a hidden layer


def _told_apart(names: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The names, those of several outputs with the output's number; and a note of it.

    Of ImageNet's 1,000 usual names "crane" and "maillot" are two classes each.
    """
    twice = named_twice(names)
    if not twice:
        return tuple(names), []
    counts = Counter(names)
    numbered = [f"{name} ({i})" if counts[name] > 1 else name for i, name in enumerate(names)]
    return tuple(numbered), [
        f"{twice} of its label_names; the number of the output tells them apart"
    ]


def _documented(
    family: Family,
    state_dict: dict[str, Tensor],
    path: Path,
    beside: Mapping[str, Any],
    config: TimmConfig | None,
) -> tuple[dict[str, Tensor], Labels]:
    """By what the program documents; one class per image where it says nothing."""
    if config is not None:
        head = state_dict.get("classifier.weight")
        if config.class_names and head is not None and len(head) != len(config.class_names):
            raise InputError(
                f"{path.with_name(CONFIG)}: has {len(config.class_names)} label_names, but the "
                f"network in {path.name} has {len(head)} outputs"
            )
        names, told_apart = _told_apart(config.class_names)
        return state_dict, Labels(config.task, names, notes=(*config.notes, *told_apart))
    if family == "torchxrayvision":
        state_dict, names, thresholds, dropped = split_op_threshs(state_dict, path, beside)
        notes = [dropped] if dropped else []
        if thresholds:
            notes.append(
                "its op_threshs are the thresholds of the labels; probabilities are those of the "
                "sigmoid, which torchxrayvision rescales so that a threshold is shown as 0.5"
            )
        return state_dict, Labels("multilabel", names, thresholds, tuple(notes))
    if family == "chexnet":
        head = state_dict.get("classifier.weight")
        known = head is not None and head.ndim == 2 and head.shape[0] == len(CHEXNET_LABELS)
        return state_dict, Labels("multilabel", CHEXNET_LABELS if known else ())
    if family == "monai":
        task = "," if _has_one_output(state_dict) else ", and one class per image"
        said = "MONAI records no preprocessing and no task: whole images of 224 x 224, scaled to 0 "
        return state_dict, Labels(notes=(f"{said}to 1{task} are assumed",))
    return state_dict, Labels()


def one_linear_head(
    state_dict: dict[str, Tensor], *, may_lack_bias: bool = True
) -> dict[str, Tensor]:
    """The state dict, with one linear layer within a ``classifier`` as the classifier.

    It is the same function up to the logits. A Sequential often holds one linear layer after a
    dropout, or before a sigmoid or softmax. A layer without a bias is one whose bias is 0, unless
    the format of the file cannot tell that from one that was cut short before it.
    """
    head = {name for name in state_dict if not name.startswith("features.")}
    layers = {name.rpartition(".")[0] for name in head} - {""}
    layer = next(iter(layers), "")
    weight, last = state_dict.get(f"{layer}.weight"), state_dict.get("features.norm5.weight")
    if (
        not re.fullmatch(r"classifier(\.\w+)?", layer)
        or not head <= {f"{layer}.weight", f"{layer}.bias"}
        or not (may_lack_bias or f"{layer}.bias" in head)
        or weight is None
        or last is None
        or weight.ndim != 2
        or weight.shape[1] != last.shape[0]
    ):
        return state_dict
    bias = f"{layer}.bias"
    named = state_dict if bias in head else state_dict | {bias: weight.new_zeros(len(weight))}
    return {name.replace(f"{layer}.", "classifier."): t for name, t in named.items()}


def without_training(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors without those of a loss and of metrics, which Lightning saves too; and notes.

    They weigh classes in training or count answers, and take no part in a prediction.
    """
    loss = [name for name in tensors if _of_loss(name)]
    metrics = _counts(tensors)
    left_out = {*loss, *metrics}
    kept = {name: tensor for name, tensor in tensors.items() if name not in left_out}
    found = {"the loss": loss, "counts of a metric": metrics}
    said = (f"of {what}, and so left out: {some(n, 4)}" for what, n in found.items() if n)
    return kept, tuple(said)


def _of_loss(name: str) -> bool:
    *modules, last = name.lower().split(".")
    words = {word for module in modules for word in module.split("_")}
    return bool(words & {"loss", "criterion"}) or last in ("pos_weight", "class_weights")


def _counts(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the integers of modules that have nothing else, such as ``val_f1.tp``.

    A ``weight`` or ``bias`` of integers is a quantised one, which is refused later by its name.
    """
    others = {
        name.rpartition(".")[0]
        for name, tensor in tensors.items()
        if tensor.is_floating_point() or name.endswith(("weight", "bias", "num_batches_tracked"))
    }
    return [name for name in tensors if "." in name and name.rpartition(".")[0] not in others]
