"""Training passes by Triton kernels, for GPUs; in Triton's interpreter they run on a CPU.

Triton is imported only where they are asked for.
"""

import importlib.util
import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densenet121.utils.errors import UsageError

_DEVICES = ("cuda", "xpu")


def set_triton(model: nn.Module, device: torch.device) -> None:
    """Let training passes of ``model`` run by Triton kernels on ``device``.

    Raises:
        UsageError: they cannot run there.
    """
    reason = why_no_triton(device)
    if reason:
        raise UsageError(f"`triton` 1: {reason}; pass `triton` 0")
    for module in model.modules():
        if hasattr(module, "triton"):
            setattr(module, "triton", True)  # noqa: B010 (no attribute of every module)


def why_no_triton(device: torch.device) -> str | None:
    """Why Triton kernels cannot run on ``device``; None if they can."""
    if device.type not in _DEVICES and os.environ.get("TRITON_INTERPRET") != "1":
        return f"Triton has no code for this device, {device.type}"
    if importlib.util.find_spec("triton") is None:
        return "the package triton, which comes with PyTorch for GPUs, is not installed"
    return None


def triton_dense_block(
    layers: Sequence[nn.Module], kind: type[nn.Module], x: Tensor
) -> Tensor | None:
    """See ``block.triton_dense_block``."""
    from densenet121.network.triton import block

    return block.triton_dense_block(layers, kind, x)


def triton_pooling(
    parts: Sequence[nn.Module], kind: type[nn.Module], pad: tuple[int, int] | None, x: Tensor
) -> Tensor | None:
    """See ``pooling.triton_pooling``."""
    from densenet121.network.triton import pooling

    return pooling.triton_pooling(parts, kind, pad, x)
