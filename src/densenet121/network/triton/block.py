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

from densenet121.network.first_derivative import first_derivative, link_to
from densenet121.network.fused.arguments import PARAMETERS, layer_parameters
from densenet121.network.fused.conditions import (
    copies,
    is_plain_layer,
    remember_statistics,
    update_running_statistics,
    uses_batch_statistics,
)
from densenet121.network.triton.conditions import arithmetic_of
from densenet121.network.triton.launch import (
    DEEPEST,
    Norm,
    Parts,
    append,
    first_product,
    layer_gradient,
    norm_gradient,
    norm_sums,
    normalise,
    open_relu,
    read_gradient,
    rows_of,
    statistics,
)

_CONVOLUTION = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)


@dataclass
class _Plan:
    """Of one pass.

    Attributes:
        dtype: of the products.
        frozen: the norms use their running statistics.
        eps: of the norms: 2 i and 2 i + 1 are those of layer i.
        means: that the norms subtract, in the same order.
        variances: in the same order.
        mean: of the block's channels; zero if frozen.
        variance: of the block's channels.
    """

    dtype: torch.dtype
    frozen: bool
    eps: list[float]
    means: list[Tensor]
    variances: list[Tensor]
    mean: Tensor
    variance: Tensor

    def affine(self, norm: Norm, found: Parts) -> Tensor:
        """Scale and shift of a norm that reads what ``found`` is of, as the last of its columns."""
        if self.frozen:
            return norm.affine()
        return statistics(found, norm.mean, norm.variance, norm)


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
    if not layers or not all(is_plain_layer(layer, kind) for layer in layers):
        return None
    norms: list[Any] = [norm for layer in layers for norm in (layer.norm1, layer.norm2)]
    batch = uses_batch_statistics(norms)
    parameters = [p for layer in layers for p in layer_parameters(layer)]
    dtype = arithmetic_of(x, parameters)
    depth, growth = parameters[2].shape[0], parameters[PARAMETERS - 1].shape[0]
    if batch is None or dtype is None or (batch and rows_of(x) < 2) or depth > DEEPEST:
        return None
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    columns = x.shape[1] + len(layers) * growth
    mean, variance = torch.zeros((2, columns), dtype=torch.float32, device=x.device).unbind()
    means, variances = (
        _batch_statistics(len(layers), x.shape[1], growth, depth, mean, variance)
        if batch
        else (copies([n.running_mean for n in norms]), copies([n.running_var for n in norms]))
    )
    eps = [norm.eps for norm in norms]
    plan = _Plan(dtype, not batch, eps, means, variances, mean, variance)
    with torch.autocast(x.device.type, enabled=False):
        y: Tensor = _DenseBlock.apply(x, plan, link_to(x), *parameters)  # type: ignore[no-untyped-call]
    if batch:
        update_running_statistics(norms, means, variances, rows_of(x))
        remember_statistics(y, mean, variance)
    return y


def _batch_statistics(
    layers: int, columns: int, growth: int, depth: int, mean: Tensor, variance: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Places for the statistics of the norms; those of norm1 are the first of the block's."""
    of_bottlenecks = torch.empty((2, layers, depth), dtype=torch.float32, device=mean.device)
    found: tuple[list[Tensor], list[Tensor]] = [], []
    for places, of_block, bottlenecks in zip(found, (mean, variance), of_bottlenecks, strict=True):
        for i, bottleneck in enumerate(bottlenecks.unbind()):
            places.extend((of_block[: columns + i * growth], bottleneck))
    return found


class _DenseBlock(torch.autograd.Function):
    """Saves the block's buffer and the bottlenecks z."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: _Plan, link: Tensor, *parameters: Tensor) -> Tensor:
        images, columns, height, width = x.shape
        count = len(parameters) // PARAMETERS
        growth = parameters[PARAMETERS - 1].shape[0]
        y = torch.empty(
            (images, columns + count * growth, height, width),
            dtype=plan.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        weights = _weights(plan, parameters)
        norms = _norms(plan, parameters)
        found = append(x, y, 0)
        bottlenecks = []
        for i, (norm1, norm2) in enumerate(zip(norms[::2], norms[1::2], strict=True)):
            seen = columns + i * growth
            z, of_z = first_product(y, plan.affine(norm1, found), weights[2 * i][:, :, 0, 0])
            b = _as_images(normalise(z, plan.affine(norm2, of_z)), y)
            new = torch.conv2d(b, weights[2 * i + 1], padding=1)
            found = append(new.contiguous(memory_format=torch.channels_last), y, seen)
            bottlenecks.append(z)
        if not plan.frozen:
            statistics(found, plan.mean, plan.variance, None)
        ctx.plan, ctx.input_columns, ctx.weights = plan, columns, weights
        ctx.save_for_backward(y, link, *bottlenecks, *parameters)
        return y

    @staticmethod
    @first_derivative
    def backward(ctx: Any, saved: tuple[Any, ...], grad_y: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        y, _, *rest = saved
        count = len(rest) // (PARAMETERS + 1)
        bottlenecks, parameters = rest[:count], rest[count:]
        growth = parameters[PARAMETERS - 1].shape[0]
        grad = grad_y.to(plan.dtype).clone(memory_format=torch.channels_last)
        owed = torch.zeros((2, y.shape[1]), dtype=torch.float32, device=y.device)
        norms = _norms(plan, parameters)
        gradients: list[list[Tensor]] = []
        for i in reversed(range(count)):
            seen = ctx.input_columns + i * growth
            new = read_gradient(grad, y, plan.mean, owed, seen, growth)
            both = slice(2 * i, 2 * i + 2)
            layer = _Layer(bottlenecks[i], norms[both], ctx.weights[both], plan.frozen)
            gradients.insert(0, layer.backward(new, y, grad, owed))
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = read_gradient(grad, y, plan.mean, owed, 0, ctx.input_columns)
        found = _in_float32([g for of_layer in gradients for g in of_layer], parameters)
        wanted = ctx.needs_input_grad[3:]
        chosen = [g if needed else None for g, needed in zip(found, wanted, strict=True)]
        return (grad_x, None, None, *chosen)


@dataclass
class _Layer:
    """A layer in the backward pass.

    Attributes:
        z: the bottleneck, ``(rows, columns)``.
        norms: its two.
        weights: of its convolutions, in the pass's arithmetic.
        frozen: the norms use their running statistics.
    """

    z: Tensor
    norms: Sequence[Norm]
    weights: Sequence[Tensor]
    frozen: bool

    def backward(self, new: Tensor, y: Tensor, grad: Tensor, owed: Tensor) -> list[Tensor]:
        """Gradients of the parameters; adds that of what the layer reads to ``grad``, ``owed``.

        Args:
            new: gradient of the layer's new channels.
            y: the block's buffer.
            grad: gradient of ``y``.
            owed: what batch norms owe to the channels of ``y``, see ``read_gradient``.
        """
        norm1, norm2 = self.norms
        first, second = self.weights
        frozen, rows = self.frozen, len(self.z)
        # The weight's gradient needs b, which is made when the gradient of b is known.
        db = _convolution_gradient(new, _as_images(self.z, y), second, 0)
        db = db.permute(0, 2, 3, 1).contiguous().view(self.z.shape)
        b, parts = open_relu(db, self.z, norm2)
        d_second = _convolution_gradient(new, _as_images(b, y), second, 1)
        owed2 = torch.empty((2, len(norm2.gamma)), dtype=torch.float32, device=y.device)
        d_gamma2, d_beta2 = norm_sums(parts, norm2, rows, owed2, frozen=frozen, add=False)
        norm_gradient(db, self.z, norm2, owed2, frozen=frozen)
        d_first, parts = layer_gradient(db, first[:, :, 0, 0], y, norm1, grad)
        d_gamma1, d_beta1 = norm_sums(parts, norm1, rows, owed, frozen=frozen, add=True)
        return [d_gamma1, d_beta1, d_first[:, :, None, None], d_gamma2, d_beta2, d_second]


def _convolution_gradient(new: Tensor, b: Tensor, weight: Tensor, which: int) -> Tensor:
    """Gradient of the 3x3 convolution's input, 0, or weight, 1."""
    mask = [which == 0, which == 1, False]
    found = torch.ops.aten.convolution_backward(new, b, weight, None, *_CONVOLUTION, mask)
    gradient: Tensor = found[which]
    return gradient


def _norms(plan: _Plan, parameters: Sequence[Tensor]) -> list[Norm]:
    """The two batch norms of every layer."""
    found = []
    for i in range(len(parameters) // PARAMETERS):
        gamma1, beta1, _, gamma2, beta2, _ = _of_layer(parameters, i)
        for place, gamma, beta in ((2 * i, gamma1, beta1), (2 * i + 1, gamma2, beta2)):
            mean, variance = plan.means[place], plan.variances[place]
            found.append(Norm(gamma, beta, mean, variance, plan.eps[place]))
    return found


def _weights(plan: _Plan, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The weights of the two convolutions of every layer, in the pass's arithmetic."""
    count = len(parameters) // PARAMETERS
    given = [w for i in range(count) for w in _of_layer(parameters, i)[2::3]]
    if plan.dtype == torch.float32:
        return [w.contiguous() if w.shape[2] == 1 else w for w in given]
    copies = [torch.empty_like(w, dtype=plan.dtype) for w in given]
    torch._foreach_copy_(copies, given)
    return copies


def _in_float32(gradients: list[Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    """``gradients`` with those of another dtype copied to float32, all at once."""
    places = [i for i, gradient in enumerate(gradients) if gradient.dtype != torch.float32]
    copies = [torch.empty_like(parameters[i]) for i in places]
    if copies:
        torch._foreach_copy_(copies, [gradients[i] for i in places])
    for i, copy in zip(places, copies, strict=True):
        gradients[i] = copy
    return gradients


def _of_layer(parameters: Sequence[Tensor], index: int) -> Sequence[Tensor]:
    return parameters[index * PARAMETERS : (index + 1) * PARAMETERS]


def _as_images(rows: Tensor, y: Tensor) -> Tensor:
    """``(rows, C)`` as ``(N, C, H, W)``, channels_last."""
    images, _, height, width = y.shape
    return rows.view(images, height, width, rows.shape[1]).permute(0, 3, 1, 2)
