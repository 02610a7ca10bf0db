"""torch.compile traces the whole network: nothing in it has to run in Python."""

import copy
from collections.abc import Iterator

import pytest
import torch

from densenet121.network import DenseNet, Variant, plain_network


@pytest.fixture(autouse=True)
def _without_traces() -> Iterator[None]:
    """Forget what was traced; another test must not run it."""
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
def test_a_training_pass_is_one_graph_with_the_gradients_of_the_plain_network(
    variant: Variant,
) -> None:
    """Traced and run by torch's own operators: what is compiled for a GPU is not measured here."""
    torch.manual_seed(0)
    model = DenseNet(
        growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=3, variant=variant
    ).double()
    other = copy.deepcopy(model)
    images = torch.randn(4, 3, 33, 32, dtype=torch.float64)
    traced = torch.compile(model, backend="eager", fullgraph=True)
    torch.autograd.backward(traced(images).square().sum())
    with plain_network():
        torch.autograd.backward(other(images).square().sum())
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-10, atol=1e-12, msg=name)
    for found, expected in zip(model.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(found, expected)
