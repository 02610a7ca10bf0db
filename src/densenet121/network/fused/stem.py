"""Fused norm0, relu0 and pool0: the same function as the plain one.

The mathematics is in ``native/network/stem.h``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from densenet121.native.network import Kernels
from densenet121.native.network.structures import StemArguments
from densenet121.network.first_derivative import first_derivative
from densenet121.network.fused.conditions import (
    copies,
    is_on_cpu,
    is_stem_pooling,
    is_untouched,
    real,
    update_running_statistics,
    usable_kernels,
    uses_batch_statistics,
)
from densenet121.utils.arena import new_tensor


@dataclass(frozen=True)
class _Plan:
    """What forward and backward share, besides the tensors that autograd saves."""

    kernels: Kernels
    dtype: torch.dtype
    padding: tuple[int, int]
    frozen: bool
    keep: bool
    mean: Tensor
    variance: Tensor
    eps: float


def fused_stem(
    parts: Sequence[nn.Module], pool_kind: type[nn.Module], padding: tuple[int, int], x: Tensor
) -> Tensor | None:
    """The output of pool0, or None if the plain implementation must compute it.

    Args:
        parts: norm0, relu0 and pool0, a maximum of 3 x 3 with stride 2.
        pool_kind: the class of an unmodified pool0.
        padding: rows above and columns to the left of the image that the first window covers.
        x: conv0's output, ``(N, C, H, W)``.

    Returns:
        ``(N, C, ceil(H / 2), ceil(W / 2))``, channels_last.
    """
    if not is_on_cpu(x):
        return None
    norm: Any
    norm, relu, pool = parts
    batch = uses_batch_statistics([norm])
    if batch is None or not is_untouched(relu, nn.ReLU) or not is_stem_pooling(pool, pool_kind):
        return None
    parameters = (norm.weight, norm.bias)
    found = usable_kernels(parameters, x)
    if found is None or (batch and x.numel() // x.shape[1] < 2):
        return None
    kernels, dtype = found
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    mean, variance = (
        torch.empty((2, x.shape[1]), dtype=real(dtype), device="cpu").unbind()
        if batch
        else copies((norm.running_mean, norm.running_var))
    )
    plan = _Plan(
        kernels=kernels,
        dtype=dtype,
        padding=padding,
        frozen=not batch,
        keep=torch.is_grad_enabled() and any(t.requires_grad for t in (x, *parameters)),
        mean=mean,
        variance=variance,
        eps=norm.eps,
    )
    y: Tensor = _Stem.apply(x, plan, *parameters)  # type: ignore[no-untyped-call]
    if batch:
        pixels = x.shape[0] * x.shape[2] * x.shape[3]
        update_running_statistics([norm], [mean], [variance], pixels)
    return y


class _Stem(torch.autograd.Function):
    """Saves its input and the largest pixel of each window."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: _Plan, *parameters: Tensor) -> Tensor:
        images, columns, height, width = x.shape
        y = new_tensor((images, columns, (height + 1) // 2, (width + 1) // 2), plan.dtype)
        winner = new_tensor(y.shape, torch.uint8) if plan.keep else None
        arguments = _arguments(plan, x, y, winner, parameters)
        plan.kernels.call("stem_forward", plan.dtype, arguments)
        if plan.keep:
            ctx.plan = plan
            ctx.save_for_backward(x, winner, *parameters)
        return y

    @staticmethod
    @first_derivative
    def backward(ctx: Any, saved: tuple[Any, ...], grad_y: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        x, winner, *parameters = saved
        grad_y = grad_y.to(plan.dtype).contiguous(memory_format=torch.channels_last)
        wanted = ctx.needs_input_grad
        grad_x = new_tensor(x.shape, x.dtype) if wanted[0] else None
        gradients = [
            torch.empty_like(p) if needed else None
            for p, needed in zip(parameters, wanted[2:], strict=True)
        ]
        arguments = _arguments(plan, x, grad_y, winner, parameters)
        arguments.grad_y = grad_y.data_ptr()
        arguments.grad_x, arguments.grad_gamma, arguments.grad_beta = (
            None if g is None else g.data_ptr() for g in (grad_x, *gradients)
        )
        plan.kernels.call("stem_backward", plan.dtype, arguments)
        return (grad_x, None, *gradients)


def _arguments(
    plan: _Plan, x: Tensor, y: Tensor, winner: Tensor | None, parameters: Sequence[Tensor]
) -> StemArguments:
    """All arguments except the gradients; y has the output's shape. Tensors must stay alive."""
    gamma, beta = parameters
    return StemArguments(
        images=x.shape[0],
        height=x.shape[2],
        width=x.shape[3],
        columns=x.shape[1],
        out_height=y.shape[2],
        out_width=y.shape[3],
        threads=torch.get_num_threads(),
        pad_top=plan.padding[0],
        pad_left=plan.padding[1],
        frozen=plan.frozen,
        x=x.data_ptr(),
        y=y.data_ptr(),
        winner=None if winner is None else winner.data_ptr(),
        gamma=gamma.data_ptr(),
        beta=beta.data_ptr(),
        mean=plan.mean.data_ptr(),
        variance=plan.variance.data_ptr(),
        eps=plan.eps,
    )
