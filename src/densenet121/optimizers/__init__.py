"""Momentum SGD as the original has it, with weight decay only where it belongs."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Those of torch's fused SGD that are tested here; any other device gets torch's default.
_FUSED_DEVICES = frozenset({"cpu", "cuda"})


def get_param_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of all parameters: first those without weight decay, then those with it.

    Vectors (batch norm weights and biases, the classifier's bias) have none; tensors of rank 2
    and more (convolutions, the classifier's weight) have it. By rank and never by name: the
    original asks for ``.gamma`` and ``.beta``, others for ``bn``, and neither is in ``norm1``.
    """
    params = list(model.parameters())
    return [
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": weight_decay},
    ]


def momentum_sgd(groups: list[dict[str, Any]], *, lr: float, momentum: float) -> torch.optim.SGD:
    """SGD of the original: ``g += weight_decay * p; v = momentum * v + g; p -= lr * v``, v0 = 0.

    Build it once the model is on its device and in its memory format: v follows the parameters'.

    Args:
        groups: as ``get_param_groups`` gives them.
        lr: learning rate of the first step; later ones go into ``optimizer.param_groups``.
        momentum: share of v that is kept.
    """
    params = [p for group in groups for p in group["params"]]
    optimizer = torch.optim.SGD(
        groups,
        lr=lr,
        momentum=momentum,
        dampening=0,
        nesterov=False,
        # The fused kernel reads the loss scaler's found_inf on the device: no host sync.
        fused=True if _can_fuse(params) else None,
    )
    if momentum != 0:
        # torch 2.13 gives the fused kernel uninitialised memory for v on the first step. Where the
        # loss scaler makes it skip that step, the garbage stays and the next step uses it.
        for p in params:
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


def _can_fuse(params: Iterable[Tensor]) -> bool:
    """Whether torch's fused SGD takes all of these; it would raise only at the first step."""
    return all(p.is_floating_point() and p.device.type in _FUSED_DEVICES for p in params)
