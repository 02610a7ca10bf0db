"""The state of an optimiser by the names of the parameters, as checkpoints hold it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


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
    """Restore the result of ``optimizer_state``, each tensor where a new optimiser has it."""
    parameters = dict(model.named_parameters())
    on_device = _counted_on_device(optimizer)
    for name, found in values.items():
        optimizer.state[parameters[name]].update(found)
    for place, value in tensors.items():
        name, _, key = place.rpartition(".")
        parameter = parameters[name]
        if value.shape == parameter.shape:
            # In the strides of the parameter: a kernel that reads memory in another order may round
            # differently, and the run would no longer be bit-identical.
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value).detach()
        elif key == "step" and parameter in on_device:
            value = value.to(parameter.device)
        optimizer.state[parameter][key] = value


def _counted_on_device(optimizer: Optimizer) -> set[Tensor]:
    """The parameters whose steps are counted on their device; the others' are on the CPU.

    A fused kernel reads the count there and fails with another; PyTorch's other kernels would wait
    for the device at each step (``Optimizer.load_state_dict`` draws the same line).
    """
    groups = [g for g in optimizer.param_groups if g.get("fused") or g.get("capturable")]
    return {parameter for group in groups for parameter in group["params"]}
