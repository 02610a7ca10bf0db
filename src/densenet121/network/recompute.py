"""Parts of a network that store only their inputs, and run again in the backward pass.

Sources: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"; Pleiss et al. 2017,
"Memory-Efficient Implementation of DenseNets".
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def set_recompute(model: nn.Module, on: bool) -> None:
    """Let every part of ``model`` that has the choice run again in the backward pass, or none."""
    for module in model.modules():
        if hasattr(module, "recompute"):
            setattr(module, "recompute", on)  # noqa: B010 (no attribute of every module)


def run_again_in_backward(
    function: Callable[..., Tensor], modules: Sequence[nn.Module], *inputs: Tensor
) -> Tensor:
    """``function(*inputs)``, of which only ``inputs`` are stored.

    Args:
        function: a pass through ``modules``, without random numbers.
        modules: their running statistics change in the first pass and not in the second.
        inputs: all tensors that it needs beside the weights.
    """
    found: Tensor = checkpoint(
        function,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (contextlib.nullcontext(), _kept_statistics(modules)),
    )
    return found


@contextlib.contextmanager
def _kept_statistics(modules: Sequence[nn.Module]) -> Iterator[None]:
    """A context in which training norms change copies of their running statistics."""
    norms = [
        norm
        for part in modules
        for norm in part.modules()
        if isinstance(norm, nn.BatchNorm2d) and norm.training
    ]
    kept = [(norm.running_mean, norm.running_var, norm.num_batches_tracked) for norm in norms]
    for norm, statistics in zip(norms, kept, strict=True):
        _replace(norm, *(None if tensor is None else tensor.clone() for tensor in statistics))
    try:
        yield
    finally:
        for norm, statistics in zip(norms, kept, strict=True):
            _replace(norm, *statistics)


def _replace(
    norm: nn.BatchNorm2d, mean: Tensor | None, variance: Tensor | None, count: Tensor | None
) -> None:
    norm.running_mean, norm.running_var, norm.num_batches_tracked = mean, variance, count
