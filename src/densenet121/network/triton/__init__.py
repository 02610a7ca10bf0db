"""Dense blocks by Triton kernels, for GPUs; in Triton's interpreter they run on a CPU.

Triton is imported only where they are asked for.
"""

import importlib.util
import os

import torch
from torch import nn

from densenet121.utils.errors import UsageError

_DEVICES = ("cuda", "xpu")


def set_triton(model: nn.Module, device: torch.device) -> None:
    """Let the dense blocks of ``model`` run by Triton kernels on ``device``.

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
