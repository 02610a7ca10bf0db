"""A dense block by Triton kernels: the same function as the plain one, with less memory traffic.

One buffer holds the channels of the block. A layer's 1x1 convolution reads them through its own
batch norm and relu, and takes the statistics of what it writes; nothing pointwise is stored. The
3x3 convolution is PyTorch's, of a normalised copy that is made again in the backward pass. The
gradient of the buffer is one buffer too. What the batch norms owe it is a constant and a slope for
each channel, and is applied when the channel's gradient is read. It is the design of
``native/network/block.h``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from densenet121.network.fused.arguments import PARAMETERS, layer_parameters
from densenet121.network.fused.conditions import (
    is_plain_layer,
    runs_plain,
    update_running_statistics,
    uses_batch_statistics,
)
from densenet121.network.triton.launch import (
    Norm,
    append,
    close_relu,
    first_product,
    input_gradient,
    norm_gradient,
    normalise,
    read_gradient,
    rows_of,
    weight_gradient,
)

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass
class _Plan:
    """Of one pass: its arithmetic, and the statistics of its norms, in the order of the layers."""

    dtype: torch.dtype
    frozen: bool
    eps: list[float]
    means: list[Tensor]
    variances: list[Tensor]
    mean: Tensor  # of the block's channels; zero if frozen

    def norm(self, index: int, gamma: Tensor, beta: Tensor) -> Norm:
        """A batch norm: 2 i and 2 i + 1 are those of layer i."""
        found = self.means[index], self.variances[index], self.eps[index]
        return Norm.of(gamma, beta, *found)


def triton_dense_block(
    layers: Sequence[nn.Module], kind: type[nn.Module], x: Tensor
) -> Tensor | None:
    """The output of a block, or None if the plain implementation must compute it.

    Args:
        layers: layers of the block.
        kind: the class of an unmodified layer.
        x: ``(N, C, H, W)``.

    Returns:
        ``(N, C + len(layers) * growth_rate, H, W)``, channels_last.
    """
    if runs_plain(x) or not layers or not all(is_plain_layer(layer, kind) for layer in layers):
        return None
    norms: list[Any] = [norm for layer in layers for norm in (layer.norm1, layer.norm2)]
    batch = uses_batch_statistics(norms)
    device = x.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else x.dtype
    if batch is None or dtype not in _DTYPES or (batch and rows_of(x) < 2):
        return None
    parameters = [p for layer in layers for p in layer_parameters(layer)]
    if any(p.dtype != torch.float32 for p in parameters):
        return None
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    plan = _Plan(
        dtype=dtype,
        frozen=not batch,
        eps=[norm.eps for norm in norms],
        means=[] if batch else [norm.running_mean for norm in norms],
        variances=[] if batch else [norm.running_var for norm in norms],
        mean=torch.zeros(0),
    )
    with torch.autocast(device, enabled=False):
        y: Tensor = _DenseBlock.apply(x, plan, *parameters)  # type: ignore[no-untyped-call]
    if batch:
        update_running_statistics(norms, plan.means, plan.variances, rows_of(x))
    return y


class _DenseBlock(torch.autograd.Function):
    """Saves the block's buffer and the bottlenecks z."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: _Plan, *parameters: Tensor) -> Tensor:
        images, columns, height, width = x.shape
        count = len(parameters) // PARAMETERS
        growth = parameters[PARAMETERS - 1].shape[0]
        y = torch.empty(
            (images, columns + count * growth, height, width),
            dtype=plan.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        mean, variance = torch.zeros((2, y.shape[1]), device=x.device).unbind()
        plan.mean = mean
        found = append(x, y, 0)
        bottlenecks = []
        for i in range(count):
            seen = columns + i * growth
            gamma1, beta1, weight1, gamma2, beta2, weight2 = _of_layer(parameters, i)
            if not plan.frozen:
                new = slice(seen - found[0].shape[0], seen)
                mean[new], variance[new] = found
                plan.means.append(mean[:seen])
                plan.variances.append(variance[:seen])
            norm1 = plan.norm(2 * i, gamma1, beta1)
            z, statistics = first_product(y, norm1, weight1[:, :, 0, 0].to(plan.dtype).contiguous())
            if not plan.frozen:
                plan.means.append(statistics[0])
                plan.variances.append(statistics[1])
            b = normalise(z, plan.norm(2 * i + 1, gamma2, beta2))
            new_channels = torch.conv2d(_as_images(b, y), weight2.to(plan.dtype), padding=1)
            new_channels = new_channels.contiguous(memory_format=torch.channels_last)
            found = append(new_channels, y, seen)
            bottlenecks.append(z)
        ctx.plan, ctx.input_columns = plan, columns
        ctx.save_for_backward(y, *bottlenecks, *parameters)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        y, *rest = ctx.saved_tensors
        count = len(rest) // (PARAMETERS + 1)
        bottlenecks, parameters = rest[:count], rest[count:]
        growth = parameters[PARAMETERS - 1].shape[0]
        grad = grad_y.to(plan.dtype).clone(memory_format=torch.channels_last)
        owed = torch.zeros((2, y.shape[1]), device=y.device)
        gradients: list[Tensor] = []
        for i in reversed(range(count)):
            seen = ctx.input_columns + i * growth
            new = read_gradient(grad, y, plan.mean, owed, seen, growth)
            of_layer = _of_layer(parameters, i)
            gradients = [
                *_layer_gradients(plan, i, y, bottlenecks[i], of_layer, new, grad, owed[:, :seen]),
                *gradients,
            ]
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = read_gradient(grad, y, plan.mean, owed, 0, ctx.input_columns)
        wanted = ctx.needs_input_grad[2:]
        chosen = [g if needed else None for g, needed in zip(gradients, wanted, strict=True)]
        return (grad_x, None, *chosen)


def _layer_gradients(
    plan: _Plan,
    index: int,
    y: Tensor,
    z: Tensor,
    parameters: Sequence[Tensor],
    new: Tensor,
    grad: Tensor,
    owed: Tensor,
) -> list[Tensor]:
    """Gradients of a layer's parameters; adds that of what it reads to ``grad`` and ``owed``.

    Args:
        plan: the pass.
        index: of the layer.
        y: the block's buffer.
        z: the bottleneck, ``(rows, columns)``.
        parameters: of the layer.
        new: gradient of the layer's new channels.
        grad: gradient of ``y``.
        owed: what batch norms owe to the channels that the layer reads, see ``read_gradient``.
    """
    gamma1, beta1, weight1, gamma2, beta2, weight2 = parameters
    norm1 = plan.norm(2 * index, gamma1, beta1)
    norm2 = plan.norm(2 * index + 1, gamma2, beta2)
    db_images, d_weight2, _ = torch.ops.aten.convolution_backward(
        *(new, _as_images(normalise(z, norm2), y), weight2.to(plan.dtype), None),
        *([1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, False]),
    )
    db = db_images.permute(0, 2, 3, 1).contiguous().view(z.shape)
    d_beta2, along2 = close_relu(db, z, norm2)
    norm_gradient(db, z, norm2, _owed(plan, norm2, d_beta2, along2, len(z)))
    product = weight1[:, :, 0, 0].to(plan.dtype).contiguous()
    d_weight1 = weight_gradient(db, y, norm1)
    d_beta1, along1 = input_gradient(db, product, y, norm1, grad)
    owed += _owed(plan, norm1, d_beta1, along1, len(z))
    return [
        along1 * norm1.rstd,
        d_beta1,
        d_weight1.view_as(weight1),
        along2 * norm2.rstd,
        d_beta2,
        d_weight2.to(weight2.dtype),
    ]


def _owed(plan: _Plan, norm: Norm, total: Tensor, along: Tensor, rows: int) -> Tensor:
    """What a batch norm owes its input: ``(2, C)``, a constant, and a slope along x - mean."""
    if plan.frozen:
        return torch.zeros((2, len(total)), device=total.device)
    factor = -norm.scale / rows
    return torch.stack([factor * total, factor * norm.rstd.square() * along])


def _of_layer(parameters: Sequence[Tensor], index: int) -> Sequence[Tensor]:
    return parameters[index * PARAMETERS : (index + 1) * PARAMETERS]


def _as_images(rows: Tensor, y: Tensor) -> Tensor:
    """``(rows, C)`` as ``(N, C, H, W)``, channels_last."""
    images, _, height, width = y.shape
    return rows.view(images, height, width, rows.shape[1]).permute(0, 3, 1, 2)
