"""Inference in bf16: as near to the truth as the plain network, the same bits however it is run.

With AVX-512 and without AMX a 3x3 convolution multiplies whole numbers (whole_patches.h).
"""

import contextlib
import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from densenet121.network import DenseBlock, DenseNet, build
from densenet121.network.fused import plain_network, prepare_network
from densenet121.network.layers import DenseLayer, Transition
from densenet121.utils.var_init import initialise

from helpers.kernels import (
    LIBRARY,
    busy_processes,
    distance,
    needs_bf16,
    random_block,
    random_images,
    random_input,
    single_layer_block,
    small_net,
    threads,
    with_statistics,
    without_cancelling,
)

pytestmark = needs_bf16
in_one_call = pytest.mark.skipif(
    isinstance(LIBRARY, str) or not LIBRARY.has("network_run", torch.bfloat16),
    reason="the kernels of this machine compute bf16 part by part",
)


def infer(module: nn.Module, x: Tensor, *, plain: bool = False) -> Tensor:
    way = plain_network() if plain else contextlib.nullcontext()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), way:
        y: Tensor = module(x)
    return y


def exact(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad(), plain_network():
        y: Tensor = copy.deepcopy(module).double()(x.double())
    return y


@settings(max_examples=40, deadline=None)
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
    without_cancelling(block, columns)
    for name, weight in block.named_parameters():
        if "conv2" in name:
            weight.data[1::2] *= -1  # of a whole channel of the output
    x = random_input(count, columns, height, width).bfloat16().float()
    with threads(num_threads):
        fast = infer(block, x.bfloat16().contiguous(memory_format=torch.channels_last))
    # A single number has 8 bits, so it is off by up to 0.4 %.
    assert distance(fast, exact(block, x)) < 0.01


@pytest.mark.parametrize(("name", "size"), [("densenet121", 96), ("densenet100", 32)])
def test_a_network_is_as_near_to_the_truth_as_the_plain_one(name: str, size: int) -> None:
    ratios = []
    for seed in range(4):
        net = build(name, num_classes=50)
        initialise(net, torch.Generator().manual_seed(seed))
        with_statistics(net, random_images(8, size, size))
        x = random_images(3, size, size).bfloat16().float()
        truth = exact(net.features, x)
        ours, plain = (distance(infer(net.features, x, plain=way), truth) for way in (False, True))
        ratios.append(ours / plain)
    # Measured: 0.79 and 0.82; with direct convolutions, as for AMX, 0.97 and 0.91.
    assert math.exp(sum(map(math.log, ratios)) / len(ratios)) < 1.0


@pytest.mark.parametrize("large_maps", [False, True])
def test_a_block_rounds_less_than_the_plain_one(large_maps: bool) -> None:
    block = random_block(3, 64, 32, large_maps=large_maps).float()
    with_statistics(block, random_input(8, 64, 28, 28).float())
    x = random_input(2, 64, 28, 28).bfloat16().contiguous(memory_format=torch.channels_last)
    truth = exact(block, x)
    ours, plain = (distance(infer(block, x, plain=way), truth) for way in (False, True))
    assert ours < plain


@pytest.mark.parametrize("large_maps", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1.0, 1e15])
def test_the_largest_sums_do_not_overflow(large_maps: bool, sign: int, scale: float) -> None:
    """All pixels and all weights as large as their units allow, of one sign."""
    weight = torch.full((32, 128, 3, 3), sign * scale)
    block, x = single_layer_block(weight, torch.ones(128), large_maps=large_maps)
    assert distance(infer(block, x)[:, 16:], exact(block, x)[:, 16:]) < 0.004


@in_one_call
@pytest.mark.parametrize("large_maps", [False, True])
def test_weights_of_every_size_keep_a_unit_of_their_own(large_maps: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn((32, 128, 3, 3), generator=generator)
    weight *= 10.0 ** torch.arange(-16, 16).reshape(32, 1, 1, 1)
    weight[3] = 0
    weight[7, 1:] = 0  # one channel has all
    block, x = single_layer_block(
        weight, torch.rand(128, generator=generator), large_maps=large_maps
    )
    ours, truth = infer(block, x)[:, 16:], exact(block, x)[:, 16:]
    assert ours[:, 3].count_nonzero() == 0
    for channel in range(32):
        assert distance(ours[:, channel], truth[:, channel]) < 0.02, channel


@pytest.mark.parametrize("large_maps", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_no_number_spoils_its_channel_alone(
    large_maps: bool, value: float
) -> None:
    weight = torch.ones(32, 128, 3, 3)
    weight[5, 2, 1, 1] = value
    block, x = single_layer_block(weight, torch.ones(128), large_maps=large_maps)
    finite = infer(block, x)[:, 16:].isfinite()
    assert not finite[:, 5].any()
    assert finite[:, :5].all()
    assert finite[:, 6:].all()


@pytest.mark.parametrize("large_maps", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_pixel_that_is_no_number_is_seen_where_it_is_read(large_maps: bool, value: float) -> None:
    block = random_block(2, 16, 32, large_maps=large_maps).float().eval()
    x = random_input(2, 16, 12, 12).float()
    x[1, 3, 5, 6] = value
    y = infer(block, x.bfloat16().contiguous(memory_format=torch.channels_last))
    assert not y[1, 16:, 4:7, 5:8].isfinite().all(dim=0).any()
    assert y[0].isfinite().all()


@pytest.mark.parametrize("large_maps", [False, True])
def test_an_image_has_the_same_bits_in_any_batch_and_with_any_threads(large_maps: bool) -> None:
    block = random_block(3, 64, 32, large_maps=large_maps).float().eval()
    for size in (3, 7, 14, 30):
        x = random_input(9, 64, size, size).bfloat16().contiguous(memory_format=torch.channels_last)
        found = []
        for number in (1, 2, 3, 5):
            with threads(number):
                found.append(infer(block, x))
                found.append(torch.cat([infer(block, some) for some in torch.split(x, [1, 3, 5])]))
        assert all(torch.equal(found[0], other) for other in found[1:])


def test_a_network_gives_the_same_bits_with_any_threads_batch_and_layout() -> None:
    features, x = small_net().eval().features, random_images(7, 45, 52)
    found = []
    for number in (1, 2, 3, 5):
        with threads(number):
            found.append(infer(features, x))
            found.append(torch.cat([infer(features, some) for some in torch.split(x, [1, 2, 4])]))
    found.append(infer(features, x.contiguous(memory_format=torch.channels_last)))
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_a_network_beside_busy_processes_gives_the_same_bits() -> None:
    features, x = small_net(growth_rate=32).eval().features, random_images(1, 96, 96)
    with threads(1):
        alone = infer(features, x)
    with busy_processes() as count, threads(count + 1):
        assert all(torch.equal(infer(features, x), alone) for _ in range(50))


def test_nan_in_an_image_is_seen_in_its_logits_and_in_no_other_s() -> None:
    net, x = small_net().eval(), random_images(3, 48, 48)
    x[1, 0, 20, 20] = torch.nan
    assert infer(net, x).isnan().any(dim=1).tolist() == [False, True, False]


def in_one(net: DenseNet, x: Tensor) -> Tensor | None:
    """The features by one call of the kernels, if they are computed so."""
    parts = list(net.features.children())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        call = prepare_network(parts, (DenseBlock, DenseLayer, Transition), None, x)
        return None if call is None else call.maps()


@in_one_call
def test_a_network_is_one_call_of_the_kernels() -> None:
    net, x = small_net(stem="cifar").eval(), random_images(2, 32, 32)
    found = in_one(net, x)
    assert found is not None
    assert found.dtype == torch.bfloat16
    assert torch.equal(infer(net.features, x), found)
    # Images that are bf16 already, and weights that are, go part by part or the plain way.
    assert in_one(net, x.bfloat16()) is None
    assert in_one(net.bfloat16(), x) is None


@in_one_call
def test_changed_weights_are_seen_by_the_next_inference() -> None:
    net, x = small_net(stem="cifar").eval(), random_images(2, 32, 32)
    before = in_one(net, x)
    assert before is not None
    for name in ("conv0.weight", "denseblock2.denselayer2.conv2.weight", "transition1.norm.bias"):
        with torch.no_grad():
            net.features.get_parameter(name).mul_(-3).add_(0.5)
        after = in_one(net, x)
        assert after is not None
        assert not torch.equal(after, before)
        assert distance(after, exact(net.features, x)) < 0.02
        before = after


@in_one_call
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_images_of_any_channels_and_odd_sizes(channels: int, stem: str) -> None:
    """Two numbers of an image are multiplied at once: of some windows one has no partner."""
    for height, width in ((33, 40), (40, 33), (35, 37)):
        x = random_images(3, height, width, channels)
        net = small_net(stem=stem, channels=channels)
        with_statistics(net, random_images(4, 32, 32, channels))
        truth = exact(net.features, x)
        ours, plain = (distance(infer(net.features, x, plain=way), truth) for way in (False, True))
        assert ours < 1.3 * plain
