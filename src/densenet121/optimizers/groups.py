"""Groups of parameters: which decay, and which learn slower or faster."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn


def get_param_groups(
    model: nn.Module,
    weight_decay: float,
    stages: Mapping[str, Sequence[nn.Module]] | None = None,
    lr_factors: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Two groups of parameters for each factor: without weight decay, then with it.

    Vectors (batch norm weights and biases, the classifier's bias) have none; tensors of rank 2
    or more (convolutions, the classifier's weight) have it. The rank decides, not the name: the
    original tests for ``.gamma`` and ``.beta``, others for ``bn``, and neither matches ``norm1``.

    Args:
        model: the network.
        weight_decay: the factor of the decay.
        stages: name to modules, in order; together they have every parameter of the model.
        lr_factors: factor of the learning rate of each stage to train; a stage without one is in no
            group, so nothing moves its weights, not even the decay.

    Returns:
        Groups for torch's optimisers, each with its ``lr_factor``. Without stages there are two,
        whose factor is 1.
    """
    by_factor: dict[float, list[nn.Parameter]] = {}
    for name, modules in (stages or {"": [model]}).items():
        factor = 1.0 if lr_factors is None else lr_factors.get(name)
        if factor is not None:
            found = [p for module in modules for p in module.parameters()]
            by_factor.setdefault(factor, []).extend(found)
    return [
        {
            "params": [p for p in params if (p.ndim >= 2) == decays],
            "weight_decay": weight_decay if decays else 0.0,
            "lr_factor": factor,
        }
        for factor, params in by_factor.items()
        for decays in (False, True)
    ]


def stage_factors(
    names: Sequence[str], head_lr_mult: float, layer_lr_decay: float
) -> dict[str, float]:
    """Factor of the learning rate of each stage: ``layer_lr_decay ** (stages after it)``.

    The last stage is the head, whose factor is ``head_lr_mult``.
    """
    last = len(names) - 1
    factors = {name: layer_lr_decay ** (last - i) for i, name in enumerate(names)}
    return factors | {names[-1]: head_lr_mult}
