"""Networks and inputs for the tests of the kernels, and how far two tensors are apart."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densenet121.native.network import kernels
from densenet121.network import FOR_SMALL_IMAGES, NETWORKS, DenseNet, Variant
from densenet121.network.fused import plain_network
from densenet121.network.layers import DenseBlock, DenseLayer
from densenet121.utils.var_init import initialise

LIBRARY = kernels()
needs_kernels = pytest.mark.skipif(isinstance(LIBRARY, str), reason=f"no kernels here: {LIBRARY}")
needs_bf16 = pytest.mark.skipif(
    isinstance(LIBRARY, str) or not LIBRARY.supports(torch.bfloat16),
    reason="no kernels for bf16 on this machine",
)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def busy_processes() -> Iterator[int]:
    """One for each processor, so that the system suspends threads in the middle of their work."""
    count = os.cpu_count() or 1
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield count
    finally:
        for other in others:
            other.kill()
            other.wait()


def distance(a: Tensor | None, b: Tensor | None, floor: float = 1e-30) -> float:
    """Relative to b, in the Euclidean norm; or to ``floor`` where b is smaller than that."""
    assert a is not None
    assert b is not None
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(floor))


NETS: list[tuple[str, Variant]] = [
    *((name, "paper") for name in NETWORKS),
    *((name, "model_zoo") for name in NETWORKS if name not in FOR_SMALL_IMAGES),
]


def random_block(
    layers: int, columns: int, growth: int, bn_size: int = 4, *, large_maps: bool = False
) -> DenseBlock:
    torch.manual_seed(layers)
    block = DenseBlock(layers, columns, growth, bn_size, large_maps=large_maps).double()
    for name, parameter in block.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter)
    return block


def single_layer_block(
    weight: Tensor, level: Tensor, *, large_maps: bool
) -> tuple[DenseBlock, Tensor]:
    """A block of one layer whose bottleneck is ``level`` in every pixel, and its input.

    Its norms change nothing, and the weights of its 3x3 convolution are ``weight``.
    """
    block = DenseBlock(1, 16, 32, 4, large_maps=large_maps)
    layer = next(iter(block))
    assert isinstance(layer, DenseLayer)
    with torch.no_grad():
        layer.conv1.weight.zero_()
        layer.conv1.weight[:, 0, 0, 0] = level
        layer.conv2.weight.copy_(weight)
        for norm in (layer.norm1, layer.norm2):
            norm.eps = 1e-12
    x = torch.zeros(1, 16, 12, 12)
    x[:, 0] = 1
    return block.eval(), x.bfloat16().contiguous(memory_format=torch.channels_last)


def with_statistics(module: nn.Module, x: Tensor) -> nn.Module:
    """In evaluation, with the running statistics of x."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None
    with torch.no_grad(), plain_network():
        module(x)
    return module.eval()


def without_cancelling(block: DenseBlock, columns: int) -> DenseBlock:
    """With positive weights and open relus, so that rounding is small beside every sum.

    In evaluation, with the running statistics of random images.
    """
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.constant_(module.bias, 6)
        elif isinstance(module, nn.Conv2d):
            module.weight.data.abs_()
    with_statistics(block, random_input(4, columns, 6, 6).float())
    return block


def random_input(*shape: int) -> Tensor:
    # far from zero mean: that is where variances lose their digits
    return torch.randn(shape, dtype=torch.float64, generator=torch.manual_seed(1)) * 2 + 3


def small_net(
    variant: Variant = "paper", stem: Any = "imagenet", channels: int = 3, growth_rate: int = 8
) -> DenseNet:
    net = DenseNet(
        growth_rate=growth_rate,
        block_config=(2, 3, 2),
        num_init_features=12,
        num_classes=5,
        variant=variant,
        stem=stem,
        in_channels=channels,
    )
    initialise(net, torch.Generator().manual_seed(3))
    return net


def random_images(count: int, height: int, width: int, channels: int = 3) -> Tensor:
    return torch.randn((count, channels, height, width), generator=torch.manual_seed(2))
