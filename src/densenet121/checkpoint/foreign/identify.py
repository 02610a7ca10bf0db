"""Identify the program that weights come from by their names; its networks and preprocessing."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from densenet121.checkpoint.channels import CONV0
from densenet121.checkpoint.foreign.keras_config import KerasConfig, read_keras_config
from densenet121.checkpoint.foreign.keras_scale import split_statistics
from densenet121.checkpoint.foreign.labels import (
    Family,
    labels_of,
    one_linear_head,
    without_training,
)
from densenet121.checkpoint.foreign.medical import (
    MONAI_PREPROCESSING,
    XRAY_PREPROCESSING,
    check_monai,
    from_monai,
    is_chexnet,
    is_monai,
    is_torchxrayvision,
)
from densenet121.checkpoint.foreign.names import (
    MINDSPORE_STATE,
    from_densenet_bc,
    from_mindspore,
    from_mmpretrain,
    from_torchvision,
    mindspore_copies,
    network_of,
    renamed,
)
from densenet121.checkpoint.foreign.timm_config import TimmConfig, read_config
from densenet121.checkpoint.foreign.timm_network import of_training, other_function, other_pooling
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.network import FOR_SMALL_IMAGES, Variant
from densenet121.utils.errors import InputError, one_line

_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
_224 = (224, 224)
_MEAN_OF_THREE = (
    "the network has one channel, but timm has three means and deviations for it, which differ: "
    "their means are used, as timm's loader does"
)

# The preprocessing that each program documents for the evaluation of its DenseNets:
# torchvision: DenseNet121_Weights.IMAGENET1K_V1.transforms(); timm: models/densenet.py's _cfg;
# keras: applications' examples, load_img(target_size=(224, 224)) with its default interpolation;
# mmpretrain: configs/_base_/datasets/imagenet_bs64.py; mindspore: the original's classification.py;
# mindcv: data/transforms_factory.py with configs/densenet; densenet-bc: the CIFAR training scripts;
# chexnet: model.py, which averages ten crops (`tta` ten_crop).
PREPROCESSING: dict[Family, Preprocessing] = {
    "torchvision": Preprocessing(_224, "short:256", _MEAN, _STD, "pillow_bilinear"),
    "timm": Preprocessing(_224, "short:256", _MEAN, _STD, "pillow_bicubic"),
    "keras": Preprocessing(_224, "224,224", _MEAN, _STD, "pillow_nearest"),
    "mmpretrain": Preprocessing(_224, "short:256", _MEAN, _STD, "opencv_bilinear"),
    "mindspore": Preprocessing(_224, "256,256", _MEAN, _STD, "opencv_bilinear"),
    "mindcv": Preprocessing(_224, "short:256", _MEAN, _STD, "opencv_bilinear"),
    "densenet-bc": Preprocessing(
        (32, 32),
        "32,32",
        (0.4914 * 255, 0.4822 * 255, 0.4465 * 255),
        (0.2470 * 255, 0.2435 * 255, 0.2616 * 255),
        "opencv_bilinear",
    ),
    "monai": MONAI_PREPROCESSING,
    "torchxrayvision": XRAY_PREPROCESSING,
    "chexnet": Preprocessing(_224, "short:256", _MEAN, _STD, "pillow_bilinear"),
}
_RENAME: dict[Family, Callable[[str], str]] = {
    "torchvision": from_torchvision,
    "timm": from_torchvision,
    "keras": lambda name: name,
    "mmpretrain": from_mmpretrain,
    "mindspore": from_mindspore,
    "mindcv": from_mindspore,
    "densenet-bc": from_densenet_bc,
    "monai": from_monai,
    "torchxrayvision": from_torchvision,
    "chexnet": from_torchvision,
}


@dataclass(frozen=True)
class Foreign:
    """Weights of another program under our names.

    Attributes:
        family: the program.
        state_dict: parameters and statistics.
        momentum: momentum of SGD, by our names; may be empty.
        state: numbers of a training run, such as global_step.
        net: the network; None if no known network has these blocks.
        variant: variant of the pooling.
        variant_is_certain: True if the names determine it; else it is this program's usual one.
        preprocessing: as the program documents it; None for a network that it does not have.
        task: name of the task.
        class_names: names of the outputs; empty if the program documents none.
        thresholds: of several labels, probabilities from which on they are positive; may be empty.
        notes: sentences on what is assumed, changed or left out.
    """

    family: Family
    state_dict: dict[str, Tensor]
    momentum: dict[str, Tensor]
    state: dict[str, Any]
    net: str | None
    variant: Variant
    variant_is_certain: bool
    preprocessing: Preprocessing | None
    task: str = "single_label"
    class_names: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


def identify(
    tensors: Mapping[str, Tensor],
    path: Path,
    beside: Mapping[str, Any],
    family: Family | None,
    prefix: str = "",
) -> Foreign:
    """Identify weights and give them our names.

    Args:
        tensors: the tensors by the other program's names.
        path: path of the file, for errors and because its name is a hint.
        beside: other content of the file.
        family: the program, if the file format determines it.
        prefix: what was removed from the front of all names.

    Raises:
        InputError: the names are not those of a DenseNet, or two map to the same name.
    """
    if "features.conv1.weight" in tensors and "features.conv0.weight" in tensors:
        raise InputError(
            f"{path}: weights of densenetblur121d (timm: three convolutions in the stem) or "
            "densenet264d; these networks are not supported"
        )
    family = family or _family(tensors, path, beside, prefix)
    momentum, state = dict[str, Tensor](), dict[str, Any]()
    of_training: tuple[str, ...] = ()
    if family in ("mindspore", "mindcv"):
        tensors, momentum, state, of_training = _of_mindspore(tensors, path)
    tensors, statistics = split_statistics(tensors)
    tensors, beside_network = without_training(tensors)
    state_dict = renamed(tensors, _RENAME[family], path)
    if family == "monai":
        check_monai(state_dict, path)
    config = read_config(path) if family == "timm" else None
    described = read_keras_config(path, statistics) if family == "keras" else KerasConfig()
    pooling = config.pooling if config else described.pooling or _of_flags(beside, path)
    state_dict = _after_pooling(state_dict, pooling)
    certain = config is not None or family not in ("mindcv", "torchvision", "timm")
    # A .ckpt of MindSpore has no length, and its last tensor is the bias.
    state_dict = one_linear_head(state_dict, may_lack_bias=family not in ("mindspore", "mindcv"))
    state_dict, labels = labels_of(family, state_dict, path, beside, config)
    preprocessing, notes = _preprocessing(state_dict, family, path, config, described)
    net = network_of(state_dict)
    if (net in FOR_SMALL_IMAGES) != (family == "densenet-bc"):
        preprocessing = None  # the program has no such network, so no documented preprocessing
    return Foreign(
        family,
        state_dict,
        momentum,
        state,
        net,
        "model_zoo" if family == "mindspore" and net not in FOR_SMALL_IMAGES else "paper",
        certain,
        preprocessing,
        described.task or labels.task,
        labels.class_names,
        labels.thresholds,
        (*of_training, *beside_network, *notes, *described.notes, *labels.notes),
    )


def _of_mindspore(
    tensors: Mapping[str, Tensor], path: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any], tuple[str, ...]]:
    """Weights, momentum by our names, numbers of the run, and a note of what is left out."""
    momentum = {n: t for n, t in tensors.items() if n.startswith("moments.")}
    state = {n: t for n, t in tensors.items() if n in MINDSPORE_STATE}
    rest = {n: t for n, t in tensors.items() if n not in momentum and n not in state}
    copies = dict.fromkeys(mindspore_copies(rest))
    kept = {n: t for n, t in rest.items() if n not in copies}
    words = ", ".join(dict.fromkeys(name.partition(".")[0] for name in copies))
    said = f"an optimiser's or an average's values of each parameter are left out: {words}"
    momentum = renamed(momentum, lambda n: from_mindspore(n.removeprefix("moments.")), path)
    return kept, momentum, state, (said,) if copies else ()


def _of_flags(beside: Mapping[str, Any], path: Path) -> str:
    """The pooling, if it is another, that the flags of timm's training name beside the weights.

    Raises:
        InputError: they name a network that ours is not.
    """
    flags = of_training(beside)
    try:
        other, pooling = other_function(flags), other_pooling(flags)
    except (TypeError, ValueError):  # of another program
        return ""
    if other:
        raise InputError(
            f"{path}: the flags of its training say that its network has {other}, which does not "
            "show in the weights, and would give wrong results here; take other weights"
        )
    return pooling


def _after_pooling(state_dict: dict[str, Tensor], pooling: str) -> dict[str, Tensor]:
    """The classifier after another pooling than the average as another head, which it is."""
    if not pooling:
        return state_dict
    head = "classifier."
    return {f"{pooling}.{n}" if n.startswith(head) else n: t for n, t in state_dict.items()}


def _preprocessing(
    state_dict: Mapping[str, Tensor],
    family: Family,
    path: Path,
    config: TimmConfig | None,
    described: KerasConfig,
) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """The preprocessing for the channels of the network, and what is assumed.

    Raises:
        InputError: the images have neither one nor three channels.
    """
    preprocessing = config.preprocessing if config else described.applied(PREPROCESSING[family])
    weight = state_dict.get(CONV0)
    if weight is None or weight.ndim != 4 or weight.shape[1] == 3:
        return preprocessing.with_channels(3), ()
    if weight.shape[1] != 1 or family in ("keras", "mindspore", "mindcv"):
        raise InputError(
            f"{path}: is a network for images of {weight.shape[1]} channels; 3, and 1 in the files "
            "of torch, are supported"
        )
    if family in ("torchxrayvision", "monai") or preprocessing.channels == 1:
        return preprocessing.with_channels(1), ()
    if config:  # timm's loader (adapt_to_chs) takes their mean
        three = preprocessing.mean, preprocessing.std
        unequal = any(len(set(values)) > 1 for values in three)
        return preprocessing.with_channels(1), (_MEAN_OF_THREE,) if unequal else ()
    note = "a scale of 0 to 1 is assumed, because the file does not record it"
    return replace(preprocessing, mean=(0.0,), std=(255.0,)), (note,)


def _family(
    tensors: Mapping[str, Tensor], path: Path, beside: Mapping[str, Any], prefix: str
) -> Family:
    names = set(tensors)
    plain = {name.removeprefix("network.") for name in names}
    if "backbone.features.conv0.weight" in plain and any(n.endswith(".gamma") for n in plain):
        return "mindspore"
    if "features.conv0.weight" in plain and any(n.endswith(".gamma") for n in plain):
        return "mindcv"
    if is_monai(names):
        return "monai"
    if CONV0 in names:
        found = [beside.get(key) for key in ("arch", "architecture")]
        names_of_net = [name if isinstance(name, str) else "" for name in found]
        if is_torchxrayvision(tensors, names_of_net[0]):
            return "torchxrayvision"
        if is_chexnet(names, prefix):
            return "chexnet"
        is_timm = read_config(path) is not None or re.search(r"\.(ra|tv)_in1k", path.name)
        return "timm" if is_timm or any("_in1k" in n for n in names_of_net) else "torchvision"
    if names & {"backbone.stem.0.weight", "stem.0.weight"}:
        return "mmpretrain"
    if {"conv1.weight", "block1.layer.0.bn1.weight"} <= names:
        return "densenet-bc"
    first = one_line(next(iter(tensors), "none"))  # a damaged file's
    raise InputError(
        f'{path}: has no "features.conv0.weight" or another DenseNet\'s first convolution, so '
        "these are not weights of torchvision, timm, Keras, mmpretrain, mindcv, MONAI or the model "
        f"zoo (the first tensor is {first})"
    )
