"""Norm, relu and pooling in one pass each way: of a transition, and of the stem."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor, nn

from densenet121.network.first_derivative import first_derivative
from densenet121.network.fused.conditions import (
    copies,
    is_pooling,
    is_stem_pooling,
    is_untouched,
    known_statistics,
    update_running_statistics,
    uses_batch_statistics,
)
from densenet121.network.triton import pooling_kernels
from densenet121.network.triton.conditions import arithmetic_of
from densenet121.network.triton.launch import (
    PROGRAMS,
    Norm,
    append,
    norm_sums,
    parts_of,
    rows_of,
    shares_of,
    statistics,
    width_of,
)

_BM = 16


@dataclass
class _Plan:
    """Of one pass: ``pad`` is that of windows of 3 x 3, None an average of 2 x 2."""

    frozen: bool
    pad: tuple[int, int] | None
    mean: Tensor
    variance: Tensor
    eps: float


def triton_pooling(
    parts: Sequence[nn.Module], kind: type[nn.Module], pad: tuple[int, int] | None, x: Tensor
) -> Tensor | None:
    """The output of norm, relu and pooling, or None if PyTorch must compute it.

    Args:
        parts: a batch norm, relu and the pooling: an average over 2 x 2 at stride 2, or a maximum
            over 3 x 3 at stride 2.
        kind: the class of an unmodified pooling.
        pad: of a maximum, rows above and columns to the left of the first window; None: average.
        x: ``(N, C, H, W)``.

    Returns:
        ``(N, C, H // 2, W // 2)``, of a maximum rounded up; channels_last.
    """
    norm: Any
    norm, relu, pool = parts
    batch = uses_batch_statistics([norm])
    dtype = arithmetic_of(x, [norm.weight, norm.bias])
    if batch is None or dtype is None or (batch and rows_of(x) < 2):
        return None
    is_known = is_pooling if pad is None else is_stem_pooling
    if not is_untouched(relu, nn.ReLU) or not is_known(pool, kind):
        return None
    known = known_statistics(x) if batch else None
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    mean, variance = known or copies((norm.running_mean, norm.running_var))
    if batch and known is None:
        mean, variance = torch.empty((2, x.shape[1]), dtype=torch.float32, device=x.device).unbind()
        statistics(append(x, None, 0), mean, variance, None)
    plan = _Plan(not batch, pad, mean, variance, norm.eps)
    with torch.autocast(x.device.type, enabled=False):
        p: Tensor = _Pooling.apply(x, plan, norm.weight, norm.bias)  # type: ignore[no-untyped-call]
    if batch:
        update_running_statistics([norm], [mean], [variance], rows_of(x))
    return p


class _Pooling(torch.autograd.Function):
    """Saves its input, and of a maximum which pixel it was."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: _Plan, gamma: Tensor, beta: Tensor) -> Tensor:
        images, columns, height, width = x.shape
        norm = Norm(gamma, beta, plan.mean, plan.variance, plan.eps)
        up = 0 if plan.pad is None else 1
        size = images, columns, (height + up) // 2, (width + up) // 2
        p = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        rows, wide = rows_of(p), width_of(columns)
        grid = triton.cdiv(rows, _BM), triton.cdiv(columns, wide)
        chosen = p  # read by a maximum alone
        if plan.pad is None:
            pooling_kernels.average[grid](
                x, *norm, p, rows, columns, height, width, BM=_BM, BN=wide
            )
        else:
            chosen = torch.empty_like(p, dtype=torch.int8)
            pooling_kernels.maximum[grid](
                x, *norm, p, chosen, rows, columns, height, width,
                *p.shape[2:], *plan.pad, BM=_BM, BN=wide,
            )  # fmt: skip
        ctx.plan = plan
        kept = () if plan.pad is None else (chosen,)
        ctx.save_for_backward(x, gamma, beta, *kept)
        ctx.size = p.shape[2:]
        return p

    @staticmethod
    @first_derivative
    def backward(ctx: Any, saved: tuple[Any, ...], g: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        x, gamma, beta, *kept = saved
        norm = Norm(gamma, beta, plan.mean, plan.variance, plan.eps)
        g = g.to(x.dtype).contiguous(memory_format=torch.channels_last)
        columns, height, width = x.shape[1:]
        rows, wide = rows_of(x), width_of(columns)
        pad = plan.pad or (0, 0)
        chosen = kept[0] if kept else g
        shapes = rows, columns, height, width, *ctx.size, *pad
        programs, tiles = shares_of(rows, _BM, triton.cdiv(columns, wide), PROGRAMS)
        parts = parts_of(x, programs, columns)
        pooling_kernels.pool_sums[programs, triton.cdiv(columns, wide)](
            g, chosen, x, *norm, parts, *shapes, tiles,
            MAXIMUM=plan.pad is not None, BM=_BM, BN=wide,
        )  # fmt: skip
        owed = torch.empty((2, columns), dtype=torch.float32, device=x.device)
        d_gamma, d_beta = norm_sums(parts, norm, rows, owed, frozen=plan.frozen, add=False)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.empty_like(x)
            pooling_kernels.pool_gradient[triton.cdiv(rows, _BM), triton.cdiv(columns, wide)](
                g, chosen, x, *norm, owed, grad_x, *shapes,
                FROZEN=plan.frozen, MAXIMUM=plan.pad is not None, BM=_BM, BN=wide,
            )  # fmt: skip
        wanted = ctx.needs_input_grad[2:]
        return (grad_x, None, d_gamma if wanted[0] else None, d_beta if wanted[1] else None)
