"""Momentum SGD as the original has it, with weight decay only where it belongs."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

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


def optimizer_state(
    model: nn.Module, optimizer: Optimizer
) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """The optimiser's state by the names of the parameters: its tensors, and its other values.

    A tensor is called "<parameter>.<key>", with the keys of the optimiser's own ``state_dict``
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
    """Put back what ``optimizer_state`` gave."""
    parameters = dict(model.named_parameters())
    for name, found in values.items():
        optimizer.state[parameters[name]].update(found)
    for place, value in tensors.items():
        name, _, key = place.rpartition(".")
        parameter = parameters[name]
        if value.shape == parameter.shape:
            # In the parameter's own strides: a kernel that walks memory in another order may round
            # in another order, and the run would no longer be the same to the bit.
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value).detach()
        optimizer.state[parameter][key] = value


def _can_fuse(params: Iterable[Tensor]) -> bool:
    """Whether torch's fused SGD takes all of these; it would raise only at the first step."""
    return all(p.is_floating_point() and p.device.type in _FUSED_DEVICES for p in params)
