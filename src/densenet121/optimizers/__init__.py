"""Momentum SGD as in the original, with weight decay only for convolutions and the classifier."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

# Devices on which torch's fused SGD is tested here; others use torch's default.
_FUSED_DEVICES = frozenset({"cpu", "cuda"})


def get_param_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of parameters: first those without weight decay, then those with it.

    Vectors (batch norm weights and biases, the classifier's bias) have none; tensors of rank 2
    or more (convolutions, the classifier's weight) have it. The rank decides, not the name: the
    original tests for ``.gamma`` and ``.beta``, others for ``bn``, and neither matches ``norm1``.
    """
    params = list(model.parameters())
    return [
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": weight_decay},
    ]


def momentum_sgd(groups: list[dict[str, Any]], *, lr: float, momentum: float) -> torch.optim.SGD:
    """SGD of the original: ``g += weight_decay * p; v = momentum * v + g; p -= lr * v``, v0 = 0.

    Build it after the model is on its device and in its memory format, which v copies.

    Args:
        groups: the result of ``get_param_groups``.
        lr: learning rate of the first step; set later ones in ``optimizer.param_groups``.
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
        # torch 2.13 gives the fused kernel uninitialised memory for v on the first step. If the
        # loss scaler skips that step, the next step would use the garbage.
        for p in params:
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


def optimizer_state(
    model: nn.Module, optimizer: Optimizer
) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """The state of the optimiser by parameter name: its tensors, and its other values.

    A tensor has the name "<parameter>.<key>", with the keys of the optimiser's ``state_dict``
    (SGD: momentum_buffer; Adam: step, exp_avg, exp_avg_sq).
    """
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}.{key}"] = value
            elif value is not None:
                values.setdefault(name, {})[key] = value
    return tensors, values


def restore_optimizer(
    model: nn.Module,
    optimizer: Optimizer,
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Mapping[str, Any]],
) -> None:
    """Restore the result of ``optimizer_state``."""
    parameters = dict(model.named_parameters())
    for name, found in values.items():
        optimizer.state[parameters[name]].update(found)
    for place, value in tensors.items():
        name, _, key = place.rpartition(".")
        parameter = parameters[name]
        if value.shape == parameter.shape:
            # In the strides of the parameter: a kernel that reads memory in another order may round
            # differently, and the run would no longer be bit-identical.
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value).detach()
        optimizer.state[parameter][key] = value


def _can_fuse(params: Iterable[Tensor]) -> bool:
    """Whether torch's fused SGD supports all of these; it would raise only at the first step."""
    return all(p.is_floating_point() and p.device.type in _FUSED_DEVICES for p in params)
