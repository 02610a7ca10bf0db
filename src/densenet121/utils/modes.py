"""Training and evaluation mode of the modules of a network."""

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """A context in which every module is in evaluation mode; afterwards each has its own again.

    ``model.train()`` would also put frozen batch norms into training mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
