"""Weights from a file into a network, or a clear word on why they do not fit."""

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densenet121.checkpoint.native import METADATA_KEY, ModelInfo, read, read_safetensors
from densenet121.network import DenseNet, Variant, build
from densenet121.utils.errors import InputError

# torchvision's files of before 2018 write norm.1 where its code says norm1.
_DOTTED = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(1|2)\.")
_WRAPPERS = ("state_dict", "model")


@dataclass(frozen=True)
class Weights:
    """Parameters and buffers under torchvision's names.

    Attributes:
        state_dict: name to tensor.
        info: network, variant, classes and preprocessing; None where the file does not tell them.
        origin: epoch, step and score they come from, where the file tells.
        calibration: what `calibrate` added, as plain JSON values.
    """

    state_dict: dict[str, Tensor]
    info: ModelInfo | None
    origin: dict[str, Any]
    calibration: dict[str, Any] | None = None

    @property
    def num_classes(self) -> int | None:
        """Rows of the classifier, None without one."""
        classifier = self.state_dict.get("classifier.weight")
        return None if classifier is None else int(classifier.shape[0])


def read_weights(path: Path) -> Weights:
    """Read weights: this program's ``.ckpt`` and ``.safetensors``, or torchvision's state dict.

    A torchvision-style state dict may come as safetensors or as a torch file, bare or under
    ``state_dict`` or ``model``, with DataParallel's ``module.`` and with the dotted names of old
    files. Nothing in a file is ever executed.

    Raises:
        InputError: missing, damaged, or of another format.
    """
    if path.is_dir():
        raise InputError(f"{path}: a folder, where one weights file is needed")
    if not path.exists():
        raise InputError(f"{path}: there is no such file; weights were asked for by --pretrained")
    if _is_torch_file(path):
        return Weights(_torchvision_names(_read_torch_file(path), path), None, {})
    tensors, metadata = read_safetensors(path)
    if METADATA_KEY not in metadata:
        return Weights(_torchvision_names(tensors, path), None, {})
    kind, tensors, content = read(path)
    if kind == "checkpoint":
        prefix = "model."
        tensors = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
    info = ModelInfo.from_json(content["model"])
    return Weights(tensors, info, content.get("origin", {}), content.get("calibration"))


def load_state(model: DenseNet, state_dict: Mapping[str, Tensor], source: Path | str) -> None:
    """Copy every parameter and buffer into the network; nothing may be missing or left over.

    Raises:
        InputError: an unknown or missing name, or a shape that differs, naming the first.
    """
    own = model.state_dict()
    # Files from other frameworks do not count batches; the count starts at nought then.
    missing = [n for n in own if n not in state_dict and not n.endswith("num_batches_tracked")]
    unknown = [name for name in state_dict if name not in own]
    blocks = "/".join(str(layers) for layers in model.block_config)
    if unknown:
        raise InputError(
            f'{source}: unknown parameter "{unknown[0]}" ({len(unknown)} in all); the network '
            f"wanted has blocks of {blocks} layers: choose another --net?"
        )
    if missing:
        raise InputError(
            f'{source}: parameter "{missing[0]}" is missing ({len(missing)} in all); the network '
            f"wanted has blocks of {blocks} layers: choose another --net?"
        )
    for name, tensor in state_dict.items():
        if tensor.shape != own[name].shape:
            hint = f"; pass --num_classes {tensor.shape[0]}" if name == "classifier.weight" else ""
            raise InputError(
                f"{source}: {name} has shape {tuple(tensor.shape)}, the network wants "
                f"{tuple(own[name].shape)}{hint}"
            )
    model.load_state_dict(state_dict, strict=False)


def load_model(
    path: str | Path, *, net: str = "densenet121", variant: Variant = "paper"
) -> DenseNet:
    """The network a weights file holds, in evaluation mode.

    Args:
        path: any file that ``read_weights`` reads.
        net: the network, for files that do not tell it.
        variant: likewise the variant.

    Raises:
        InputError: the file cannot be used.
    """
    weights = read_weights(Path(path))
    if weights.num_classes is None:
        raise InputError(f'{path}: no "classifier.weight": these are not weights of a DenseNet')
    if weights.info is not None:
        net, variant = weights.info.net, weights.info.variant
    model = build(net, num_classes=weights.num_classes, variant=variant)
    load_state(model, weights.state_dict, path)
    return model.eval()


def _is_torch_file(path: Path) -> bool:
    """A zip archive, or the pickle of torch before 1.6."""
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file may begin with these bytes too: they are the length of its header, "{...}".
    return start.startswith((b"PK\3\4", b"\x80\2")) and start[8:] != b"{"


def _read_torch_file(path: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of the age of the file
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise nearly anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, pickle.UnpicklingError):  # whose first line is how to run it all
            code = re.search(r"GLOBAL (\S+)", str(error))
            if code:
                raise InputError(
                    f"{path}: refused, reading it would run code ({code[1]}); only a state dict, "
                    "tensors by name, is read"
                ) from None
            reason = "its pickle cannot be read"
        raise InputError(f"{path}: damaged or not a torch file ({reason})") from None
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds {type(content).__name__}, where a state dict is needed")
    return content


def _torchvision_names(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    state_dict = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(
                f"{path}: {name!r} is {type(value).__name__}, where a tensor is needed"
            )
        state_dict[_DOTTED.sub(r"\1\2.", name.removeprefix("module."))] = value
    if "features.conv0.weight" not in state_dict:
        raise InputError(
            f'{path}: no "features.conv0.weight" in it: not this program\'s file and not '
            "torchvision's DenseNet, the formats this version reads"
        )
    return state_dict
