"""From a trained network to one of 8-bit integers.

Notation: a stored channel of a block is ``y = zero + step * q`` with q of 16 bits. A layer's
input ``x = relu(s * y + t)`` is ``input_step * p`` with p in [0, 255], a step for each channel,
which is multiplied into the weights. An output channel of a convolution is ``delta * sum + bias``,
its weights being ``delta`` times whole numbers.

Each convolution has ``weight`` (s8), ``bias`` (s32, in units of delta) and ``scale`` (delta by the
step of what it writes); each norm before one has ``factor`` and ``shift`` (s16), see
``native/network/int8_affine.h``. They have the names of the network's modules.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from densenet121.network.densenet import DenseNet
from densenet121.network.int8.statistics import Range, Statistics
from densenet121.network.int8.weights import quantise_weights

FRACTION = 4  # binary places of a norm's result
LARGEST_SCALE = 8.0
LARGEST_BIAS = 2**26
ROOM = 0.5  # of the range of a stored channel, on both sides: 16 bits have plenty
INPUT_ROOM = 1.15  # times the largest input; 8 bits have less
LOWEST = -32768  # of a stored number
LARGEST_FACTOR = 32767


@dataclass(frozen=True)
class Output:
    """What a convolution writes: ``low + step * p`` with p of 0 and above.

    Attributes:
        low: the smallest number of each channel.
        step: of each channel.
        least: the whole number that stands for ``low``.
    """

    low: Tensor
    step: Tensor
    least: int = 0

    @property
    def zero(self) -> Tensor:
        """The number that 0 stands for."""
        return self.low - self.least * self.step

    def part(self, begin: int, end: int) -> "Output":
        """Some of the channels, as views."""
        return Output(self.low[begin:end], self.step[begin:end], self.least)


def stored(found: Range) -> Output:
    """The channels of a block, with room for images that reach further than those measured."""
    reach = (found.high - found.low) * ROOM
    low = torch.where(found.low == 0, found.low, found.low - reach)  # 0: that of relu
    step = (found.high + reach - low) / 65535
    return Output(low, step.clamp_min(step.max() * 1e-4).clamp_min(1e-10), LOWEST)


@torch.no_grad()
def quantise_network(
    model: DenseNet, statistics: Statistics, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Tensor]:
    """The tensors of ``Int8Network``.

    Args:
        model: the network, in evaluation mode.
        statistics: ranges of its activations.
        mean: of each channel of the images, in grey levels.
        std: standard deviation of each channel, in grey levels.
    """
    tensors: dict[str, Tensor] = {}
    children: dict[str, Any] = dict(model.features.named_children())
    blocks = len(model.block_config)
    before = stored(statistics.stored[0])
    low = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
    step = torch.tensor(std, dtype=torch.float64)
    tensors["images.low"], tensors["images.step"] = low.float(), step.float()
    _stem(tensors, children, before, low, step)
    for b in range(blocks):
        name = f"features.denseblock{b + 1}"
        block = children[f"denseblock{b + 1}"]
        first = block[0].norm1.num_features
        for i, layer in enumerate(block):
            _layer(tensors, f"{name}.denselayer{i + 1}", layer, before, statistics, first)
            first += layer.conv2.out_channels
        if b + 1 < blocks:
            after = stored(statistics.stored[b + 1])
            part, name = children[f"transition{b + 1}"], f"features.transition{b + 1}"
            found = statistics.inputs[name]
            steps = input_steps(part.conv.weight, found, _affine(part.norm)[0] * before.step)
            _norm(tensors, f"{name}.norm", part.norm, before, steps)
            bias = torch.zeros(part.conv.out_channels, dtype=torch.float64)
            weights = part.conv.weight.double()
            out = after.part(0, len(bias))
            _convolution(tensors, f"{name}.conv", weights, steps, found.mean, bias, out)
            before = after
    _last_norm(tensors, children["norm5"], before)
    tensors["classifier.weight"] = model.classifier.weight.detach().float().clone()
    tensors["classifier.bias"] = model.classifier.bias.detach().float().clone()
    return tensors


def _stem(
    tensors: dict[str, Tensor],
    children: Mapping[str, Any],
    stored: Output,
    low: Tensor,
    step: Tensor,
) -> None:
    weight = children["conv0"].weight.detach().double()
    bias = torch.zeros(len(weight), dtype=torch.float64)
    if "norm0" in children:
        scale, bias = _affine(children["norm0"])
        weight = weight * scale.view(-1, 1, 1, 1)
    bias = bias + (weight * low.view(1, -1, 1, 1)).sum((1, 2, 3))
    levels = torch.full_like(low, 127.5)
    out = stored.part(0, len(bias))
    _convolution(tensors, "features.conv0", weight, 1 / step, levels / step, bias, out)


def _layer(
    tensors: dict[str, Tensor],
    name: str,
    layer: Any,
    stored: Output,
    statistics: Statistics,
    first: int,
) -> None:
    """``first`` is the number of input channels, and the place of the first new one."""
    found, inner = statistics.inputs[f"{name}.conv1"], statistics.inputs[f"{name}.conv2"]
    before = stored.part(0, first)
    scale, shift = _affine(layer.norm2)
    weight = layer.conv1.weight.detach().double() * scale.view(-1, 1, 1, 1)
    steps = input_steps(weight, found, _affine(layer.norm1)[0] * before.step)
    _norm(tensors, f"{name}.norm1", layer.norm1, before, steps)
    weight2 = layer.conv2.weight.detach().double()
    inner_steps = input_steps(weight2, inner)
    bottleneck = Output(torch.zeros_like(inner_steps), inner_steps)
    _convolution(tensors, f"{name}.conv1", weight, steps, found.mean, shift, bottleneck)
    new = stored.part(first, first + len(weight2))
    bias = torch.zeros(len(weight2), dtype=torch.float64)
    _convolution(tensors, f"{name}.conv2", weight2, inner_steps, inner.mean, bias, new)


def input_steps(weight: Tensor, found: Range, slope: Tensor | None = None) -> Tensor:
    """The step of each input channel of a convolution.

    A step for each channel makes large weights where activations are large, one step for all rounds
    small activations away; halfway between both, the errors are equal (SmoothQuant, Xiao et al.
    2023, equation 4).

    Args:
        weight: of the convolution.
        found: ranges of its input.
        slope: change of the input for one step of the stored channel, which a factor of 16 bits
            must be able to express.
    """
    high = (found.high * INPUT_ROOM).clamp_min(found.high.max() * 1e-4).clamp_min(1e-8)
    largest = weight.detach().double().abs().amax((0, 2, 3))
    largest = largest.clamp_min(largest.max() * 1e-4).clamp_min(1e-8)
    steps = (high / largest).sqrt()
    steps = steps * (high / steps).max() / 255
    if slope is not None:
        steps = torch.maximum(steps, slope.abs() * (32768 << FRACTION) / LARGEST_FACTOR)
    return steps


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.detach().double() - norm.running_mean.double() * scale


def _norm(
    tensors: dict[str, Tensor],
    name: str,
    norm: nn.BatchNorm2d,
    stored: Output,
    steps: Tensor,
    fraction: int = FRACTION,
) -> None:
    scale, shift = _affine(norm)
    factor = scale * stored.step / steps * (32768 << fraction)
    offset = (scale * stored.zero + shift) / steps * (1 << fraction)
    tensors[f"{name}.factor"] = factor.round().clamp(-32767, 32767).to(torch.int16)
    tensors[f"{name}.shift"] = offset.round().clamp(-32768, 32767).to(torch.int16)


def _last_norm(tensors: dict[str, Tensor], norm: nn.BatchNorm2d, stored: Output) -> None:
    """norm5, whose result is averaged: it has all of 16 bits."""
    scale, shift = _affine(norm)
    middle, reach = (scale * stored.zero + shift).abs(), (scale * stored.step).abs() * 32768
    steps = ((middle + reach) / 32000).clamp_min(1e-12)
    _norm(tensors, "features.norm5", norm, stored, steps, fraction=0)
    tensors["features.norm5.scale"] = steps.float()


def _convolution(
    tensors: dict[str, Tensor],
    name: str,
    weight: Tensor,
    steps: Tensor,
    mean: Tensor,
    bias: Tensor,
    out: Output,
) -> None:
    """Quantise a convolution ``weight * x + bias`` of ``steps`` of x that writes ``out``."""
    exact = weight * steps.view(1, -1, 1, 1)
    whole, delta = quantise_weights(exact)
    # What rounding the weights adds on average is taken away again.
    error = (whole * delta.view(-1, 1, 1, 1) - exact) / steps.view(1, -1, 1, 1)
    bias = bias - (error.sum((2, 3)) * mean).sum(1)
    least = (bias.abs() + out.zero.abs()) / LARGEST_BIAS
    whole = (whole * (delta / torch.maximum(delta, least)).view(-1, 1, 1, 1)).round()
    delta = torch.maximum(delta, least)
    # A channel that is nearly constant has coarser steps; whoever reads it comes after this.
    out.step.copy_(torch.maximum(out.step, delta / LARGEST_SCALE))
    bias, scale = bias - out.zero, (delta / out.step).clamp(1e-30, LARGEST_SCALE)
    tensors[f"{name}.weight"] = whole.to(torch.int8)
    tensors[f"{name}.bias"] = (bias / delta).round().to(torch.int32)
    tensors[f"{name}.scale"] = scale.float()
