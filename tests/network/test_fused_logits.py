"""A network to its logits in one call has the bits of its steps, and what is changed is seen."""

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densenet121.network import DenseNet
from densenet121.network.fused import (
    NetworkCall,
    StemPool,
    classify,
    plain_network,
    prepare_network,
)
from densenet121.network.int8 import Int8Network, measure, quantise_network
from densenet121.network.layers import DenseBlock, DenseLayer, Transition

from helpers.kernels import LIBRARY, distance, needs_kernels, random_images, small_net, threads

pytestmark = needs_kernels
KINDS = (DenseBlock, DenseLayer, Transition)
ARITHMETIC = [
    torch.float32,
    torch.float64,
    pytest.param(
        torch.bfloat16,
        marks=pytest.mark.skipif(
            isinstance(LIBRARY, str) or not LIBRARY.has("network_run", torch.bfloat16),
            reason="the kernels of this machine compute bf16 part by part",
        ),
    ),
]


def one_call(net: DenseNet, x: Tensor) -> NetworkCall:
    pool = StemPool(nn.MaxPool2d, same=False) if net.stem == "imagenet" else None
    call = prepare_network(list(net.features.children()), KINDS, pool, x)
    assert call is not None
    return call


@contextlib.contextmanager
def computed_in(dtype: torch.dtype) -> Any:
    """Inference in an arithmetic; bf16 is autocast's."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        yield


def inputs(dtype: torch.dtype, stem: str = "imagenet", size: int = 48) -> tuple[DenseNet, Tensor]:
    """A network with statistics of its own in evaluation, and images."""
    net, x = small_net(stem=stem), random_images(5, size, size - 7)
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    net, x = net.to(kept), x.to(kept)
    with torch.no_grad():
        net(x)
    return net.eval(), x


@pytest.mark.parametrize("dtype", ARITHMETIC)
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_logits_have_the_bits_of_the_two_steps(
    dtype: torch.dtype, stem: str, bias: bool
) -> None:
    net, x = inputs(dtype, stem)
    if not bias:
        like = net.classifier
        net.classifier = nn.Linear(like.in_features, 5, bias=False).to(like.weight.dtype)
    with computed_in(dtype):
        logits = one_call(net, x).logits(net.classifier)
        means = one_call(net, x).means()
        assert logits is not None
        assert (logits.dtype, means.dtype) == (x.dtype, dtype)
        assert torch.equal(net(x), logits)
        assert torch.equal(net.pooled(x), means)
        assert torch.equal(classify(net.classifier, means), logits)
        with plain_network():
            # Of a plain bf16 network the maps and the means are rounded, too.
            bound = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 0.03)
            assert distance(means, net.pooled(x)) < bound
            assert distance(logits, net(x)) < bound
            assert net(x).dtype == x.dtype


@pytest.mark.parametrize("dtype", ARITHMETIC)
def test_an_image_has_the_same_logits_in_any_batch_and_with_any_threads(dtype: torch.dtype) -> None:
    net, x = inputs(dtype)
    with computed_in(dtype):
        with threads(1):
            alone = torch.cat([net(image) for image in torch.split(x, 1)])
        for count in (1, 2, 3):
            with threads(count):
                for batch in (1, 2, 5):
                    found = torch.cat([net(some) for some in torch.split(x, batch)])
                    assert torch.equal(found, alone)
                assert torch.equal(net(x.contiguous(memory_format=torch.channels_last)), alone)


def test_the_means_of_large_maps_round_no_more_than_the_library_s() -> None:
    torch.manual_seed(1)
    net = small_net(stem="cifar", growth_rate=4).eval()
    x = random_images(1, 512, 384)
    with torch.no_grad():
        maps = net.features(x)
        exact = F.relu(maps).double().mean(dim=(2, 3))
        assert distance(net.pooled(x), exact) < 1e-6
        assert distance(net.pooled(x), exact) < 2 * distance(F.relu(maps).mean(dim=(2, 3)), exact)


def test_bf16_logits_are_no_further_from_the_truth_than_the_plain_ones() -> None:
    if isinstance(LIBRARY, str) or not LIBRARY.supports(torch.bfloat16):
        pytest.skip("no kernels for bf16 on this machine")
    net, x = inputs(torch.bfloat16)
    nn.init.normal_(net.classifier.weight)
    with torch.no_grad():
        features = net.pooled(x).bfloat16()
        exact = F.linear(
            features.double(), net.classifier.weight.double(), net.classifier.bias.double()
        )
        with torch.autocast("cpu", torch.bfloat16):
            ours = classify(net.classifier, features)
            theirs = net.classifier(features)
    assert ours.dtype == torch.float32 and theirs.dtype == torch.bfloat16
    assert distance(ours, exact) < 1e-6 < distance(theirs, exact)


def hook_the_features(net: Any) -> None:
    net.features.register_forward_hook(lambda module, given, maps: 2 * maps)


def hook_the_classifier(net: Any) -> None:
    net.classifier.register_forward_hook(lambda module, given, logits: 2 * logits)


def patch_the_features(net: Any) -> None:
    old = net.features.forward
    net.features.forward = lambda images: 2 * old(images)


def patch_the_means(net: Any) -> None:
    old = net.pooled
    net.pooled = lambda images: 2 * old(images)


def replace_the_classifier(net: Any) -> None:
    net.classifier = nn.Sequential(net.classifier, nn.Hardtanh(-0.01, 0.01))


def narrow_the_features(net: Any) -> None:
    net.features.add_module("last", nn.Hardtanh(0, 0.3))


def set_weights(net: Any) -> None:
    net.classifier.weight.data.mul_(3)
    net.classifier.bias.data.add_(1)


def hook_a_layer(net: Any) -> None:
    net.features.denseblock2.denselayer1.register_forward_hook(lambda module, given, y: 2 * y)


CHANGES = [
    hook_a_layer,
    hook_the_features,
    hook_the_classifier,
    patch_the_features,
    patch_the_means,
    replace_the_classifier,
    narrow_the_features,
    set_weights,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_any_step_is_seen_by_the_next_inference(change: Callable[[Any], None]) -> None:
    net, x = inputs(torch.float64)
    with torch.no_grad():
        before = net(x)
        change(net)
        after = net(x)
        with plain_network():
            assert distance(after, net(x)) < 1e-12
        assert distance(after, before) > 0.1


def test_what_cannot_be_one_call_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def counted(*given: Any) -> NetworkCall | None:
        tries.append(given)
        return prepare_network(*given)

    monkeypatch.setattr("densenet121.network.densenet.prepare_network", counted)
    net, x = inputs(torch.float64)
    changes: list[Callable[[Any], None]] = [replace_the_classifier, hook_a_layer]
    with torch.no_grad():
        for change in (set_weights, *changes):
            change(net)
            for module in (net, net.pooled, net.features):
                tries.clear()
                module(x)
                assert len(tries) == 1


def test_a_class_with_its_own_means_is_asked_for_them() -> None:
    class Doubled(DenseNet):
        def pooled(self, images: Tensor) -> Tensor:
            return 2 * super().pooled(images)

    net, x = inputs(torch.float64)
    other = copy.deepcopy(net)
    other.__class__ = Doubled
    with torch.no_grad():
        wanted = F.linear(2 * net.pooled(x), net.classifier.weight, net.classifier.bias)
        assert distance(other(x), wanted) < 1e-12


def test_a_wrong_classifier_is_refused_as_by_the_library() -> None:
    net, x = inputs(torch.float32)
    net.classifier = nn.Linear(net.num_features + 1, 3)
    with torch.no_grad(), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        net(x)
    net.classifier = nn.Linear(net.num_features, 3).double()
    with torch.no_grad(), pytest.raises(RuntimeError, match="dtype"):
        net(x)


def test_not_a_number_stays_with_its_image() -> None:
    net, x = inputs(torch.float32)
    x[2, 1, 20, 20] = torch.nan
    with torch.no_grad():
        assert net(x).isnan().any(dim=1).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_int8_logits_have_the_bits_of_the_two_steps(count: int) -> None:
    like, x = inputs(torch.float32)
    tensors = quantise_network(like, measure(like, [x]), (0.0,) * 3, (1.0,) * 3)
    net = Int8Network(tensors, like)
    with torch.no_grad(), threads(count):
        logits = net(x)
        assert torch.equal(classify(net.classifier, net.pooled(x)), logits)
        assert torch.equal(torch.cat([net(image) for image in torch.split(x, 1)]), logits)
        with plain_network():
            assert distance(net(x), logits) < 1e-6
        net.classifier.register_forward_hook(lambda module, given, logits: 2 * logits)
        assert distance(net(x), 2 * logits) < 1e-6
