"""Fused transition: the same function as the plain one, with less time and memory.

The mathematics is in ``native/network/transition.h``.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densenet121.native.network import Kernels
from densenet121.native.network.structures import TransitionArguments
from densenet121.network.first_derivative import first_derivative
from densenet121.network.fused.conditions import (
    copies,
    is_on_cpu,
    is_plain_convolution,
    is_pooling,
    is_untouched,
    known_statistics,
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
    pool: int
    frozen: bool
    statistics_given: bool
    mean: Tensor
    variance: Tensor
    eps: float


def fused_transition(parts: Sequence[nn.Module], averages: bool, x: Tensor) -> Tensor | None:
    """The output of a transition, or None if the plain implementation must compute it.

    Args:
        parts: its norm, relu, conv and pool.
        averages: whether it pools by the average of 2 x 2; else by the maximum.
        x: ``(N, C, H, W)``.

    Returns:
        ``(N, C_out, H // 2, W // 2)``, channels_last.
    """
    if not is_on_cpu(x):
        return None
    norm: Any
    conv: Any
    norm, relu, conv, pool = parts
    batch = uses_batch_statistics([norm])
    if (
        batch is None
        or not is_untouched(relu, nn.ReLU)
        or not is_plain_convolution(conv, 1)
        or not is_pooling(pool, nn.AvgPool2d if averages else nn.MaxPool2d)
    ):
        return None
    parameters = (norm.weight, norm.bias, conv.weight)
    found = usable_kernels(parameters, x)
    if found is None or min(x.shape[2:]) < 2:
        return None
    kernels, dtype = found
    known = known_statistics(x) if batch else copies((norm.running_mean, norm.running_var))
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    mean, variance = known or torch.empty((2, x.shape[1]), dtype=real(dtype), device="cpu").unbind()
    plan = _Plan(
        kernels=kernels,
        dtype=dtype,
        pool=2 if averages else 1,
        frozen=not batch,
        statistics_given=known is not None,
        mean=mean,
        variance=variance,
        eps=norm.eps,
    )
    y: Tensor = _Transition.apply(x, plan, *parameters)  # type: ignore[no-untyped-call]
    if batch:
        pixels = x.shape[0] * x.shape[2] * x.shape[3]
        update_running_statistics([norm], [mean], [variance], pixels)
    return y if averages else F.max_pool2d(y, 2)


class _Transition(torch.autograd.Function):
    """Saves its input; the output of relu is recomputed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: _Plan, *parameters: Tensor) -> Tensor:
        images, _, height, width = x.shape
        y = new_tensor(
            (images, parameters[2].shape[0], height // plan.pool, width // plan.pool), plan.dtype
        )
        arguments = _arguments(plan, x, parameters)
        arguments.y = y.data_ptr()
        plan.kernels.call("transition_forward", plan.dtype, arguments)
        ctx.plan = plan
        ctx.save_for_backward(x, *parameters)
        return y

    @staticmethod
    @first_derivative
    def backward(ctx: Any, saved: tuple[Any, ...], grad_y: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        x, *parameters = saved
        grad_y = grad_y.to(plan.dtype).contiguous(memory_format=torch.channels_last)
        grad_x = new_tensor(x.shape, x.dtype)
        gradients = [
            torch.empty_like(p) if needed else None
            for p, needed in zip(parameters, ctx.needs_input_grad[2:], strict=True)
        ]
        arguments = _arguments(plan, x, parameters)
        arguments.grad_y, arguments.grad_x = grad_y.data_ptr(), grad_x.data_ptr()
        arguments.grad_gamma, arguments.grad_beta, arguments.grad_weight = (
            None if g is None else g.data_ptr() for g in gradients
        )
        plan.kernels.call("transition_backward", plan.dtype, arguments)
        return (grad_x if ctx.needs_input_grad[0] else None, None, *gradients)


def _arguments(plan: _Plan, x: Tensor, parameters: Sequence[Tensor]) -> TransitionArguments:
    """All arguments except y and the gradients. The tensors must outlive the call."""
    gamma, beta, weight = parameters
    return TransitionArguments(
        images=x.shape[0],
        height=x.shape[2],
        width=x.shape[3],
        columns=x.shape[1],
        output_columns=weight.shape[0],
        threads=torch.get_num_threads(),
        pool=plan.pool,
        frozen=plan.frozen,
        statistics_given=plan.statistics_given,
        x=x.data_ptr(),
        gamma=gamma.data_ptr(),
        beta=beta.data_ptr(),
        mean=plan.mean.data_ptr(),
        variance=plan.variance.data_ptr(),
        weight=weight.data_ptr(),
        strides=(ctypes.c_int64 * 4)(*weight.stride()),
        eps=plan.eps,
    )
