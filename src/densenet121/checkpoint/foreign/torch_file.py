"""Read state dicts from torch's own files without running any code in them."""

import pickle
import re
import shlex
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densenet121.checkpoint.foreign.inert import stand_ins
from densenet121.checkpoint.foreign.names import renamed
from densenet121.utils.errors import InputError

# Where training scripts store the weights, in order of preference: the weights themselves before
# their moving average.
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "state_dict_ema",
    "model_ema",
)
# Whole networks of these are often passed on.
_LIBRARIES = ("torchxrayvision", "monai", "torchvision", "timm")
# The first convolution of torchvision and timm, of mmpretrain, and of the CIFAR networks.
_FIRST = ("features.conv0.weight", "stem.0.weight", "conv1.weight")


def is_torch_file(path: Path) -> bool:
    """Whether it is a zip archive, or a pickle from torch before 1.6."""
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file may also begin with these bytes, the length of its header "{...}".
    return start.startswith((b"PK\3\4", b"\x80\2")) and start[8:] != b"{"


def _is_from_before_1_6(path: Path) -> bool:
    with path.open("rb") as file:
        return not file.read(4).startswith(b"PK\3\4")


def read_torch_file(path: Path, *, mmap: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict of a torch file, and the other values in it (epoch, arch, ...).

    Args:
        path: the file.
        mmap: leave the tensors' content on disk until it is used; a file from torch before 1.6 is
            read whole.

    Raises:
        InputError: damaged, without a state dict, or not readable without running code.
    """
    mmap = mmap and not _is_from_before_1_6(path)
    try:
        safe = torch.serialization.safe_globals(stand_ins())
        with safe, warnings.catch_warnings(action="ignore"):  # about the age of the file
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap or None)
    except Exception as error:  # a damaged file makes torch raise exceptions of almost any type
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, pickle.UnpicklingError):  # its first line advises to run all code
            code = re.search(r"GLOBAL (\S+)", str(error))
            if code:
                raise InputError(
                    f"{path}: refused, because reading it would run code ({code[1]}); save a state "
                    f"dict (tensors by name) instead{_conversion(path, code[1])}"
                ) from None
            reason = "its pickle cannot be read"
        raise InputError(f"{path}: damaged or not a torch file ({reason})") from None
    beside: dict[str, Any] = {}
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            beside |= {k: v for k, v in content.items() if not isinstance(v, dict | Tensor)}
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: is of type {type(content).__name__}, but a state dict is needed")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(
                f"{path}: {name!r} is of type {type(value).__name__}, but a tensor is needed"
            )
        if value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
            raise InputError(
                f"{path}: {name!r} is sparse, quantised or without content; save a state dict of "
                "plain tensors"
            )
    return content, beside


def _conversion(path: Path, global_name: str) -> str:
    """The command that makes a state dict of a whole pickled network of a known library."""
    library = global_name.partition(".")[0]
    if library not in _LIBRARIES:
        return ""
    new = shlex.quote(str(path.with_name(f"{path.stem}-state.pth")))
    code = (
        "import sys, torch; m = torch.load(sys.argv[1], map_location='cpu', weights_only=False); "
        f"torch.save({{'arch': '{library}', 'state_dict': m.state_dict()}}, sys.argv[2])"
    )
    return (
        f"; if you trust the file, run this where {library} is installed: "
        f'python -c "{code}" {shlex.quote(str(path))} {new}'
    )


def prefix_of(tensors: Mapping[str, Tensor]) -> str:
    """What precedes the name of the first convolution."""
    for first in _FIRST:
        found = [name.removesuffix(first) for name in tensors if f".{name}".endswith(f".{first}")]
        if found:
            return min(found, key=len).removesuffix("backbone.")
    return ""


def without_prefix(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Remove the prefix that DataParallel, Lightning, compile and averaging add to the names.

    A name without it is unchanged, so that it is later reported as unexpected.

    Raises:
        InputError: a name is there with the prefix and without it.
    """
    if any(name.endswith(".gamma") for name in tensors):  # MindSpore's prefixes have a meaning
        return tensors
    prefix = prefix_of(tensors)
    kept = {name: tensor for name, tensor in tensors.items() if name != "n_averaged"}
    return renamed(kept, lambda name: name.removeprefix(prefix), path)
