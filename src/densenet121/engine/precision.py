"""Which operators of a step run in reduced precision, told as the original's platform tells it."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from densenet121.engine.plan import EpochPlan
from densenet121.network import DenseNet
from densenet121.utils.logging import log

_REDUCED = (torch.bfloat16, torch.float16)
# They move or convert numbers and compute none.
_NOT_COMPUTING = {
    "_to_copy",
    "alias",
    "cat",
    "clone",
    "detach",
    "empty",
    "empty_like",
    "expand",
    "fill_",
    "ones_like",
    "slice",
    "slice_backward",
    "t",
    "transpose",
    "view",
    "_unsafe_view",
    "zeros",
    "zeros_like",
}


class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the dtype of the first floating-point tensor of every operator, below autocast."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtypes: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        if name not in _NOT_COMPUTING:
            for value in tree_leaves(args):
                if isinstance(value, Tensor) and value.is_floating_point():
                    self.dtypes.setdefault(name, set()).add(value.dtype)
                    break
        return func(*args, **(kwargs or {}))


def log_precision(model: DenseNet, plan: EpochPlan) -> None:
    """Log the operators of forward and backward pass that compute in reduced precision.

    They are those of a pass of a copy of the network over two blank images. The fast kernels of the
    CPU, which do the same, are not among PyTorch's operators.
    """
    if plan.runtime.precision not in _REDUCED:
        return
    traced = trace_precision(model, plan)
    reduced = sorted(name for name, found in traced.items() if found & set(_REDUCED))
    wide = sorted(name for name, found in traced.items() if found - set(_REDUCED))
    name = plan.runtime.precision_name
    log.info("reduce precision: %s in %s", name, ", ".join(reduced))
    log.info("full precision: float32 in %s, and in the weights", ", ".join(wide))


def trace_precision(model: DenseNet, plan: EpochPlan) -> dict[str, set[torch.dtype]]:
    """Operator to the dtypes in which it ran in one pass; the network is left as it is."""
    side, device = model.min_image_size, plan.runtime.device
    own = copy.deepcopy(model).train()
    shape = (2, model.in_channels, side, side)
    images = torch.zeros(shape, dtype=torch.float32, device=device)
    count = len(plan.dataset)
    targets = plan.task.targets(plan.dataset, np.arange(2) % count).to(device)
    trace = _Trace()
    with trace:
        with plan.runtime.arithmetic():
            logits = own(images)
        torch.autograd.backward(plan.task.loss(logits, targets))
    return trace.dtypes
