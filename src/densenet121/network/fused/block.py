"""Fused dense block: the same function as the plain one, with less time and memory.

The mathematics is in ``native/network/block.h``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from densenet121.network.first_derivative import first_derivative, link_to
from densenet121.network.fused.arguments import (
    PARAMETERS,
    BlockPlan,
    block_arguments,
    layer_parameters,
    make_plan,
)
from densenet121.network.fused.conditions import (
    copies,
    is_on_cpu,
    is_plain_layer,
    remember_statistics,
    update_running_statistics,
    usable_kernels,
    uses_batch_statistics,
)
from densenet121.network.fused.inference import infer_block
from densenet121.utils.arena import new_tensor


def fused_dense_block(
    layers: Sequence[nn.Module], kind: type[nn.Module], x: Tensor, patch_pixels: Literal[2, 4] = 2
) -> Tensor | None:
    """The output of a block, or None if the plain implementation must compute it.

    Args:
        layers: layers of the block.
        kind: the class of an unmodified layer.
        x: ``(N, C, H, W)``.
        patch_pixels: see ``DenseBlock``.

    Returns:
        ``(N, C + len(layers) * growth_rate, H, W)``, channels_last.
    """
    if not is_on_cpu(x) or not layers or not all(is_plain_layer(layer, kind) for layer in layers):
        return None
    norms: list[Any] = [norm for layer in layers for norm in (layer.norm1, layer.norm2)]
    batch = uses_batch_statistics(norms)
    if batch is None:
        return None
    parameters = [p for layer in layers for p in layer_parameters(layer)]
    found = usable_kernels(parameters, x)
    if found is None:
        return None
    kernels, dtype = found
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    if batch and pixels < 2:
        return None  # the plain implementation raises the error
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    plan = make_plan(kernels, dtype, layers, norms, x, frozen=not batch, patch_pixels=patch_pixels)
    keep = torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in parameters))
    if not batch and not keep:
        return infer_block(layers[0], plan, x, parameters)
    if not batch:
        plan = replace(plan, means=copies(plan.means), variances=copies(plan.variances))
    y: Tensor = _DenseBlock.apply(x, plan, keep, link_to(x), *parameters)  # type: ignore[no-untyped-call]
    if batch:
        update_running_statistics(norms, plan.means, plan.variances, pixels)
    if plan.mean is not None and plan.variance is not None and not y.is_inference():
        remember_statistics(y, plan.mean, plan.variance)
    return y


class _DenseBlock(torch.autograd.Function):
    """Saves y and the bottlenecks z; the pointwise operations between them are recomputed."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, plan: BlockPlan, keep: bool, link: Tensor, *parameters: Tensor
    ) -> Tensor:
        images, columns, height, width = x.shape
        layers = len(parameters) // PARAMETERS
        y = new_tensor((images, columns + layers * plan.growth, height, width), plan.dtype)
        z = new_tensor(
            (layers if keep else 1, images * height * width, plan.bottleneck), plan.dtype
        )
        arguments = block_arguments(plan, y, z, parameters, columns)
        arguments.x = x.data_ptr()
        arguments.z_stride = z.stride(0) if keep else 0
        plan.kernels.call("block_forward", plan.dtype, arguments)
        ctx.plan, ctx.input_columns = plan, columns
        if keep:
            ctx.save_for_backward(y, z, link, *parameters)
        return y

    @staticmethod
    @first_derivative
    def backward(ctx: Any, saved: tuple[Any, ...], grad_y: Tensor) -> tuple[Tensor | None, ...]:
        plan: BlockPlan = ctx.plan
        y, z, _, *parameters = saved
        grad_y = grad_y.to(plan.dtype).contiguous(memory_format=torch.channels_last)
        arguments = block_arguments(plan, y, z, parameters, ctx.input_columns)
        arguments.z_stride = z.stride(0)
        buffer, bottleneck = new_tensor(y.shape, y.dtype), new_tensor(z[0].shape, z.dtype)
        arguments.grad_y, arguments.grad_buffer = grad_y.data_ptr(), buffer.data_ptr()
        arguments.grad_bottleneck = bottleneck.data_ptr()
        wanted = ctx.needs_input_grad
        grad_x = None
        if wanted[0]:
            grad_x = new_tensor(y[:, : ctx.input_columns].shape, y.dtype)
            arguments.grad_x = grad_x.data_ptr()
        gradients = [
            torch.empty_like(p) if needed else None
            for p, needed in zip(parameters, wanted[4:], strict=True)
        ]
        addresses = [None if g is None else g.data_ptr() for g in gradients]
        for i in range(len(parameters) // PARAMETERS):
            layer = arguments.layer[i]
            (
                layer.grad_gamma1,
                layer.grad_beta1,
                layer.grad_weight1,
                layer.grad_gamma2,
                layer.grad_beta2,
                layer.grad_weight2,
            ) = addresses[i * PARAMETERS : (i + 1) * PARAMETERS]
        plan.kernels.call("block_backward", plan.dtype, arguments)
        return (grad_x, None, None, None, *gradients)
