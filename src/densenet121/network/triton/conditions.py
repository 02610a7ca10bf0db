"""When Triton kernels can compute a pass."""

from collections.abc import Sequence

import torch
from torch import Tensor

from densenet121.network.fused.conditions import runs_plain

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def arithmetic_of(x: Tensor, parameters: Sequence[Tensor]) -> torch.dtype | None:
    """The dtype of the products of a training pass of ``x``; None if it must run by PyTorch."""
    if not torch.is_grad_enabled() or runs_plain(x):
        return None
    if any(p.dtype != torch.float32 for p in parameters):
        return None
    device = x.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else x.dtype
    return dtype if dtype in _DTYPES else None
