"""Initial weights with the original's distributions (its utils/var_init.py)."""

import math

import torch
from torch import nn


def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Overwrite every parameter and running statistic of ``model``.

    Convolutions: normal with std ``sqrt(2 / (C_out * kernel_h * kernel_w))``, that is Kaiming
    with fan out (torchvision uses fan in). Batch norms: weight 1, bias 0, running statistics reset.
    Linear weights: uniform in ``+-1 / sqrt(in_features)``. All biases are 0.

    All random numbers come from ``generator``, in the order of ``model.modules()``; torch's global
    generator is not used. The same seed gives the same bytes.

    Args:
        model: convolutions, batch norms and linear layers, on the generator's device. Initialise on
            the CPU and move the model afterwards, so that all devices start from equal weights.
        generator: the source of the random numbers.

    Raises:
        TypeError: a module of another type has parameters, which would not be initialised.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()  # constants only
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
        elif any(True for _ in module.parameters(recurse=False)):
            raise TypeError(f"{name or 'model'}: no rule to initialise a {type(module).__name__}")
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
