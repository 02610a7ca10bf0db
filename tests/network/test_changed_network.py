"""Networks that their owner has changed: the fast paths give what the changed modules give."""

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from densenet121.network import MaxPoolSame, plain_network
from densenet121.network.sync_batch_norm import SyncBatchNorm2d

from helpers.kernels import distance, needs_kernels, random_images, small_net


class DoubledPool(nn.MaxPool2d):
    def forward(self, x: Tensor) -> Tensor:
        doubled: Tensor = 2 * super().forward(x)
        return doubled


class DoubledSamePool(MaxPoolSame):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


POOLS_OF_TRANSITIONS = [
    nn.AvgPool2d(2, stride=1),
    nn.AvgPool2d(1),
    nn.AvgPool2d(3, stride=2, padding=1),
    nn.AvgPool2d(2, ceil_mode=True),
    nn.AvgPool2d(2, divisor_override=3),
    nn.MaxPool2d(2),
    nn.MaxPool2d(2, stride=1),
    nn.MaxPool2d(2, dilation=2),
]
POOLS_OF_STEMS = [
    nn.MaxPool2d(2),
    nn.MaxPool2d(3, stride=1, padding=1),
    nn.MaxPool2d(3, stride=2, ceil_mode=True),
    nn.MaxPool2d(3, stride=2, padding=1, dilation=2),
    DoubledPool(3, stride=2, padding=1),
    DoubledSamePool(),
]


def set_transitions(net: Any, pool: nn.Module) -> None:
    net.features.transition1.pool, net.features.transition2.pool = pool, copy.deepcopy(pool)


def set_stem(net: Any, pool: nn.Module) -> None:
    net.features.pool0 = pool


def results(net: nn.Module, images: Tensor, *, plain: bool) -> list[Tensor]:
    """Logits of an inference and of a step of training, and the gradients of that step."""
    net = copy.deepcopy(net)
    with plain_network() if plain else contextlib.nullcontext():
        with torch.no_grad():
            inferred = net.eval()(images)
        trained = net.train()(images)
        torch.autograd.backward(trained.square().sum())
    return [inferred, trained.detach(), *(p.grad for p in net.parameters() if p.grad is not None)]


@needs_kernels
@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
@pytest.mark.parametrize(
    ("place", "pool"),
    [(set_transitions, pool) for pool in POOLS_OF_TRANSITIONS]
    + [(set_stem, pool) for pool in POOLS_OF_STEMS],
    ids=lambda value: getattr(value, "__name__", str(value)),  # without the address of a function
)
def test_another_pooling_is_computed_as_it_is(
    variant: Any, place: Callable[[Any, nn.Module], None], pool: nn.Module
) -> None:
    net, images = small_net(variant).double(), random_images(3, 72, 76).double()
    place(net, pool)
    pairs = zip(*(results(net, images, plain=plain) for plain in (False, True)), strict=True)
    assert max(distance(fast, plain) for fast, plain in pairs) < 1e-8


@torch.no_grad()
def test_a_maximum_in_a_transition_comes_after_its_convolution() -> None:
    part: Any = small_net().double().features.transition1
    part.pool = nn.MaxPool2d(2)
    x = torch.rand(2, part.conv.in_channels, 8, 8, dtype=torch.float64)
    assert distance(part(x), part.pool(part.conv(torch.relu(part.norm(x))))) < 1e-12


@torch.no_grad()
def test_a_convolution_that_is_none_comes_before_the_average() -> None:
    part: Any = small_net().double().features.transition1
    x = torch.rand(2, part.conv.in_channels, 8, 8, dtype=torch.float64)
    part.conv = nn.Sequential(part.conv, nn.ReLU())
    assert distance(part(x), part.pool(part.conv(torch.relu(part.norm(x))))) < 1e-12


@needs_kernels
def test_statistics_that_are_not_to_be_tracked_stay() -> None:
    net, images = small_net(), random_images(3, 32, 32)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.track_running_stats = False
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    net.train()(images)
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())


def test_a_synchronised_norm_does_not_track_what_is_not_to_be_tracked() -> None:
    norm = SyncBatchNorm2d(4)
    norm.track_running_stats = False
    norm._update_running(torch.ones(4), torch.full((4,), 3.0), torch.tensor(8.0))
    assert norm.running_mean is not None and not norm.running_mean.any()
    assert norm.num_batches_tracked == 0


def freeze(net: Any) -> None:
    net.features.requires_grad_(False)


@pytest.mark.parametrize("training", [True, False])
def test_a_hook_may_train_something_in_a_frozen_network(training: bool) -> None:
    net: Any = small_net().double().train(training)
    freeze(net)
    images = random_images(2, 32, 32).double()
    shift = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    net.features.conv0.register_forward_hook(lambda module, given, maps: maps + shift)
    (found,) = torch.autograd.grad(net(images)[:, 0].sum(), shift)
    with torch.no_grad():
        ends = []
        for step in (1e-6, -1e-6):
            shift.fill_(step)
            ends.append(net(images)[:, 0].sum())
    assert found.item() == pytest.approx(((ends[0] - ends[1]) / 2e-6).item(), rel=1e-4, abs=1e-7)


def test_a_hook_may_ask_for_the_gradient_of_maps_of_a_frozen_network() -> None:
    net: Any = small_net().double().eval()
    freeze(net)
    seen: list[Tensor] = []
    net.features.denseblock2.register_forward_hook(
        lambda module, given, maps: seen.append(maps.requires_grad_())
    )
    logits = net(random_images(2, 32, 32).double())
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), seen[0])
    assert gradient.abs().max() > 0


# torch itself uses what it deprecates here (and, with Python 3.14, does not support).
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is (deprecated|not supported)")
@pytest.mark.parametrize("gradients", [True, False])
def test_derivatives_in_forward_mode_are_those_of_the_network(gradients: bool) -> None:
    net, images = small_net().double().eval(), random_images(2, 32, 32).double()
    direction = torch.ones_like(images)
    with torch.no_grad():
        expected = (net(images + 1e-6) - net(images - 1e-6)) / 2e-6
    ad: Any = forward_ad
    with forward_ad.dual_level(), torch.set_grad_enabled(gradients):
        found = ad.unpack_dual(net(ad.make_dual(images, direction))).tangent
    assert found is not None
    assert distance(found.detach(), expected) < 1e-4


def cut_out(tensor: Tensor) -> Tensor:
    """The same numbers as every second one of a larger tensor."""
    return torch.stack([tensor, torch.full_like(tensor, 7)], -1).detach()[..., 0]


def use_cut_out_norms(net: nn.Module) -> None:
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight = nn.Parameter(cut_out(norm.weight))
            norm.bias = nn.Parameter(cut_out(norm.bias))


def use_cut_out_statistics(net: nn.Module) -> None:
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean = cut_out(norm.running_mean)
            norm.running_var = cut_out(norm.running_var)


def use_cut_out_convolutions(net: nn.Module) -> None:
    for convolution in net.modules():
        if isinstance(convolution, nn.Conv2d):
            convolution.weight = nn.Parameter(cut_out(convolution.weight))


def use_one_number_for_all_channels(net: nn.Module) -> None:
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight = nn.Parameter(torch.full((1,), 0.7).double().expand(norm.num_features))


@pytest.mark.parametrize(
    "change",
    [
        use_cut_out_norms,
        use_cut_out_statistics,
        use_cut_out_convolutions,
        use_one_number_for_all_channels,
    ],
)
def test_weights_that_are_a_part_of_a_larger_tensor_are_those_numbers(
    change: Callable[[nn.Module], None],
) -> None:
    """As where one matrix, or another network, gives the weights (``torch.func``)."""
    net, images = small_net().double(), random_images(3, 32, 32).double()
    change(net)
    with plain_network():
        expected = net.eval()(images)
    with torch.no_grad():
        assert distance(net(images), expected) < 1e-10
    found = torch.autograd.grad(net.train()(images).square().sum(), list(net.parameters()))
    with plain_network():
        truth = torch.autograd.grad(net(images).square().sum(), list(net.parameters()))
    assert all(distance(a, b, floor=1e-6) < 1e-6 for a, b in zip(found, truth, strict=True))


@pytest.mark.parametrize("kind", [{"dtype": torch.float16}, {"device": "meta"}])
@pytest.mark.parametrize("gradients", [True, False])
def test_statistics_of_another_type_or_device_are_refused_as_by_torch(
    kind: Any, gradients: bool
) -> None:
    net: Any = small_net().eval()
    for norm in net.features.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
            norm.running_mean = norm.running_mean.to(**kind)
    message = "expected scalar type|not on the expected device"
    with torch.set_grad_enabled(gradients), pytest.raises(RuntimeError, match=message):
        net(random_images(2, 32, 32))


def test_images_that_are_a_negated_view_are_not_read_as_they_lie_in_memory() -> None:
    net = small_net().double().eval()
    pixels = random_images(2, 32, 32).double()
    images = torch.complex(pixels, pixels).conj().imag
    assert images.is_neg()
    with torch.no_grad():
        assert distance(net(images), net(-pixels)) < 1e-12


@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
def test_a_gradient_in_evaluation_has_the_statistics_of_its_own_pass(variant: Any) -> None:
    """As where losses of a pass in evaluation and of one in training are added up."""
    features: Any = small_net(variant).double().features
    stem = [features.conv0, features.norm0, features.relu0, features.pool0]
    features = type(features)(*stem, features.denseblock1, features.transition1)
    images = random_images(3, 32, 32).double()
    found = {}
    for together in (False, True):
        net = copy.deepcopy(features)
        evaluated = net.eval()(images).square().sum()
        if together:
            net.train()(images + 1)
        weights = list(net.parameters())
        found[together] = torch.autograd.grad(evaluated, weights)
    pairs = zip(*found.values(), strict=True)
    assert max(distance(after, before) for before, after in pairs) < 1e-12


class Doubled(Tensor):
    """Twice the numbers that it was made of, as quantised weights are other numbers than stored."""

    stored: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Doubled":
        made: Any = Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=inner.device
        )
        made.stored = inner
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].stored)
        args, kwargs = tree_map_only(cls, lambda one: one.stored * 2, (args, kwargs or {}))
        return func(*args, **kwargs)


@needs_kernels
@pytest.mark.parametrize(
    "place",
    [
        *("features.conv0", "features.denseblock1.denselayer1.conv1", "features.norm5"),
        *("features.transition1.conv", "features.transition1.norm", "classifier"),
    ],
)
def test_weights_of_a_class_that_computes_them_are_those_numbers(place: str) -> None:
    net, images = small_net().double().eval(), random_images(2, 32, 32).double()
    layer: Any = net.get_submodule(place)
    changed: Any = copy.deepcopy(net)
    layer.weight = nn.Parameter(Doubled(layer.weight.detach()), requires_grad=False)
    changed.get_submodule(place).weight.data.mul_(2)
    for training in (False, True):
        with torch.no_grad():
            found, expected = net.train(training)(images), changed.train(training)(images)
        assert distance(found, expected) < 1e-10
        assert distance(net(images).detach(), changed(images).detach()) < 1e-10


@needs_kernels
def test_a_part_that_becomes_another_class_is_seen_by_the_next_inference() -> None:
    net: Any = small_net().double().eval()
    images = random_images(2, 32, 32).double()
    with torch.no_grad():
        net(images)
        net.features.pool0.__class__ = DoubledPool
        with plain_network():
            expected = net(images)
        assert distance(net(images), expected) < 1e-10


class ReluOfHalves(TorchFunctionMode):
    """Replaces relu, and leaves everything else as it is."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        return found / 2 if func is torch.nn.functional.relu else found


@needs_kernels
def test_a_mode_that_changes_functions_of_torch_sees_them_all() -> None:
    net, images = small_net().double().eval(), random_images(2, 32, 32).double()
    with torch.no_grad(), ReluOfHalves():
        with plain_network():
            expected = net(images)
        assert distance(net(images), expected) < 1e-10


@needs_kernels
@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
def test_the_default_device_of_torch_is_not_where_a_network_on_the_cpu_computes(
    variant: Any,
) -> None:
    net, images = small_net(variant), random_images(2, 32, 32)
    expected = results(net, images, plain=False)
    with torch.device("meta"):  # stands for an accelerator
        found = results(net, images, plain=False)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def without_counters(norm: nn.BatchNorm2d) -> None:
    norm.num_batches_tracked = None


def without_counters_or_momentum(norm: nn.BatchNorm2d) -> None:
    norm.num_batches_tracked = norm.momentum = None


def without_statistics(norm: nn.BatchNorm2d) -> None:
    norm.running_mean = norm.running_var = None


def without_momentum(norm: nn.BatchNorm2d) -> None:
    norm.momentum = None


@needs_kernels
@pytest.mark.parametrize(
    "change",
    [without_counters, without_counters_or_momentum, without_statistics, without_momentum],
)
def test_a_step_leaves_the_buffers_that_torch_leaves(change: Callable[..., None]) -> None:
    fused: Any = small_net().double().train()
    fused.features.denseblock2.denselayer2.norm2 = fused.features.denseblock2.denselayer1.norm2
    for norm in fused.modules():
        if isinstance(norm, nn.BatchNorm2d):
            change(norm)
    plain = copy.deepcopy(fused)
    for step in range(2):
        images = random_images(3, 32, 32).double() + step
        fused(images)
        with plain_network():
            plain(images)
    for (name, found), expected in zip(fused.named_buffers(), plain.buffers(), strict=True):
        assert distance(found, expected, floor=1e-6) < 1e-8, name


def in_place(module: nn.Module, args: Any, output: Tensor) -> None:
    output[:, 1] *= 2


def without_autograd(module: nn.Module, args: Any, output: Tensor) -> None:
    output.data[:, 1] *= 2


@needs_kernels
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("hook", [in_place, without_autograd])
@pytest.mark.parametrize("part", ["denseblock1", "transition1", "denseblock3"])
def test_a_hook_may_write_into_the_output_of_a_part(part: str, hook: Any, training: bool) -> None:
    net: Any = small_net().double().train(training)
    images = random_images(3, 32, 32).double()
    net.features.get_submodule(part).register_forward_hook(hook)
    found = torch.autograd.grad(net(images).square().sum(), list(net.parameters()))
    with plain_network():
        expected = torch.autograd.grad(net(images).square().sum(), list(net.parameters()))
    assert all(distance(a, b, floor=1e-6) < 1e-6 for a, b in zip(found, expected, strict=True))
