"""`recompute`: activations computed again in the backward pass give the same bits."""

import contextlib
import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densenet121.network import DenseNet, Variant, plain_network, set_frozen, set_recompute

from helpers.kernels import random_images, small_net


def passes(
    net: DenseNet, images: Tensor, *, recompute: bool, precision: torch.dtype
) -> tuple[Tensor, dict[str, Tensor | None], dict[str, Tensor]]:
    """Two training passes of a copy: the last logits, all gradients, all buffers."""
    net = copy.deepcopy(net)
    set_recompute(net, recompute)
    reduced = precision == torch.bfloat16
    with plain_network():
        for _ in range(2):
            with torch.autocast("cpu", precision) if reduced else contextlib.nullcontext():
                logits: Tensor = net(images)
            torch.autograd.backward(logits.float().square().mean())
    gradients = {name: p.grad for name, p in net.named_parameters()}
    return logits.detach(), gradients, dict(net.named_buffers())


def assert_same_bits(net: DenseNet, images: Tensor, precision: torch.dtype) -> None:
    expected, gradients, buffers = passes(net, images, recompute=False, precision=precision)
    found = passes(net, images, recompute=True, precision=precision)
    assert torch.equal(found[0], expected)
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=0, msg=name)
    for name, buffer in buffers.items():
        assert torch.equal(found[2][name], buffer), name


@pytest.mark.parametrize("precision", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("variant", "stem"), [("paper", "imagenet"), ("model_zoo", "imagenet")])
def test_loss_gradients_and_statistics_have_the_same_bits(
    variant: Variant, stem: Any, precision: torch.dtype
) -> None:
    dtype = torch.float64 if precision == torch.float64 else torch.float32
    net = small_net(variant, stem).to(dtype, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    assert_same_bits(net, random_images(3, 41, 38).to(dtype), precision)


@pytest.mark.parametrize("norms", ["0", "1", "auto"])
def test_frozen_stages_and_norms_have_the_same_bits(norms: str) -> None:
    net = small_net(stem="cifar").double()
    set_frozen(net, ("stem", "block1"), norms)
    assert_same_bits(net, random_images(3, 9, 11).double(), torch.float64)


def test_a_layer_runs_again_and_its_statistics_move_once() -> None:
    net: Any = small_net().train()
    set_recompute(net, True)
    layer = net.features.denseblock1.denselayer1
    own, calls = layer.norm1.running_mean, []
    layer.register_forward_pre_hook(lambda *_: calls.append(layer.norm1.running_mean is own))
    net(random_images(2, 32, 32)).sum().backward()
    assert calls == [True, False]
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(int(norm.num_batches_tracked) == 1 for norm in norms)  # type: ignore[arg-type]
    assert layer.norm1.running_mean is own


def test_evaluation_computes_nothing_again() -> None:
    net = small_net().eval()
    images = random_images(2, 32, 32)
    with torch.no_grad():
        expected = net(images)
        set_recompute(net, True)
        assert torch.equal(net(images), expected)
