"""The classifier in evaluation: the linear layer's function, and the same bits in any batch."""

import copy
import functools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from densenet121.inference.predictor import Predictor
from densenet121.network import build
from densenet121.network.fused import fused_classifier, plain_network
from densenet121.network.int8 import Int8Network, measure, quantise_network

from helpers.kernels import needs_kernels, random_images, threads
from helpers.weights import weights_with_statistics

pytestmark = needs_kernels


@torch.no_grad()
def by_kernels(layer: nn.Module, x: Tensor) -> Tensor:
    y = fused_classifier(layer, x)
    assert y is not None
    return y


@settings(deadline=None, max_examples=60)
@given(
    images=st.integers(1, 9),
    features=st.integers(1, 70),
    classes=st.integers(1, 20),
    bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_it_is_the_linear_layer(
    images: int, features: int, classes: int, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = nn.Linear(features, classes, bias=bias).double()
    x = torch.randn(images, features, dtype=torch.float64)
    wanted = F.linear(x, layer.weight, layer.bias).detach()
    torch.testing.assert_close(by_kernels(layer, x), wanted, rtol=0, atol=1e-13)
    # The bound of a sum of products in any order: Higham 2002, "Accuracy and stability", 3.1.
    size = x.abs() @ layer.weight.detach().abs().T + (layer.bias.detach().abs() if bias else 0)
    rounded = nn.Linear(features, classes, bias=bias)
    rounded.load_state_dict(layer.state_dict())
    exact = F.linear(x.float().double(), rounded.weight.double(),
                     rounded.bias.double() if bias else None)  # fmt: skip
    error = (by_kernels(rounded, x.float()).double() - exact.detach()).abs()
    assert (error <= (features + 2) * 2.0**-24 * size * 1.01).all()


def test_it_rounds_less_than_twice_as_much_as_the_library() -> None:
    torch.manual_seed(1)
    layer, x = nn.Linear(1024, 1000), torch.rand(16, 1024)
    exact = F.linear(x.double(), layer.weight.double(), layer.bias.double()).detach()
    ours, theirs = (
        float((y.double() - exact).square().mean().sqrt())
        for y in (by_kernels(layer, x), layer(x).detach())
    )
    assert ours < 2 * theirs


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("features", "classes"), [(1024, 1000), (342, 3), (5, 1)])
def test_a_row_has_the_same_bits_in_any_batch(
    features: int, classes: int, dtype: torch.dtype, count: int
) -> None:
    torch.manual_seed(2)
    layer, x = nn.Linear(features, classes).to(dtype), torch.randn(11, features, dtype=dtype)
    alone = torch.cat([by_kernels(layer, row) for row in torch.split(x, 1)])
    with threads(count):
        for batch in (1, 2, 3, 4, 5, 11):
            assert torch.equal(
                torch.cat([by_kernels(layer, b) for b in torch.split(x, batch)]), alone
            )
        assert torch.equal(by_kernels(layer, x.T.contiguous().T), alone)


@functools.cache
def one_by_one(int8: bool, size: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A network, images, and their logits by one thread, each image alone."""
    torch.manual_seed(3)
    like = build("densenet121", num_classes=10).eval()
    x = random_images(7, size, size)
    network: nn.Module = like
    if int8:
        tensors = quantise_network(like, measure(like, [x]), (0.0,) * 3, (1.0,) * 3)
        network = Int8Network(tensors, like)
    with torch.inference_mode(), threads(1):
        return network, x, torch.cat([network(image) for image in torch.split(x, 1)])


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("size", [40, 64])
@pytest.mark.parametrize("int8", [False, True])
def test_densenet121_gives_an_image_the_same_logits_in_any_batch(
    int8: bool, size: int, count: int
) -> None:
    network, x, alone = one_by_one(int8, size)
    with torch.inference_mode(), threads(count):
        for batch in (2, 3, 7):
            assert torch.equal(torch.cat([network(b) for b in torch.split(x, batch)]), alone)


def test_not_a_number_stays_with_its_image() -> None:
    layer, x = nn.Linear(40, 3), torch.randn(6, 40)
    x[2, 39], x[4, 0] = torch.nan, torch.inf
    y = by_kernels(layer, x)
    assert y[2].isnan().all() and not y[4].isfinite().any()
    assert y[[0, 1, 3, 5]].isfinite().all()


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_whatever_is_not_the_plain_layer_runs_by_itself() -> None:
    layer, x = nn.Linear(8, 3), torch.randn(2, 8)
    hooked, patched = copy.deepcopy(layer), copy.deepcopy(layer)
    hooked.register_forward_hook(lambda module, given, result: 2 * result)
    patched.forward = lambda input: input  # type: ignore[method-assign]
    assert fused_classifier(layer, x) is None  # gradients are wanted
    with torch.no_grad():
        for other in (hooked, patched, Doubled(8, 3), nn.Sequential(layer), layer.half()):
            assert fused_classifier(other, x) is None
        layer.float()
        for given_x in (x[0], x[:0], x.half(), x.bfloat16(), x[:, :7], x.to("meta")):
            assert fused_classifier(layer, given_x) is None
        with torch.autocast("cpu", torch.bfloat16):
            assert fused_classifier(layer, x) is None
        with plain_network():
            assert fused_classifier(layer, x) is None
        assert fused_classifier(layer, x) is not None


def test_hooks_of_the_classifier_of_a_densenet_run() -> None:
    network = build("densenet100", num_classes=3).eval()
    x = random_images(2, 16, 16)
    with torch.no_grad():
        before = network(x)
        network.classifier.register_forward_hook(lambda module, given, result: 2 * result)
        torch.testing.assert_close(network(x), 2 * before)


def test_predictions_of_a_densenet_do_not_depend_on_the_batch(
    image_folder: Path, tmp_path: Path
) -> None:
    weights = weights_with_statistics(tmp_path / "w.safetensors", image_folder)
    files = sorted((image_folder / "val").rglob("*.png"))
    found = [
        [
            one.probabilities
            for one in Predictor(weights, amp="fp32", batch_size=size, device="cpu").predict(files)
        ]
        for size in (1, 4, 64)
    ]
    assert len(found[0]) == 21
    assert found[0] == found[1] == found[2]
