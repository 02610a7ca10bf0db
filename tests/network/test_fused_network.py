"""Whole networks on the fast paths against the plain implementation."""

import contextlib
import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densenet121.network import DenseNet, Variant, build
from densenet121.network.fused import StemPool, plain_network, prepare_network
from densenet121.network.fused.conditions import known_statistics
from densenet121.network.layers import DenseBlock, DenseLayer, MaxPoolSame, Transition
from densenet121.utils.var_init import initialise

from helpers.kernels import NETS, distance, needs_bf16, needs_kernels, random_images, small_net

SMALL: list[tuple[str, Variant]] = [
    ("densenet121", "paper"),
    ("densenet121", "model_zoo"),
    ("densenet100", "paper"),
]


def train_steps(
    net: nn.Module, x: Tensor, steps: int, *, plain: bool
) -> tuple[list[float], dict[str, Tensor], dict[str, Tensor]]:
    """Losses, the last gradients, buffers after some steps of SGD."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    labels = torch.arange(len(x)) % 5
    losses = []
    with plain_network() if plain else contextlib.nullcontext():
        for _ in range(steps):
            loss = nn.functional.cross_entropy(net(x), labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(loss.item())
    gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    return losses, gradients, dict(net.named_buffers())


def assert_steps_agree(net: DenseNet, x: Tensor, steps: int) -> None:
    """To 1e-10, with gains and biases at random: at the start values some gradients are zero."""
    torch.manual_seed(4)
    for name, parameter in net.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.2)
    fast = train_steps(copy.deepcopy(net), x, steps, plain=False)
    plain = train_steps(copy.deepcopy(net), x, steps, plain=True)
    assert fast[0] == pytest.approx(plain[0], rel=1e-10)
    for ours, reference in zip(fast[1:], plain[1:], strict=True):
        assert ours.keys() == reference.keys()
        for name, tensor in reference.items():
            assert distance(ours[name], tensor) < 1e-10, name


@needs_kernels
@pytest.mark.parametrize(("net", "variant"), SMALL)
def test_training_step_equals_the_plain_one_in_float64(net: str, variant: Variant) -> None:
    network = build(net, num_classes=5, variant=variant).double()
    size = 16 if net == "densenet100" else 72
    assert_steps_agree(network, random_images(6, size, size).double(), 1)


@needs_kernels
@pytest.mark.slow
@pytest.mark.parametrize(("net", "variant"), NETS)
def test_training_steps_of_every_network_equal_the_plain_ones_in_float64(
    net: str, variant: Variant
) -> None:
    network = build(net, num_classes=5, variant=variant).double()
    initialise(network, torch.Generator().manual_seed(3))
    size = 32 if net == "densenet100" else 96
    assert_steps_agree(network, random_images(8, size, size).double(), 3)


@needs_kernels
@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 32), (47, 30), (37, 61)])
def test_odd_sizes_equal_the_plain_network(variant: Variant, height: int, width: int) -> None:
    assert_steps_agree(small_net(variant).double(), random_images(3, height, width).double(), 3)


@needs_kernels
def test_gradient_of_the_images_equals_the_plain_one() -> None:
    net = small_net().double()
    gradients = []
    for plain in (False, True):
        x = random_images(3, 40, 40).double().requires_grad_()
        with plain_network() if plain else contextlib.nullcontext():
            torch.autograd.backward(net(x).square().sum())
        gradients.append(x.grad)
    assert distance(gradients[0], gradients[1]) < 1e-10


@needs_kernels
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_inference_equals_the_plain_network(stem: str, count: int) -> None:
    net = small_net(stem=stem).double()
    net(random_images(8, 32, 32).double())  # running statistics of its own
    net.eval()
    x = random_images(count, 33, 40).double()
    with torch.no_grad():
        fast = net(x)
        with plain_network():
            assert distance(fast, net(x)) < 1e-12


@needs_kernels
@pytest.mark.parametrize("way", ["optimizer", "data", "buffer", "load", "eps"])
def test_changed_weights_are_seen_by_the_next_inference(way: str) -> None:
    net = small_net().double().eval()
    x = random_images(2, 32, 32).double()
    block: Any = net.features.denseblock2
    with torch.no_grad():
        before = net(x)
        if way == "optimizer":
            block.denselayer2.conv2.weight.mul_(3)
        elif way == "data":
            for parameter in net.parameters():
                parameter.data.mul_(1.01)
        elif way == "buffer":
            block.denselayer1.norm2.running_var.fill_(4)
        elif way == "load":
            state = {name: 1.1 * tensor for name, tensor in net.state_dict().items()}
            net.load_state_dict(state)
        else:
            block.denselayer1.norm1.eps = 0.5
        after = net(x)
        with plain_network():
            reference = net(x)
    assert distance(after, reference) < 1e-12
    assert not torch.equal(before, after)


def is_one_call(net: Any, x: Tensor) -> bool:
    """Whether all before the classifier is computed by one call of the kernels."""
    parts, kinds = list(net.features.children()), (DenseBlock, DenseLayer, Transition)
    with torch.no_grad():
        return prepare_network(parts, kinds, pool_of(net), x) is not None


def pool_of(net: Any) -> StemPool | None:
    kind = nn.MaxPool2d if net.variant == "paper" else MaxPoolSame
    return None if net.stem == "cifar" else StemPool(kind, net.variant != "paper")


def hook_a_block(net: Any) -> None:
    net.features.denseblock1.register_forward_hook(lambda *_: None)


def replace_a_transition(net: Any) -> None:
    net.features.transition1 = nn.Sequential(net.features.transition1)


def replace_a_convolution(net: Any) -> None:
    old = net.features.denseblock1.denselayer1.conv2
    net.features.denseblock1.denselayer1.conv2 = nn.Sequential(old)


def patch_a_forward(net: Any) -> None:
    net.features.norm5.forward = net.features.norm5.forward


def hook_the_first_convolution(net: Any) -> None:
    net.features.conv0.register_forward_pre_hook(lambda *_: None)


def dilate_the_first_convolution(net: Any) -> None:
    net.features.conv0.dilation = (2, 2)


def train_a_norm(net: Any) -> None:
    net.features.transition1.norm.train()


@needs_kernels
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize(
    "change",
    [
        hook_a_block,
        replace_a_transition,
        replace_a_convolution,
        patch_a_forward,
        hook_the_first_convolution,
        dilate_the_first_convolution,
        train_a_norm,
    ],
)
def test_changed_network_is_inferred_part_by_part(stem: str, change: Callable[[Any], None]) -> None:
    net, x = small_net(stem=stem).eval(), random_images(2, 32, 32)
    assert is_one_call(net, x)
    assert is_one_call(net, x)
    change(net)
    assert not is_one_call(net, x)
    assert not is_one_call(net, x)


@needs_kernels
def test_replaced_part_is_seen_by_the_next_inference() -> None:
    net, other = small_net().double().eval(), small_net().double().eval()
    x = random_images(2, 32, 32).double()
    for parameter in other.parameters():
        nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():
        before = net(x)
        net.features.transition1 = other.features.transition1
        after = net(x)
        with plain_network():
            assert distance(after, net(x)) < 1e-12
        net.features.norm5.weight = other.features.norm5.weight  # type: ignore[union-attr]
        with plain_network():
            reference = net(x)
        assert distance(net(x), reference) < 1e-12
    assert not torch.equal(before, after)


@needs_kernels
@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (61, 37)])
def test_inference_of_odd_sizes_equals_the_plain_network(
    variant: Variant, height: int, width: int
) -> None:
    net, x = small_net(variant).double(), random_images(5, height, width).double()
    net(x)  # running statistics of its own
    net.eval()
    assert is_one_call(net, x)
    with torch.no_grad():
        fast = net(x)
        with plain_network():
            assert distance(fast, net(x)) < 1e-12


@needs_kernels
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_for_grey_images_equals_the_plain_one(
    stem: str, layout: torch.memory_format, dtype: torch.dtype
) -> None:
    net = small_net(stem=stem, channels=1).to(dtype)
    x = random_images(5, 33, 40, channels=1).to(dtype).contiguous(memory_format=layout)
    if dtype == torch.float64:
        assert_steps_agree(net, x, 2)
    net(x)  # running statistics of its own
    net.eval()
    assert is_one_call(net, x)
    with torch.no_grad():
        fast = net(x)
        with plain_network():
            expected = net(x)
    assert distance(fast, expected) < (1e-12 if dtype == torch.float64 else 1e-5)


@needs_kernels
def test_packed_weights_go_with_the_network() -> None:
    net = small_net().eval()
    assert is_one_call(net, random_images(2, 32, 32))
    gone = weakref.ref(net.features.norm5)
    del net
    gc.collect()
    assert gone() is None


@needs_bf16
@pytest.mark.parametrize("name", ["small", "densenet121"])
def test_bf16_network_is_no_further_from_the_truth_than_the_plain_one(name: str) -> None:
    net = small_net() if name == "small" else build(name, num_classes=5)
    initialise(net, torch.Generator().manual_seed(3))
    x = random_images(8, 64, 64).bfloat16().float()
    truth = train_steps(copy.deepcopy(net).double(), x.double(), 1, plain=True)
    found = []
    for plain in (False, True):
        with torch.autocast("cpu", torch.bfloat16):
            found.append(train_steps(copy.deepcopy(net), x, 1, plain=plain))

    def all_gradients(side: Any) -> Tensor:
        # As one vector: of those that are zero but for rounding only noise would be compared.
        return torch.cat([g.flatten() for g in side[1].values()])

    fast, plain_ = (distance(all_gradients(side), all_gradients(truth)) for side in found)
    assert fast < 1.1 * plain_


@needs_kernels
def test_transition_takes_over_the_block_s_statistics_unless_they_were_changed() -> None:
    block: Any = small_net().features.denseblock1
    y = block(random_images(2, 12, 12).repeat(1, 4, 1, 1))
    known = known_statistics(y)
    assert known is not None
    torch.testing.assert_close(known[0], y.detach().mean(dim=(0, 2, 3)))
    torch.testing.assert_close(known[1], y.detach().var(dim=(0, 2, 3), unbiased=False))
    y.detach().mul_(2)
    assert known_statistics(y) is None


@needs_kernels
def test_second_derivative_is_refused_not_wrong() -> None:
    net, x = small_net().double(), random_images(2, 32, 32).double().requires_grad_()
    (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        torch.autograd.backward(gradient.sum())
    with plain_network():
        (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        torch.autograd.backward(gradient.sum())
