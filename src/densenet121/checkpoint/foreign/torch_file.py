"""Read state dicts from torch's own files without running any code in them."""

import errno
import io
import mmap as memory
import pickle
import re
import shlex
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densenet121.checkpoint.foreign.inert import stand_ins
from densenet121.checkpoint.foreign.names import renamed
from densenet121.utils.errors import InputError, some
from densenet121.utils.files import is_utf8
from densenet121.utils.pickles import check_pickle

LARGEST = 4 * 2**30  # bytes of a weights file; DenseNet-121 with its momentum has 66 million
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
# In networks of them; of the CIFAR networks each layer has a convolution of the first one's name.
_WITHIN = (*_FIRST[:2], "block1.layer.0.conv1.weight")
# The layers of ``features`` where a script took them out of their network: ``children()`` numbers
# them (fastai, RadImageNet), and ``network.features.state_dict()`` has them alone.
_TAKEN_OUT = re.compile(r"(?:.*\.)?(?=denseblock1\.denselayer1\.)")
_OF_FEATURES = re.compile(r"(?:conv0|norm0|denseblock\d+|transition\d+|norm5)\.")
_FIRST_ANYWHERE = (*(f".{first}" for first in _FIRST), ".conv0.weight")
_DEEPEST = 4  # dicts around the weights
_PART = 2**20  # bytes that are read at once
_PICKLES = 5  # one after the other, of a file from torch before 1.6


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
        mmap: leave the tensors' content on disk until it is used; a file from torch before 1.6, or
            whose path is not UTF-8, is read whole.

    Raises:
        InputError: damaged, without a state dict, or not readable without running code.
    """
    old = _is_from_before_1_6(path)
    mmap = mmap and not old and is_utf8(path)
    try:
        most = _check_content(path, old, sums=not mmap)
        safe = torch.serialization.safe_globals(stand_ins())
        # About the age of the file. Opened here, because torch opens no path that is not UTF-8.
        with safe, warnings.catch_warnings(action="ignore"), path.open("rb") as file:
            source: Any = str(path) if mmap else file
            content = torch.load(source, map_location="cpu", weights_only=True, mmap=mmap or None)
    except InputError:
        raise
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
        seeks = isinstance(error, OSError) and error.errno == errno.EINVAL
        if "zip archive" in reason or seeks:  # torch's own text is a page about its reader
            reason = "its end is missing or changed; download it or save it again"
        raise InputError(f"{path}: damaged or not a torch file ({reason})") from None
    content, beside = _unwrapped(content, path)
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
        if value.nbytes > most:  # 4 bytes may stand for any number of equal ones
            raise InputError(
                f"{path}: {name!r} has {value.nbytes} bytes, but the file {most}: they are "
                "repeated; save a state dict of plain tensors (clone() them)"
            )
    return content, beside


def _check_content(path: Path, old: bool, *, sums: bool) -> int:
    """Refuse what would crash the reader, never end or fill the memory; bytes of what is in it.

    Args:
        path: the file.
        old: whether it is from torch before 1.6, which wrote no sums.
        sums: compare the content with the sums of the archive, which torch does not look at.

    Raises:
        InputError: it unpacks to more than a weights file may have, or a sum does not match.
        Exception: of almost any type, if the file is damaged; a ValueError if a pickle is endless.
    """
    if old:
        with path.open("rb") as file, memory.mmap(file.fileno(), 0, access=memory.ACCESS_READ) as m:
            for _ in range(_PICKLES):
                if m.tell() < len(m):
                    check_pickle(m)
            return len(m)
    # The reader that torch reads it with: another one may find another pickle in a hostile archive.
    with path.open("rb") as file:
        pickled = torch._C.PyTorchFileReader(file).get_record("data.pkl")
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
        if size > LARGEST:
            raise InputError(f"{path}: unpacks to {size} bytes; the limit is {LARGEST}")
        for member in archive.infolist() if sums else ():
            if member.CRC:  # torch writes 0 where it was told to compute none
                _check_sum(archive, member, path)
    check_pickle(io.BytesIO(pickled))
    return size


def _check_sum(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    with archive.open(member) as file:
        try:
            while file.read(_PART):
                pass
        except zipfile.BadZipFile:
            raise InputError(
                f"{path}: damaged (the CRC of {member.filename} does not match); download it or "
                "save it again"
            ) from None


def _unwrapped(content: Any, path: Path) -> tuple[Any, dict[str, Any]]:
    """The state dict within what a training script saved, and the other values."""
    beside: dict[str, Any] = {}
    for _ in range(_DEEPEST):
        if not isinstance(content, dict):
            break
        inside = {name: value for name, value in content.items() if isinstance(value, dict)}
        wrapper = next((name for name in _WRAPPERS if name in inside), None)
        wrapper = wrapper or _only_network(inside, path)
        if wrapper is None:
            break
        beside |= {k: v for k, v in content.items() if not isinstance(v, dict | Tensor)}
        content = inside[wrapper]
    return content, beside


def _only_network(dicts: Mapping[Any, Mapping[Any, Any]], path: Path) -> Any:
    """The name of the only one that has a network, whatever it is called; None without any."""
    found = [name for name, values in dicts.items() if _has_network(values)]
    if len(found) > 1:
        raise InputError(
            f"{path}: has several networks ({some(list(map(str, found)), 4)}); save a state dict "
            "of the one to use"
        )
    return next(iter(found), None)


def _has_network(values: Mapping[Any, Any], deeper: int = _DEEPEST) -> bool:
    """Whether a first convolution is among them, or in a dict within."""
    firsts = (f".{name}".endswith(_FIRST_ANYWHERE) for name in values if isinstance(name, str))
    within = (value for value in values.values() if isinstance(value, dict))
    return any(firsts) or (deeper > 0 and any(_has_network(v, deeper - 1) for v in within))


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
    return min(_prefixes(tensors), key=len, default="").removesuffix("backbone.")


def _prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    """What precedes the names of the first convolutions, of several networks in the order."""
    for first in _FIRST:
        found = [name.removesuffix(first) for name in tensors if f".{name}".endswith(f".{first}")]
        if found:
            return found
    return []


def _check_one_network(tensors: Mapping[str, Tensor], prefixes: list[str], path: Path) -> None:
    """Refuse tensors of several networks, such as a student's and its teacher's.

    A module that has the layers of another one saves them twice, which is one network.

    Raises:
        InputError: there are several; which of them to use is not in the file.
    """
    used = min(prefixes, key=len, default="")
    others = [p for p in prefixes if p != used and not _are_same(tensors, used, p)]
    if others:
        names = [p.removesuffix(".") or "one without a name" for p in sorted((used, *others))]
        raise InputError(
            f"{path}: has several networks ({some(names, 4)}); save a state dict of the one to use"
        )


def _are_same(tensors: Mapping[str, Tensor], one: str, other: str) -> bool:
    """Whether what both have is equal, as far as the tensors are read."""
    for name, tensor in tensors.items():
        twin = tensors.get(one + name.removeprefix(other)) if name.startswith(other) else None
        if twin is None or "meta" in (tensor.device.type, twin.device.type):
            continue
        if tensor.dtype != twin.dtype or not torch.equal(tensor, twin):
            return False
    return True


def without_prefix(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Remove the prefix that DataParallel, Lightning, compile and averaging add to the names.

    A name without it is unchanged, so that it is later reported as unexpected.

    Raises:
        InputError: a name is there with the prefix and without it, or there are several networks.
    """
    if any(name.endswith(".gamma") for name in tensors):  # MindSpore's prefixes have a meaning
        return tensors
    kept = {name: tensor for name, tensor in tensors.items() if name != "n_averaged"}
    taken_out = _taken_out(kept)
    if taken_out:
        _check_one_network(kept, taken_out, path)
        first = taken_out[0]
        return renamed(kept, lambda name: _within_features(name, first), path)
    networks = [p for p in _prefixes(kept) if any(f"{p}{name}" in kept for name in _WITHIN)]
    _check_one_network(kept, networks, path)
    prefix = prefix_of(tensors)
    return renamed(kept, lambda name: name.removeprefix(prefix), path)


def _taken_out(tensors: Mapping[str, Tensor]) -> list[str]:
    """What precedes the layers of ``features`` without their network; empty if they are in it."""
    if any(f".{name}".endswith(".features.conv0.weight") for name in tensors):
        return []
    found = (match[0] for name in tensors if (match := _TAKEN_OUT.match(name)))
    return [prefix for prefix in dict.fromkeys(found) if f"{prefix}conv0.weight" in tensors]


def _within_features(name: str, prefix: str) -> str:
    inside = name.removeprefix(prefix)
    named = name.startswith(prefix) and _OF_FEATURES.match(inside)
    return f"features.{inside}" if named else name
