"""Autograd functions with a first derivative alone: a second one is refused, however it is asked.

``torch.autograd.function.once_differentiable`` refuses it when the whole graph is walked, as by
``backward``. Its gradients are not connected to the function's inputs, so a walk from them to some
tensors, as by ``torch.autograd.grad`` and ``torch.autograd.functional.hvp``, passes it by and gives
zeros, or what other paths contribute.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

_INSTEAD = (
    "pass no `create_graph`, or run the forward pass inside densenet121.network.plain_network() "
    "and without synchronised batch norm"
)

Gradients = tuple[Tensor | None, ...]


def link_to(x: Tensor) -> Tensor:
    """No elements, but a path to x: for a function that saves it in place of x, to save memory."""
    return x[:0].clone()


def first_derivative(
    backward: Callable[[Any, tuple[Any, ...], Tensor], Gradients],
) -> Callable[[Any, Tensor], Gradients]:
    """Decorate a ``backward``, which gets the saved tensors as its second argument.

    Each input that may require a gradient must be among the saved tensors, or its ``link_to``.
    """

    @functools.wraps(backward)
    def wrapped(ctx: Any, gradient: Tensor) -> Gradients:
        if torch._C._functorch.is_legacy_batchedtensor(gradient):
            raise RuntimeError(
                "the kernels of densenet121 take no batch of gradients (`is_grads_batched`, "
                "`vectorize`): pass one at a time, or run the forward pass inside "
                "densenet121.network.plain_network()"
            )
        saved = ctx.saved_tensors  # once: a checkpoint gives them once
        with torch.no_grad():
            found = backward(ctx, saved, gradient)
        if not torch.is_grad_enabled():
            return found
        inputs = [t for t in (gradient, *saved) if t is not None and t.requires_grad]
        given = [g for g in found if g is not None]
        if not inputs or not given:
            return found
        refusing = iter(_Refuse.apply(len(given), *given, *inputs))  # type: ignore[no-untyped-call]
        return tuple(None if g is None else next(refusing) for g in found)

    return wrapped


class _Refuse(torch.autograd.Function):
    """Gradients, with a path to the inputs on which a further derivative is an error."""

    @staticmethod
    def forward(ctx: FunctionCtx, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.view_as(tensor) for tensor in tensors[:count])

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Gradients:
        raise RuntimeError(
            "trying to differentiate twice through kernels of densenet121, which have the first "
            f"derivative alone: {_INSTEAD}"
        )
