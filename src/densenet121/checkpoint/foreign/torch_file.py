"""State dicts in torch's own files, read without running anything that is in them."""

import argparse
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densenet121.utils.errors import InputError

# Where training scripts keep the weights, in the order in which they are taken: the plain ones go
# before their moving average.
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "state_dict_ema",
    "model_ema",
)
# The first convolution of torchvision and timm, of mmpretrain, and of the CIFAR networks.
_FIRST = ("features.conv0.weight", "stem.0.weight", "conv1.weight")


def is_torch_file(path: Path) -> bool:
    """A zip archive, or the pickle of torch before 1.6."""
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file may begin with these bytes too: they are the length of its header, "{...}".
    return start.startswith((b"PK\3\4", b"\x80\2")) and start[8:] != b"{"


def read_torch_file(path: Path, *, mmap: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict of a torch file, and what stands beside it (epoch, arch, ...).

    Args:
        path: the file.
        mmap: leave the tensors' content on disk until it is used.

    Raises:
        InputError: damaged, without a state dict, or it cannot be read without running code.
    """
    try:
        # A Namespace holds a training script's flags; making one sets attributes and no more.
        safe = torch.serialization.safe_globals([argparse.Namespace])
        with safe, warnings.catch_warnings(action="ignore"):  # of the age of the file
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap or None)
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
    beside: dict[str, Any] = {}
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            beside |= {k: v for k, v in content.items() if not isinstance(v, dict | Tensor)}
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds {type(content).__name__}, where a state dict is needed")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(
                f"{path}: {name!r} is {type(value).__name__}, where a tensor is needed"
            )
        if (not value.is_sparse and value.layout != torch.strided) or value.is_quantized:
            raise InputError(f"{path}: {name!r} is sparse or quantised, which is not read")
    return content, beside


def without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without what DataParallel, Lightning, compile and averaging put in front of them.

    The prefix is what stands before the first convolution. A name without it stays as it is, so
    that it is found to be unexpected.
    """
    if any(name.endswith(".gamma") for name in tensors):  # MindSpore's own prefixes mean something
        return tensors
    prefix = ""
    for first in _FIRST:
        found = [name.removesuffix(first) for name in tensors if f".{name}".endswith(f".{first}")]
        if found:
            prefix = min(found, key=len).removesuffix("backbone.")
            break
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name != "n_averaged"}
