"""The fast path of a dense block: the same function as the plain one, in less time and memory.

``native/block.h`` has the mathematics.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from densenet121.native import Kernels
from densenet121.network.fused import (
    is_plain_convolution,
    is_untouched,
    remember_statistics,
    update_running_statistics,
    usable_kernels,
    uses_batch_statistics,
)

_PARAMETERS = 6  # of a layer, in the order of _parameters


class _LayerArguments(ctypes.Structure):
    """``LayerArguments`` of native/block.h."""

    _fields_ = [
        *(
            (f"{name}1", ctypes.c_void_p)
            for name in ("gamma", "beta", "mean", "variance", "weight")
        ),
        *(
            (f"{name}2", ctypes.c_void_p)
            for name in ("gamma", "beta", "mean", "variance", "weight")
        ),
        *((f"grad_{name}1", ctypes.c_void_p) for name in ("gamma", "beta", "weight")),
        *((f"grad_{name}2", ctypes.c_void_p) for name in ("gamma", "beta", "weight")),
        ("strides1", ctypes.c_int64 * 4),
        ("strides2", ctypes.c_int64 * 4),
        ("eps1", ctypes.c_double),
        ("eps2", ctypes.c_double),
    ]


class _BlockArguments(ctypes.Structure):
    """``BlockArguments`` of native/block.h."""

    _fields_ = [
        ("pictures", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("input_columns", ctypes.c_int64),
        ("layers", ctypes.c_int64),
        ("growth", ctypes.c_int64),
        ("bottleneck", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("frozen", ctypes.c_int64),
        ("z_stride", ctypes.c_int64),
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("z", ctypes.c_void_p),
        ("mean", ctypes.c_void_p),
        ("variance", ctypes.c_void_p),
        ("grad_y", ctypes.c_void_p),
        ("grad_buffer", ctypes.c_void_p),
        ("grad_bottleneck", ctypes.c_void_p),
        ("grad_x", ctypes.c_void_p),
        ("layer", ctypes.POINTER(_LayerArguments)),
    ]


@dataclass(frozen=True)
class _Plan:
    """What a block's forward and backward have in common, beside the tensors.

    ``means`` and ``variances`` are norm1's and norm2's by turns, of all layers: the running ones of
    a frozen block, else those of the batch, where norm1's are the first channels of the block's.
    """

    kernels: Kernels
    dtype: torch.dtype
    frozen: bool
    growth: int
    bottleneck: int
    eps: tuple[float, ...]
    means: Sequence[Tensor]
    variances: Sequence[Tensor]
    mean: Tensor | None
    variance: Tensor | None


def fused_dense_block(
    layers: Sequence[nn.Module], kind: type[nn.Module], x: Tensor
) -> Tensor | None:
    """The block's output, or None where the plain implementation must compute it.

    Args:
        layers: of the block.
        kind: the class of a layer that nobody has changed.
        x: ``(N, C, H, W)``.

    Returns:
        ``(N, C + len(layers) * growth_rate, H, W)``, channels_last.
    """
    if not layers or not all(_is_plain_layer(layer, kind) for layer in layers):
        return None
    norms: list[Any] = [norm for layer in layers for norm in (layer.norm1, layer.norm2)]
    batch = uses_batch_statistics(norms)
    if batch is None:
        return None
    parameters = [p for layer in layers for p in _parameters(layer)]
    found = usable_kernels(parameters, x)
    if found is None:
        return None
    kernels, dtype = found
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    if batch and pixels < 2:
        return None  # for the plain implementation's error
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    plan = _make_plan(kernels, dtype, layers, norms, x, frozen=not batch)
    keep = torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in parameters))
    y: Tensor = _DenseBlock.apply(x, plan, keep, *parameters)  # type: ignore[no-untyped-call]
    if batch:
        update_running_statistics(norms, plan.means, plan.variances, pixels)
    if plan.mean is not None and plan.variance is not None and not y.is_inference():
        remember_statistics(y, plan.mean, plan.variance)
    return y


def _is_plain_layer(layer: Any, kind: type[nn.Module]) -> bool:
    return (
        is_untouched(layer, kind)
        and is_plain_convolution(layer.conv1, 1)
        and is_plain_convolution(layer.conv2, 3)
    )


def _parameters(layer: Any) -> tuple[Tensor, ...]:
    return (
        layer.norm1.weight,
        layer.norm1.bias,
        layer.conv1.weight,
        layer.norm2.weight,
        layer.norm2.bias,
        layer.conv2.weight,
    )


def _make_plan(
    kernels: Kernels,
    dtype: torch.dtype,
    layers: Sequence[Any],
    norms: Sequence[Any],
    x: Tensor,
    *,
    frozen: bool,
) -> _Plan:
    bottleneck, growth = layers[0].conv1.out_channels, layers[0].conv2.out_channels
    columns = x.shape[1] + len(layers) * growth
    mean = variance = None
    if frozen:
        means = [norm.running_mean for norm in norms]
        variances = [norm.running_var for norm in norms]
    else:
        real = torch.float64 if dtype == torch.float64 else torch.float32
        mean, variance = torch.empty((2, columns), dtype=real).unbind()
        inner = torch.empty((2, len(layers), bottleneck), dtype=real)
        means, variances = [], []
        for i in range(len(layers)):
            seen = x.shape[1] + i * growth
            means += [mean[:seen], inner[0, i]]
            variances += [variance[:seen], inner[1, i]]
    return _Plan(
        kernels=kernels,
        dtype=dtype,
        frozen=frozen,
        growth=growth,
        bottleneck=bottleneck,
        eps=tuple(norm.eps for norm in norms),
        means=means,
        variances=variances,
        mean=mean,
        variance=variance,
    )


class _DenseBlock(torch.autograd.Function):
    """Saves y and the bottlenecks z; the pointwise passes between them are computed again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: _Plan, keep: bool, *parameters: Tensor) -> Tensor:
        pictures, columns, height, width = x.shape
        layers = len(parameters) // _PARAMETERS
        y = torch.empty(
            (pictures, columns + layers * plan.growth, height, width),
            dtype=plan.dtype,
            memory_format=torch.channels_last,
        )
        z = torch.empty(
            (layers if keep else 1, pictures * height * width, plan.bottleneck), dtype=plan.dtype
        )
        arguments = _block_arguments(plan, y, z, parameters, columns)
        arguments.x = x.data_ptr()
        arguments.z_stride = z.stride(0) if keep else 0
        plan.kernels.call("block_forward", plan.dtype, arguments)
        ctx.plan, ctx.input_columns = plan, columns
        if keep:
            ctx.save_for_backward(y, z, *parameters)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        y, z, *parameters = ctx.saved_tensors
        grad_y = grad_y.to(plan.dtype).contiguous(memory_format=torch.channels_last)
        arguments = _block_arguments(plan, y, z, parameters, ctx.input_columns)
        arguments.z_stride = z.stride(0)
        buffer, bottleneck = torch.empty_like(y), torch.empty_like(z[0])
        arguments.grad_y, arguments.grad_buffer = grad_y.data_ptr(), buffer.data_ptr()
        arguments.grad_bottleneck = bottleneck.data_ptr()
        wanted = ctx.needs_input_grad
        grad_x = None
        if wanted[0]:
            grad_x = torch.empty_like(y[:, : ctx.input_columns], memory_format=torch.channels_last)
            arguments.grad_x = grad_x.data_ptr()
        gradients = [
            torch.empty_like(p) if needed else None
            for p, needed in zip(parameters, wanted[3:], strict=True)
        ]
        addresses = [None if g is None else g.data_ptr() for g in gradients]
        for i in range(len(parameters) // _PARAMETERS):
            layer = arguments.layer[i]
            (
                layer.grad_gamma1,
                layer.grad_beta1,
                layer.grad_weight1,
                layer.grad_gamma2,
                layer.grad_beta2,
                layer.grad_weight2,
            ) = addresses[i * _PARAMETERS : (i + 1) * _PARAMETERS]
        plan.kernels.call("block_backward", plan.dtype, arguments)
        return (grad_x, None, None, *gradients)


def _block_arguments(
    plan: _Plan, y: Tensor, z: Tensor, parameters: Sequence[Tensor], input_columns: int
) -> _BlockArguments:
    """Everything but x and the gradients. The tensors must outlive the call."""
    layers = (_LayerArguments * (len(parameters) // _PARAMETERS))()
    for i, layer in enumerate(layers):
        gamma1, beta1, weight1, gamma2, beta2, weight2 = parameters[
            i * _PARAMETERS : (i + 1) * _PARAMETERS
        ]
        layer.gamma1, layer.beta1 = gamma1.data_ptr(), beta1.data_ptr()
        layer.gamma2, layer.beta2 = gamma2.data_ptr(), beta2.data_ptr()
        layer.weight1, layer.weight2 = weight1.data_ptr(), weight2.data_ptr()
        layer.strides1[:], layer.strides2[:] = weight1.stride(), weight2.stride()
        layer.mean1, layer.mean2 = (m.data_ptr() for m in plan.means[2 * i : 2 * i + 2])
        layer.variance1, layer.variance2 = (v.data_ptr() for v in plan.variances[2 * i : 2 * i + 2])
        layer.eps1, layer.eps2 = plan.eps[2 * i : 2 * i + 2]
    return _BlockArguments(
        pictures=y.shape[0],
        height=y.shape[2],
        width=y.shape[3],
        input_columns=input_columns,
        layers=len(layers),
        growth=plan.growth,
        bottleneck=plan.bottleneck,
        threads=torch.get_num_threads(),
        frozen=plan.frozen,
        y=y.data_ptr(),
        z=z.data_ptr(),
        mean=None if plan.mean is None else plan.mean.data_ptr(),
        variance=None if plan.variance is None else plan.variance.data_ptr(),
        layer=layers,
    )
