"""Inference of dense blocks: as exact as the plain one, and the same bits however it is run."""

import contextlib
import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from densenet121.network import DenseBlock, Variant, build
from densenet121.network.fused import plain_network
from densenet121.utils.var_init import initialise

from helpers.kernels import (
    NETS,
    busy_processes,
    distance,
    needs_bf16,
    needs_kernels,
    random_block,
    random_images,
    random_input,
    small_net,
    threads,
)


def fixed_block(
    layers: int, columns: int, growth: int, bn_size: int = 4, *, large_maps: bool = False
) -> DenseBlock:
    """With running statistics of its own, in evaluation."""
    block = random_block(layers, columns, growth, bn_size, large_maps=large_maps)
    block(random_input(4, columns, 6, 6))
    return block.eval()


def infer(block: nn.Module, x: Tensor, *, plain: bool = False) -> Tensor:
    with torch.no_grad(), plain_network() if plain else contextlib.nullcontext():
        y: Tensor = block(x)
    return y


@needs_kernels
@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 9),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    columns=st.integers(1, 70),
    layers=st.integers(1, 3),
    growth=st.integers(1, 50),
    bn_size=st.integers(1, 4),
    num_threads=st.integers(1, 3),
    large_maps=st.booleans(),
)
def test_inference_of_any_block_equals_the_plain_one_in_float64(
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
    block = fixed_block(layers, columns, growth, bn_size, large_maps=large_maps)
    x = random_input(count, columns, height, width)
    with threads(num_threads):
        fast = infer(block, x)
    assert distance(fast, infer(block, x, plain=True)) < 1e-12


@needs_kernels
@pytest.mark.parametrize("large_maps", [False, True])
@pytest.mark.parametrize("size", [3, 7, 14, 30])
def test_inference_gives_an_image_the_same_bits_in_any_batch(size: int, large_maps: bool) -> None:
    block = fixed_block(3, 64, 32, large_maps=large_maps).float()
    x = random_input(9, 64, size, size).float()
    together = infer(block, x)
    for first, last in ((0, 1), (1, 4), (4, 9)):
        assert torch.equal(infer(block, x[first:last]), together[first:last])


@needs_kernels
@pytest.mark.parametrize("size", [3, 7, 14, 30])
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("large_maps", [False, True])
def test_inference_gives_the_same_bits_with_any_number_of_threads(
    size: int, count: int, large_maps: bool
) -> None:
    block = fixed_block(3, 64, 32, large_maps=large_maps).float()
    x = random_input(count, 64, size, size).float()
    found = []
    for number in (1, 2, 3, 5):
        with threads(number):
            found.append(infer(block, x))
    assert all(torch.equal(found[0], other) for other in found[1:])


@needs_kernels
@pytest.mark.parametrize("bf16", [False, pytest.param(True, marks=needs_bf16)])
def test_inference_beside_busy_processes_gives_the_same_bits(bf16: bool) -> None:
    block = fixed_block(4, 64, 32, large_maps=True).float()
    x = random_input(1, 64, 14, 14).float()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        with threads(1):
            alone = infer(block, x)
        with busy_processes() as count, threads(count + 1):
            assert all(torch.equal(infer(block, x), alone) for _ in range(50))


@needs_kernels
@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
def test_inference_of_a_network_beside_busy_processes_gives_the_same_bits(variant: Variant) -> None:
    features, x = small_net(variant).eval().features, random_images(1, 96, 96)
    with threads(1):
        alone = infer(features, x)
    with busy_processes() as count, threads(count + 1):
        assert all(torch.equal(infer(features, x), alone) for _ in range(50))


@needs_kernels
@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
@pytest.mark.parametrize("size", [40, 96])
def test_inference_of_a_network_gives_the_same_bits_with_any_threads_and_batch(
    variant: Variant, size: int
) -> None:
    features, x = small_net(variant).eval().features, random_images(7, size, size)
    found = []
    for number in (1, 2, 3, 5):
        with threads(number):
            found.append(infer(features, x))
            found.append(torch.cat([infer(features, some) for some in torch.split(x, [1, 2, 4])]))
    assert all(torch.equal(found[0], other) for other in found[1:])


@needs_kernels
def test_inference_takes_images_in_any_layout_to_the_same_bits() -> None:
    features, x = small_net().eval().features, random_images(3, 45, 52)
    found = infer(features, x)
    assert torch.equal(infer(features, x.contiguous(memory_format=torch.channels_last)), found)
    wider = torch.zeros(3, 4, 50, 60)
    wider[:, :3, :45, :52] = x
    assert torch.equal(infer(features, wider[:, :3, :45, :52]), found)
    assert torch.equal(infer(features, x[:1].expand(2, -1, -1, -1))[1:], found[:1])


@needs_kernels
def test_nan_in_an_image_is_seen_in_its_logits_and_in_no_other_s() -> None:
    net, x = small_net().eval(), random_images(3, 48, 48)
    x[1, 0, 20, 20] = torch.nan
    assert infer(net, x).isnan().any(dim=1).tolist() == [False, True, False]


@needs_kernels
@pytest.mark.slow
@pytest.mark.parametrize(("net", "variant"), NETS)
def test_inference_of_every_network_equals_the_plain_one_in_float64(
    net: str, variant: Variant
) -> None:
    network = build(net, num_classes=5, variant=variant).double()
    initialise(network, torch.Generator().manual_seed(3))
    x = random_images(4, 72, 72).double()
    infer(network, x)  # running statistics of its own
    network.eval()
    assert distance(infer(network, x), infer(network, x, plain=True)) < 1e-10


@needs_kernels
@pytest.mark.parametrize(("net", "size"), [("densenet121", 64), ("densenet100", 32)])
def test_inference_in_float32_is_as_near_to_the_truth_as_the_plain_network(
    net: str, size: int
) -> None:
    network = build(net, num_classes=100)
    initialise(network, torch.Generator().manual_seed(3))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    x = random_images(16, size, size)
    infer(network, x)  # running statistics of its own
    network.eval()
    fast, plain = (infer(network, x, plain=way) for way in (False, True))
    truth = infer(copy.deepcopy(network).double(), x.double(), plain=True)
    # Winograd's sums round otherwise than the convolution's own: measured, 1.4 to 1.9 times its
    # distance with the patches of 4 x 4 pixels in the first two blocks.
    assert distance(fast, truth) < 2.5 * distance(plain, truth)


@needs_kernels
# Measured: 5.3e-8 and 8.6e-8, on any processor. The plain block's own distance depends on torch's
# convolution: 8.9e-8 with AVX2, 4.8e-8 with AVX-512.
@pytest.mark.parametrize(("large_maps", "most"), [(False, 8e-8), (True, 1.2e-7)])
def test_a_block_in_float32_is_within_rounding_of_float64(large_maps: bool, most: float) -> None:
    block, x = fixed_block(3, 64, 32, large_maps=large_maps), random_input(2, 64, 28, 28)
    truth = infer(block, x, plain=True)
    assert distance(infer(block.float(), x.float()), truth) < most


@needs_kernels
def test_a_block_that_is_told_of_large_maps_later_packs_its_weights_again() -> None:
    block, x = fixed_block(2, 16, 32), random_input(2, 16, 12, 12)
    large = fixed_block(2, 16, 32, large_maps=True)
    large.load_state_dict(block.state_dict())
    one, other = infer(block, x), infer(large, x)
    assert not torch.equal(one, other)
    block.patch_pixels = 4
    assert torch.equal(infer(block, x), other)
