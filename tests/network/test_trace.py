"""torch.jit.trace, its own check and its warnings: the trace is the plain network."""

import warnings

import pytest
import torch
from torch import nn

from densenet121.network import DenseNet, Variant, plain_network


def _small(variant: Variant) -> DenseNet:
    torch.manual_seed(0)
    return DenseNet(
        growth_rate=4, block_config=(2, 2, 2), num_init_features=8, num_classes=3, variant=variant
    ).double()


def _traced(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Traced twice by torch, which compares the two; a warning of a constant is an error."""
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning):  # of torch 2.13, and of 2.14
            warnings.filterwarnings("ignore", "`torch.jit.trace", category=kind)
        traced: nn.Module = torch.jit.trace(model, images)  # type: ignore[no-untyped-call]
        return traced


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
def test_a_trace_is_the_plain_network_at_any_size(variant: Variant, gradients: bool) -> None:
    model = _small(variant).eval()
    with torch.set_grad_enabled(gradients):
        traced = _traced(model, torch.randn(2, 3, 48, 48, dtype=torch.float64))
        for size in ((2, 3, 48, 48), (3, 3, 50, 47)):
            images = torch.randn(*size, dtype=torch.float64)
            with plain_network():
                expected = model(images)
            torch.testing.assert_close(traced(images), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
def test_a_graph_of_torch_fx_is_the_plain_network_at_any_size(
    variant: Variant, gradients: bool
) -> None:
    """As torchvision's ``create_feature_extractor`` and quantisation make it."""
    model = _small(variant).eval()
    with torch.set_grad_enabled(gradients):
        graph = torch.fx.symbolic_trace(model)
    for size in ((2, 3, 48, 48), (3, 3, 50, 47)):
        images = torch.randn(*size, dtype=torch.float64)
        with plain_network():
            expected = model(images)
        torch.testing.assert_close(graph(images), expected, rtol=1e-10, atol=1e-12)
