"""Networks of medical imaging: MONAI, torchxrayvision and the reimplementations of CheXNet.

Sources: ``monai/networks/nets/densenet.py`` (MONAI 1.6.1); ``torchxrayvision/models.py``,
``datasets.py`` and ``utils.py`` (1.5.7); arnoweng/CheXNet ``model.py`` and zoogzog/chexnet
``DensenetModels.py``.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densenet121.datasets.preprocessing import Preprocessing
from densenet121.utils.errors import InputError, some

# ``datasets.default_pathologies`` of torchxrayvision: the labels of its networks with 18 outputs.
XRAY_LABELS = (
    "Atelectasis",
    "Consolidation",
    "Infiltration",
    "Pneumothorax",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Effusion",
    "Pneumonia",
    "Pleural_Thickening",
    "Cardiomegaly",
    "Nodule",
    "Mass",
    "Hernia",
    "Lung Lesion",
    "Fracture",
    "Lung Opacity",
    "Enlarged Cardiomediastinum",
)
# ``CLASS_NAMES`` of arnoweng/CheXNet and zoogzog/chexnet, for networks with 14 outputs.
CHEXNET_LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
OP_THRESHS = "op_threshs"  # buffer of torchxrayvision's networks, beside the parameters
LABELS = "labels"  # what ``convert`` stores beside the state dict
# (2 g / 255 - 1) 1024 is (g - 127.5) / (255 / 2048) for a grey level g; both are exact in fp32.
# XRayCenterCrop, then XRayResizer(224), whose antialiasing filter is another than Pillow's.
XRAY_PREPROCESSING = Preprocessing(
    (224, 224), "short:224", (127.5,) * 3, (255 / 2048,) * 3, "pillow_bilinear"
)
# Assumed, because the files record none: MONAI's ScaleIntensity and Resize to 224.
MONAI_PREPROCESSING = Preprocessing(
    (224, 224), "224,224", (0.0,) * 3, (255.0,) * 3, "pillow_bilinear"
)
_FIRST = "features.conv0.weight"
_MONAI_LAYER = re.compile(r"^(features\.denseblock\d+\.denselayer\d+)\.layers\.")
_LAYER = re.compile(r"^(features\.denseblock\d+\.denselayer\d+)\.")


def is_monai(names: set[str]) -> bool:
    """Whether these are the names of MONAI's DenseNets."""
    return {_FIRST, "features.denseblock1.denselayer1.layers.conv1.weight"} <= names


def is_torchxrayvision(tensors: Mapping[str, Tensor], program: str) -> bool:
    """Whether they have torchxrayvision's thresholds, its name, or its one channel and 18 outputs.

    All other names are torchvision's.
    """
    first, head = tensors[_FIRST], tensors.get("classifier.weight")
    usual = first.ndim == 4 and first.shape[1] == 1 and head is not None and head.ndim == 2
    return (
        OP_THRESHS in tensors
        or program == "torchxrayvision"
        or (usual and head is not None and head.shape[0] == len(XRAY_LABELS))
    )


def is_chexnet(names: set[str], prefix: str) -> bool:
    """Whether they are a ``densenet121`` within another module, with a head in a Sequential."""
    within = re.search(r"(^|\.)densenet(121|161|169|201)\.$", prefix)
    return within is not None and "classifier.0.weight" in names


def from_monai(name: str) -> str:
    """From MONAI's ``denselayer1.layers.norm1`` and ``class_layers.out``."""
    return _MONAI_LAYER.sub(r"\1.", name).replace("class_layers.out.", "classifier.")


def to_monai(name: str) -> str:
    """Our name to MONAI's."""
    return _LAYER.sub(r"\1.layers.", name).replace("classifier.", "class_layers.out.")


def check_monai(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse what MONAI's DenseNet can be, but ours cannot.

    Raises:
        InputError: the network is not for images, or does not have batch norms.
    """
    dimensions = tensors[_FIRST].ndim - 2
    if dimensions != 2:
        raise InputError(
            f"{path}: is a network of MONAI with spatial_dims {dimensions}; only spatial_dims 2, "
            "a network for images, is supported"
        )
    if "features.norm0.running_mean" not in tensors:
        raise InputError(
            f"{path}: is a network of MONAI with another norm than batch, which is not supported"
        )


def split_op_threshs(
    state_dict: dict[str, Tensor], path: Path, beside: Mapping[str, Any]
) -> tuple[dict[str, Tensor], tuple[str, ...], tuple[float, ...], str]:
    """The outputs that torchxrayvision uses, with their labels and thresholds.

    An output whose threshold is nan was not trained: torchxrayvision has no label for it and
    answers 0.5. Such outputs are left out.

    Args:
        state_dict: by our names.
        path: the file, for errors.
        beside: other content of the file; ``labels`` are the labels of the outputs.

    Returns:
        The state dict without op_threshs, labels (empty if unknown), thresholds (empty without),
        and a sentence on the outputs that are left out (empty without).

    Raises:
        InputError: a threshold cannot be one.
    """
    state_dict = dict(state_dict)
    given = state_dict.pop(OP_THRESHS, None)
    weight, bias = (state_dict.get(f"classifier.{part}") for part in ("weight", "bias"))
    if weight is None or bias is None or weight.ndim != 2 or bias.shape != weight.shape[:1]:
        return state_dict, (), (), ""
    outputs = weight.shape[0]
    labels = _labels_beside(beside, outputs)
    if given is None or given.device.type == "meta":
        return state_dict, labels, (), ""
    thresholds = given.double().reshape(-1).tolist()
    kept = [k for k, value in enumerate(thresholds) if not math.isnan(value)]
    if len(thresholds) != outputs or not kept or not all(0 < thresholds[k] < 1 for k in kept):
        raise InputError(
            f"{path}: {OP_THRESHS} must be {outputs} numbers between 0 and 1, or nan for outputs "
            "without a label"
        )
    if len(kept) == outputs:
        return state_dict, labels, tuple(thresholds), ""
    at = torch.tensor(kept)
    state_dict |= {"classifier.weight": weight[at], "classifier.bias": bias[at]}
    names = labels or tuple(map(str, range(outputs)))
    dropped = [names[k] for k in range(outputs) if k not in kept]
    said = f"{len(dropped)} outputs without a threshold are left out: {some(dropped, 18)}"
    return (
        state_dict,
        tuple(labels[k] for k in kept) if labels else (),
        tuple(thresholds[k] for k in kept),
        said,
    )


def _labels_beside(beside: Mapping[str, Any], outputs: int) -> tuple[str, ...]:
    """The labels in the file, else the library's for 18 outputs, else none."""
    labels = beside.get(LABELS)
    if not isinstance(labels, list | tuple) or not all(isinstance(name, str) for name in labels):
        labels = ()
    if len(set(labels)) == outputs:
        return tuple(labels)
    return XRAY_LABELS if outputs == len(XRAY_LABELS) else ()
