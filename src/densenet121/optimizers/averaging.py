"""An exponential moving average of a network's weights and running statistics."""

import copy

import torch
from torch import Tensor, nn


class AveragedWeights:
    """The moving average of a network: ``average = d * average + (1 - d) * weights``, in float32.

    After step t, counted from 0, d is ``min(decay, (1 + t) / (10 + t))``: with a constant decay the
    average of a short run would be mostly its initial weights. Running statistics of batch norm are
    averaged in the same way; whole numbers, such as ``num_batches_tracked``, are copied.

    Attributes:
        model: a network with the averaged weights, in evaluation mode.
        decay: the largest d.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begin with a copy of the weights of ``model``."""
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    def factor(self, step: int) -> float:
        """D after step ``step``."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Add the weights of ``model`` after step ``step``, counted from 0."""
        own, new = _tensors(self.model), _tensors(model)
        floats = [i for i, tensor in enumerate(own) if tensor.is_floating_point()]
        share = 1 - self.factor(step)
        torch._foreach_lerp_([own[i] for i in floats], [new[i] for i in floats], share)
        for tensor, source in zip(own, new, strict=True):
            if not tensor.is_floating_point():
                tensor.copy_(source)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
