"""Ranges of a network's activations on images, for ``scheme``."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from densenet121.network.densenet import DenseNet


@dataclass(frozen=True)
class Range:
    """Lowest and highest value and mean of each channel, float64."""

    low: Tensor
    high: Tensor
    mean: Tensor


@dataclass
class Statistics:
    """What ``measure`` found.

    Attributes:
        stored: of the channels of each block, before any norm.
        inputs: of the inputs of each layer's ``conv1`` and ``conv2`` and of transitions, by name.
    """

    stored: list[Range] = field(default_factory=list)
    inputs: dict[str, Range] = field(default_factory=dict)


class _Sums:
    def __init__(self) -> None:
        self.found: dict[str, list[Tensor]] = {}
        self.pixels: dict[str, int] = {}

    def add(self, name: str, x: Tensor) -> None:
        """``x`` is ``(N, C, H, W)``."""
        low, high = torch.aminmax(x.transpose(0, 1).flatten(1), dim=1)
        sums = x.sum((0, 2, 3), dtype=torch.float64)
        known = self.found.get(name)
        if known is not None:
            low, high = torch.minimum(low, known[0]), torch.maximum(high, known[1])
            sums = sums + known[2]
        self.found[name] = [low, high, sums]
        self.pixels[name] = self.pixels.get(name, 0) + x.numel() // x.shape[1]

    def range(self, name: str) -> Range:
        low, high, sums = self.found[name]
        return Range(low.double(), high.double(), sums / self.pixels[name])


@torch.no_grad()
def measure(model: DenseNet, batches: Iterable[Tensor]) -> Statistics:
    """The ranges of the activations on batches of normalised images.

    The result depends on the order of neither the batches nor the images in them, up to rounding.
    """
    sums = _Sums()
    children: dict[str, Any] = dict(model.features.named_children())
    blocks = len(model.block_config)
    for images in batches:
        x = children["conv0"](images)
        if "norm0" in children:
            x = children["pool0"](F.relu(children["norm0"](x)))
        for b in range(blocks):
            x = _measure_block(sums, f"features.denseblock{b + 1}", children, x)
            sums.add(f"{b}", x)
            if b + 1 < blocks:
                name = f"transition{b + 1}"
                part = children[name]
                x = F.relu(part.norm(x))
                if model.variant == "paper":
                    x = F.avg_pool2d(x, 2)
                sums.add(f"features.{name}", x)
                x = part.conv(x)
                if model.variant != "paper":
                    x = F.max_pool2d(x, 2)
    inputs = {name: sums.range(name) for name in sums.found if name.startswith("features.")}
    stored = [sums.range(f"{b}") for b in range(blocks)]
    if "norm0" in children:  # relu of the stem is the lower end of what is stored
        stored[0].low[: children["conv0"].out_channels] = 0
    return Statistics(stored, inputs)


def _measure_block(sums: _Sums, name: str, children: dict[str, Any], x: Tensor) -> Tensor:
    for i, layer in enumerate(children[name.removeprefix("features.")]):
        inputs = F.relu(layer.norm1(x))
        sums.add(f"{name}.denselayer{i + 1}.conv1", inputs)
        inner = F.relu(layer.norm2(layer.conv1(inputs)))
        sums.add(f"{name}.denselayer{i + 1}.conv2", inner)
        x = torch.cat([x, layer.conv2(inner)], 1)
    return x
