"""A block's training in bf16: the exact one but for rounding, where nothing cancels.

With AVX-512 and without AMX the 3x3 convolutions of large maps multiply whole numbers, forward and
backward (patch_products.h). Relus that close in one arithmetic and not in another would hide how
near they are, and so would numbers that nearly cancel in a sum: here all relus are open, and all
weights and gradients are positive.
"""

import copy
import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from densenet121.network.fused import plain_network

from helpers.kernels import (
    distance,
    needs_bf16,
    random_block,
    random_input,
    single_layer_block,
    threads,
    without_cancelling,
)

pytestmark = needs_bf16


class Step(NamedTuple):
    output: Tensor
    grad_input: Tensor
    gradients: dict[str, Tensor]


def step(block: nn.Module, x: Tensor, grad_output: Tensor, *, exact: bool = False) -> Step:
    block = copy.deepcopy(block)
    x, grad_output = (t.bfloat16().double() if exact else t.bfloat16() for t in (x, grad_output))
    x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    if exact:
        block = block.double()
    with plain_network() if exact else torch.autocast("cpu", torch.bfloat16):
        y: Tensor = block(x)
    torch.autograd.backward([y], [grad_output])
    assert x.grad is not None
    gradients = {name: p.grad for name, p in block.named_parameters() if p.grad is not None}
    return Step(y.detach(), x.grad, gradients)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 5),
    height=st.integers(1, 20),
    width=st.integers(2, 20),
    columns=st.integers(1, 70),
    layers=st.integers(1, 3),
    growth=st.integers(1, 50),
    bn_size=st.integers(1, 4),
    num_threads=st.integers(1, 3),
    large_maps=st.booleans(),
)
def test_any_block_is_the_exact_one_but_for_rounding(
    count: int,
    height: int,
    width: int,
    columns: int,
    layers: int,
    growth: int,
    bn_size: int,
    num_threads: int,
    large_maps: bool,
) -> None:
    block = random_block(layers, columns, growth, bn_size, large_maps=large_maps).float()
    x = random_input(count, columns, height, width).float()
    without_cancelling(block, columns)
    grad = torch.rand(count, columns + layers * growth, height, width)
    with threads(num_threads):
        fast = step(block, x, grad)
    truth = step(block, x, grad, exact=True)
    assert distance(fast.output, truth.output) < 0.02
    assert distance(fast.grad_input, truth.grad_input) < 0.02
    for name, gradient in truth.gradients.items():
        if "norm" in name and name.endswith("weight"):
            continue  # the sum over numbers of both signs
        assert distance(fast.gradients[name], gradient) < 0.02, name


@pytest.mark.parametrize("large_maps", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1.0, 1e15])
def test_the_largest_sums_do_not_overflow(large_maps: bool, sign: int, scale: float) -> None:
    """All pixels, gradients and weights as large as their units allow, of one sign."""
    weight = torch.full((32, 128, 3, 3), sign * scale)
    block, x = single_layer_block(weight, torch.ones(128), large_maps=large_maps)
    grad = torch.ones(1, 48, 12, 12)
    ours, truth = step(block, x, grad), step(block, x, grad, exact=True)
    assert distance(ours.output[:, 16:], truth.output[:, 16:]) < 0.004
    for name in ("denselayer1.conv1.weight", "denselayer1.conv2.weight"):
        assert distance(ours.gradients[name], truth.gradients[name]) < 0.01, name


@pytest.mark.parametrize("large_maps", [False, True])
def test_weights_of_every_size_keep_a_unit_of_their_own(large_maps: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.rand((32, 128, 3, 3), generator=generator)  # nothing cancels
    weight *= 10.0 ** torch.arange(-16, 16).repeat(4).reshape(1, 128, 1, 1)
    weight[:, 3] = 0
    weight[1:, 7] = 0  # one channel has all
    block, x = single_layer_block(
        weight, torch.rand(128, generator=generator), large_maps=large_maps
    )
    grad = torch.rand(1, 48, 12, 12, generator=generator)
    ours, truth = (
        step(block, x, grad, exact=exact).gradients["denselayer1.conv1.weight"][:, 0]
        for exact in (False, True)
    )
    assert ours[3].count_nonzero() == 0
    for channel in range(128):
        assert distance(ours[channel], truth[channel]) < 0.01, channel


@pytest.mark.parametrize("large_maps", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_is_seen_where_it_is_read(
    large_maps: bool, value: float
) -> None:
    x, grad = random_input(2, 16, 12, 12).float(), torch.randn(2, 48, 12, 12)
    block = without_cancelling(random_block(1, 16, 32, large_maps=large_maps).float(), 16)
    grad[1, 20, 5, 6] = value
    found = step(block, x, grad)
    assert not found.grad_input[1, :, 4:7, 5:8].isfinite().any()
    assert found.grad_input[0].isfinite().all()
    assert not found.gradients["denselayer1.conv1.weight"].isfinite().any()


@pytest.mark.parametrize("large_maps", [False, True])
def test_gradients_of_zero_give_zeros(large_maps: bool) -> None:
    block = random_block(2, 16, 32, large_maps=large_maps).float()
    found = step(block, random_input(2, 16, 12, 12).float(), torch.zeros(2, 80, 12, 12))
    assert found.grad_input.count_nonzero() == 0
    assert all(gradient.count_nonzero() == 0 for gradient in found.gradients.values())


@pytest.mark.parametrize("large_maps", [False, True])
def test_same_input_gives_the_same_bits(large_maps: bool) -> None:
    block = random_block(3, 64, 32, large_maps=large_maps).float()
    x, grad = random_input(3, 64, 28, 28).float(), torch.randn(3, 160, 28, 28)
    first, second = step(block, x, grad), step(block, x, grad)
    assert torch.equal(first.output, second.output)
    assert torch.equal(first.grad_input, second.grad_input)
    assert all(torch.equal(g, second.gradients[name]) for name, g in first.gradients.items())
