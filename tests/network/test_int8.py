"""Int8 inference: the bits of a reference in NumPy, on every instruction set and any threads."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from densenet121.native.network import INSTRUCTION_SETS, Kernels, _load
from densenet121.native.processor import capabilities
from densenet121.network import DenseNet, Variant
from densenet121.network.int8 import Int8Network, check_tensors, measure, quantise_network
from densenet121.network.int8.checks import VERSION, _expected
from densenet121.network.int8.packing import takes_patches
from densenet121.network.int8.plain import plain_features
from densenet121.network.int8.weights import (
    FOUR,
    PAIR,
    as_fours,
    fours_fit,
    from_fours,
    quantise_weights,
    within_fours,
    within_pairs,
)
from densenet121.utils.errors import InputError

from helpers.int8_builds import emulated_tiles, emulated_vnni, without_vnni
from helpers.int8_reference import features
from helpers.kernels import busy_processes, needs_kernels, random_images, small_net, threads

KINDS = [("paper", "imagenet", 3), ("model_zoo", "imagenet", 3), ("paper", "cifar", 1)]
MEAN, STD = (120.0, 110.0, 100.0), (60.0, 58.0, 56.0)


def libraries() -> list[Kernels]:
    """All that this processor can run, and those of ``int8_builds``."""
    names = [n for n, needed in INSTRUCTION_SETS.items() if capabilities().issuperset(needed)]
    loaded = [*(_load(name) for name in names), emulated_tiles(), emulated_vnni(), without_vnni()]
    return [library for library in loaded if isinstance(library, Kernels)]


def random_tensors(like: DenseNet, seed: int, fours: bool = False) -> dict[str, Tensor]:
    """Anything that a file may have, with numbers at the ends of their ranges.

    With ``fours`` four products fit 16 bits, as in the files that are written today.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=generator) * (high - low) + low

    tensors = {}
    for name, shape, dtype in _expected(like):
        if dtype == torch.int8:
            rows = uniform(-127, 127, (shape[0], *shape[2:], -(-shape[1] // 2), 2)).round()
            ends = uniform(0, 1, rows.shape) < 0.2
            pairs = within_pairs(torch.where(ends, rows.sign() * 127, rows))
            value = pairs.flatten(-2)[..., : shape[1]].permute(0, 3, 1, 2)
            if fours:
                value = from_fours(within_fours(as_fours(value)), shape)
        elif name.endswith(".factor"):
            value = uniform(-1, 1, shape) ** 3 * 32767
        elif name.endswith(".shift"):
            value = uniform(-1, 1, shape) ** 3 * 32768
        elif name.endswith(".bias") and dtype == torch.int32:
            value = uniform(-1, 1, shape) ** 5 * 2**20
        elif name == "images.low":
            value = uniform(-3, 0, shape)
        elif name == "images.step":
            value = uniform(20, 90, shape)
        elif name.endswith(".scale"):
            value = 10 ** uniform(-3, 0.9, shape)
            value[:: max(1, len(value) // 2)] = 8
        else:
            value = uniform(-1, 1, shape)
        tensors[name] = value.to(dtype).contiguous()
    fit = [fours_fit(value) for value in tensors.values() if value.dtype == torch.int8]
    assert all(fit) if fours else not any(fit[1:])  # conv0 may be small
    return tensors


ANY = {
    "kind": st.sampled_from(KINDS),
    "growth_rate": st.sampled_from([8, 3, 12, 20, 36]),
    "count": st.integers(1, 5),
    "height": st.integers(13, 96),
    "width": st.integers(13, 96),
    "seed": st.integers(0, 2**32),
    "fours": st.booleans(),
}


@needs_kernels
@settings(max_examples=12, deadline=None)
@given(**ANY)
def test_all_instruction_sets_and_the_plain_arithmetic_give_the_bits_of_the_reference(
    kind: tuple[Variant, str, int], height: int, width: int, **others: Any
) -> None:
    if kind[1] == "cifar":  # whose maps are as large as the images; those of 224 x 224 have 56 x 56
        height, width = 2 * height // 3, 2 * width // 3
    check_all_instruction_sets(kind, height=height, width=width, **others)


@pytest.mark.slow
@needs_kernels
@settings(max_examples=40, deadline=None)
@given(**ANY)
def test_all_instruction_sets_give_the_bits_of_the_reference_on_large_maps_too(
    kind: tuple[Variant, str, int], **others: Any
) -> None:
    check_all_instruction_sets(kind, **others)


def check_all_instruction_sets(
    kind: tuple[Variant, str, int],
    *,
    growth_rate: int,
    count: int,
    height: int,
    width: int,
    seed: int,
    fours: bool,
) -> None:
    variant, stem, channels = kind
    like = small_net(variant, stem, channels, growth_rate)
    tensors = random_tensors(like, seed, fours)
    network = Int8Network(tensors, like)
    images = random_images(count, height, width, channels) * 1.5
    expected = features(tensors, like.block_config, images.numpy(), variant=variant, stem=stem)
    for library in libraries():
        for columns in {0, library.int8_patch_columns}:  # 0: the direct 3x3 convolution
            network._pack(columns)
            found = network._by_kernels(library, images).numpy()
            assert np.array_equal(found, expected), (library.instruction_set, columns)
    plain = plain_features(
        tensors,
        like.block_config,
        images,
        stride=network._stride,
        averages=variant == "paper",
        pool_padding=network._pool_padding(*network._conv0_size(images)) if channels == 3 else None,
    )
    assert np.array_equal(plain.numpy(), expected)


@needs_kernels
@pytest.mark.parametrize("weight", [PAIR // 2, FOUR // 4, -PAIR // 2, -FOUR // 4])
@pytest.mark.parametrize("growth_rate", [56, 57])
def test_the_largest_sums_that_a_file_may_ask_for_are_exact(growth_rate: int, weight: int) -> None:
    """At the bound of ``takes_patches``: every activation 255, every weight at its limit."""
    like = small_net(growth_rate=growth_rate)
    tensors = random_tensors(like, 1, fours=abs(weight) == FOUR // 4)
    for name, value in tensors.items():
        if name.endswith("conv1.bias"):
            value[:] = 2**20
        elif name.endswith(("conv1.scale", "conv2.scale")):
            value[:] = 8 if "conv1" in name else 9e-4
        elif name.endswith("conv2.weight"):
            value[:] = weight
        elif name.endswith("conv2.bias"):
            value[:] = 0
    network = Int8Network(tensors, like)
    images = random_images(1, 96, 80)  # 30 patches in the first block: not too few
    expected = features(
        tensors, like.block_config, images.numpy(), variant="paper", stem="imagenet"
    )
    for library in libraries():
        for columns in {0, library.int8_patch_columns}:  # 0: the direct 3x3 convolution
            network._pack(columns)
            found = network._by_kernels(library, images).numpy()
            assert np.array_equal(found, expected), (library.instruction_set, columns)


@pytest.mark.parametrize(
    ("block", "bottleneck", "takes"),
    [(0, 48, True), (1, 224, True), (1, 228, False), (2, 128, False)],
)
def test_patches_are_of_large_maps_whose_sums_allow_them(
    block: int, bottleneck: int, takes: bool
) -> None:
    assert takes_patches(block, bottleneck) == takes


@needs_kernels
@pytest.mark.parametrize("kind", KINDS)
def test_threads_other_images_and_layout_change_no_bit(kind: tuple[Variant, str, int]) -> None:
    variant, stem, channels = kind
    like = small_net(variant, stem, channels)
    network = Int8Network(random_tensors(like, 1), like)
    images = random_images(9, 45, 37, channels)
    alone = torch.cat([network.pooled(image[None]) for image in images])
    for count in (1, 2, 3):
        with threads(count):
            assert torch.equal(network.pooled(images), alone)
            assert torch.equal(network.pooled(images[:2]), alone[:2])
    layouts = (torch.contiguous_format, torch.channels_last)
    around = [torch.full((9, 4, 50, 80), torch.nan).contiguous(memory_format=f) for f in layouts]
    inner = [of[:, :channels, 3:48, 5:42] for of in around]  # with what is not of the image around
    spread = [of[:, 4 - channels :, :45, 1:75:2] for of in around]
    for strided in (images.clone(memory_format=torch.channels_last), *inner, *spread):
        strided.copy_(images)
        assert torch.equal(network.pooled(strided), alone)
        strided.fill_(torch.nan)


@needs_kernels
def test_busy_processes_beside_it_change_no_bit() -> None:
    like = small_net("paper")
    network = Int8Network(random_tensors(like, 1), like)
    image = random_images(1, 96, 96)
    with threads(1):
        alone = network.pooled(image)
    with busy_processes() as count, threads(count + 1):
        assert all(torch.equal(network.pooled(image), alone) for _ in range(50))


def quantised(like: DenseNet, images: Tensor) -> dict[str, Tensor]:
    channels = like.in_channels
    return quantise_network(like, measure(like, [images]), MEAN[:channels], STD[:channels])


def pixels(count: int, side: int, channels: int) -> Tensor:
    """Normalised images of whole grey levels, with large structures."""
    generator = torch.Generator().manual_seed(7)
    small = torch.rand((count, channels, 4, 4), generator=generator) * 255
    large = torch.nn.functional.interpolate(small, size=side, mode="bilinear").round()
    mean, std = (torch.tensor(of[:channels]).view(-1, 1, 1) for of in (MEAN, STD))
    return (large - mean) / std


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_near_those_of_the_network(kind: tuple[Variant, str, int]) -> None:
    variant, stem, channels = kind
    like = small_net(variant, stem, channels)
    images = pixels(8, 48, channels)
    like.train()(images)
    like.eval()
    network = Int8Network(quantised(like, images), like)
    with torch.no_grad():
        expected, found = like(images), network(images)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(network(images), found)
    noise = (found - expected).square().mean() / expected.var(0).mean()
    assert float(noise) < 1e-2
    assert found.dtype == torch.float32 and not found.requires_grad


def test_equal_images_give_equal_tensors() -> None:
    like, images = small_net().eval(), pixels(4, 40, 3)
    first, again = (quantised(like, images) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    check_tensors(first, like, {"version": VERSION}, Path("w"))


def test_a_channel_that_is_always_zero_is_no_error() -> None:
    like = small_net().eval()
    layer: Any = like.get_submodule("features.denseblock1.denselayer1")
    layer.norm1.bias.data[:] = -1e3
    layer.conv2.weight.data[:] = 0
    images = pixels(2, 40, 3)
    tensors = quantised(like, images)
    check_tensors(tensors, like, {"version": VERSION}, Path("w"))
    assert torch.isfinite(Int8Network(tensors, like)(images)).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 9), st.sampled_from([1, 3]))
def test_weights_fit_the_16_bits_of_two_products(seed: int, channels: int, size: int) -> None:
    weight = torch.randn((4, channels, size, size), generator=torch.Generator().manual_seed(seed))
    weight = weight.double() ** 3
    whole, unit = quantise_weights(weight)
    rows = torch.nn.functional.pad(whole.permute(0, 2, 3, 1), (0, channels % 2))
    pairs = rows.reshape(4, size, size, -1, 2)
    assert pairs.abs().sum(-1).max() <= PAIR and whole.abs().max() <= 127
    # The unit is that of the largest weight or pair, or smaller.
    error = (whole * unit.view(-1, 1, 1, 1) - weight).abs().amax((1, 2, 3))
    assert bool((error <= weight.abs().amax((1, 2, 3)) * 0.25 + 1e-9).all())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 21), st.sampled_from([1, 3, 7]))
def test_weights_fit_the_16_bits_of_four_products(seed: int, channels: int, size: int) -> None:
    """By the order in which AVX2 reads a row of the convolution, taken apart number by number."""
    weight = torch.randn((4, channels, size, size), generator=torch.Generator().manual_seed(seed))
    whole, _ = quantise_weights(weight.double() ** 3)
    assert torch.equal(from_fours(as_fours(whole), whole.shape), whole)
    assert fours_fit(whole.to(torch.int8))
    padded = channels + -channels % 4
    for o in range(4):
        for r in range(size):
            line = [0.0] * (size * padded + 8)
            for c in range(size):
                line[c * padded : c * padded + channels] = whole[o, :, r, c].tolist()
            for k in range(0, size * padded, 8):
                for i in (k, k + 2):
                    four = [line[i], line[i + 1], line[i + 4], line[i + 5]]
                    assert 255 * sum(w for w in four if w > 0) <= 32767
                    assert 255 * sum(w for w in four if w < 0) >= -32768


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-127, 127), min_size=4, max_size=4))
def test_four_weights_become_smaller_only_where_they_are_too_large(numbers: list[int]) -> None:
    before = torch.tensor([numbers], dtype=torch.float64)
    after = within_fours(before)
    assert bool((after.abs() <= before.abs()).all() and (after * before >= 0).all())
    for sign in (1, -1):
        total = (before * sign).clamp_min(0).sum()
        assert float((after * sign).clamp_min(0).sum()) == min(float(total), FOUR)


CONV = "features.denseblock1.denselayer1.conv1"
NORM = "features.denseblock1.denselayer1.norm1"
HARM = {
    f"{CONV}.weight": (torch.full((32, 12, 1, 1), 127, dtype=torch.int8), "adjacent weights"),
    f"{CONV}.bias": (torch.full((32,), 2**27, dtype=torch.int32), "bias is out of range"),
    f"{CONV}.scale": (torch.full((32,), 9.0), "scale is out of range"),
    f"{NORM}.factor": (torch.full((12,), -32768, dtype=torch.int16), "factor is out of range"),
    f"{NORM}.shift": (torch.zeros(11, dtype=torch.int16), r"is \(11,\) torch.int16, but"),
    "features.norm5.scale": (torch.full((35,), float("nan")), "not finite"),
    "images.step": (torch.zeros(3), "scale is out of range"),
}


@pytest.mark.parametrize("name", HARM)
def test_a_file_whose_numbers_the_kernels_do_not_allow_is_refused(name: str) -> None:
    like = small_net()
    tensors, (value, reason) = random_tensors(like, 1), HARM[name]
    check_tensors(tensors, like, {"version": VERSION}, Path("w"))
    with pytest.raises(InputError, match=reason):
        check_tensors(tensors | {name: value}, like, {"version": VERSION}, Path("w"))
    with pytest.raises(InputError, match="missing"):
        rest = {key: tensor for key, tensor in tensors.items() if key != name}
        check_tensors(rest, like, {"version": VERSION}, Path("w"))
    with pytest.raises(InputError, match="unknown int8 tensor"):
        check_tensors(tensors | {"features.x": value}, like, {"version": VERSION}, Path("w"))
    with pytest.raises(InputError, match="version 2; this program reads version 1"):
        check_tensors(tensors, like, {"version": 2}, Path("w"))


@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
def test_a_copy_has_the_logits_of_the_network_and_memory_of_its_own(way: str) -> None:
    like, images = small_net("paper"), random_images(2, 32, 32)
    network = Int8Network(random_tensors(like, 1), like)
    expected = network(images)
    copied = copy.deepcopy(network) if way == "deepcopy" else pickle.loads(pickle.dumps(network))
    del network
    assert torch.equal(copied(images), expected)


@pytest.mark.parametrize("shape", [(2, 4, 32, 32), (2, 1, 32, 32), (2, 3, 8, 32), (3, 32, 32)])
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    """The kernels would read other memory than the images', or divide by their size."""
    like = small_net("paper")
    network = Int8Network(random_tensors(like, 1), like)
    for compute in (network, network.pooled):
        with pytest.raises(InputError, match=r"images must be \(N, 3, H, W\) of at least"):
            compute(torch.zeros(shape))
