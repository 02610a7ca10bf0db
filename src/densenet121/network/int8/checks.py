"""Whether tensors of a file are such as ``quantise_network`` writes: the kernels rely on it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from densenet121.network.densenet import DenseNet
from densenet121.network.int8.scheme import LARGEST_BIAS, LARGEST_FACTOR, LARGEST_SCALE
from densenet121.network.int8.weights import PAIR, as_fours, largest_pair
from densenet121.utils.errors import InputError

VERSION = 1  # of the tensors' meaning

Expected = tuple[str, tuple[int, ...], torch.dtype]


def check_tensors(
    tensors: Mapping[str, Tensor], like: DenseNet, note: Mapping[str, Any], file: Path
) -> None:
    """Refuse names, shapes, types and values that the arithmetic does not allow.

    Args:
        tensors: of the file.
        like: a network of the shape that they must have; it may be on "meta".
        note: what the file says about them, with their version.
        file: for messages.

    Raises:
        InputError: the first that is wrong.
    """
    if note.get("version") != VERSION:
        raise InputError(
            f"{file}: int8 weights of version {note.get('version')!r}; this program reads "
            f"version {VERSION}: export them again, or upgrade densenet121"
        )
    expected = list(_expected(like))
    names = {name for name, _, _ in expected}
    unknown = next((name for name in tensors if name not in names), None)
    if unknown is not None:
        raise InputError(f'{file}: unknown int8 tensor "{unknown}"; choose another `net`?')
    for name, shape, dtype in expected:
        tensor = tensors.get(name)
        if tensor is None:
            raise InputError(f'{file}: int8 tensor "{name}" is missing; choose another `net`?')
        if tensor.shape != shape or tensor.dtype != dtype:
            raise InputError(
                f"{file}: {name} is {tuple(tensor.shape)} {tensor.dtype}, but the network needs "
                f"{shape} {dtype}"
            )
        reason = _fault(name, tensor)
        if reason:
            raise InputError(f"{file}: damaged ({name}: {reason})")


def _expected(like: DenseNet) -> Iterator[Expected]:
    channels = like.in_channels
    yield "images.low", (channels,), torch.float32
    yield "images.step", (channels,), torch.float32
    for name, module in like.named_modules():
        if isinstance(module, nn.Conv2d):
            outputs = (module.out_channels,)
            yield f"{name}.weight", tuple(module.weight.shape), torch.int8
            yield f"{name}.bias", outputs, torch.int32
            yield f"{name}.scale", outputs, torch.float32
        # norm0 and norm2 follow a convolution, of which they are a part
        elif isinstance(module, nn.BatchNorm2d) and not name.endswith(("norm0", "norm2")):
            yield f"{name}.factor", (module.num_features,), torch.int16
            yield f"{name}.shift", (module.num_features,), torch.int16
    yield "features.norm5.scale", (like.num_features,), torch.float32
    yield "classifier.weight", tuple(like.classifier.weight.shape), torch.float32
    yield "classifier.bias", tuple(like.classifier.bias.shape), torch.float32


def _fault(name: str, tensor: Tensor) -> str | None:
    """What is wrong with the values."""
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        return "a number is not finite"
    if name == "images.step" or name.endswith(".scale"):
        most = LARGEST_SCALE if name != "images.step" and "norm5" not in name else float("inf")
        if not bool(((tensor > 0) & (tensor <= most)).all()):
            return "a scale is out of range"
    if name.endswith(".factor") and int(tensor.amin()) < -LARGEST_FACTOR:
        return "a factor is out of range"
    if tensor.dtype == torch.int32 and not bool(
        ((tensor >= -LARGEST_BIAS) & (tensor <= LARGEST_BIAS)).all()
    ):
        return "a bias is out of range"
    if tensor.dtype == torch.int8 and int(largest_pair(as_fours(tensor.short())).amax()) > PAIR:
        return "two adjacent weights are too large"
    return None
