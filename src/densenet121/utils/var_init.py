"""Initial weights as the original draws them (its utils/var_init.py), from one generator."""

import math

import torch
from torch import nn


def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Overwrite every parameter and running statistic of ``model``.

    Convolutions: normal with std ``sqrt(2 / (C_out * kernel_h * kernel_w))``, that is Kaiming
    over the fan out (torchvision takes the fan in). Batch norms: weight 1, bias 0, as new. Linear
    weights: uniform in ``+-1 / sqrt(in_features)``. All biases 0.

    All random numbers come from ``generator``, in the order of ``model.modules()``; torch's
    global generator is neither read nor moved. The same seed thus gives the same bytes.

    Args:
        model: convolutions, batch norms and linear layers, on the generator's device: initialise
            on the CPU and move afterwards, so that every device starts from the same weights.
        generator: the source of the random numbers.

    Raises:
        TypeError: a module of another type holds parameters, which would stay as they are.
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
