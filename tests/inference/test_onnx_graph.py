"""The network as an ONNX graph against the plain network in float64."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from densenet121.inference.layers import plain_forward
from densenet121.inference.onnx_graph import onnx_graph
from densenet121.network import DenseNet, build
from densenet121.utils.var_init import initialise

onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")

SMALL: dict[str, Any] = {"growth_rate": 4, "block_config": (2, 3, 2), "num_init_features": 6}


def network(**settings: Any) -> DenseNet:
    """A small network whose batch norms have statistics, scales and shifts of their own."""
    generator = torch.Generator().manual_seed(3)
    model = DenseNet(**(SMALL | {"num_classes": 5} | settings))
    initialise(model, generator)
    randomise_norms(model, generator)
    return model.eval()


def randomise_norms(model: nn.Module, generator: torch.Generator) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            for tensor, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
            ):
                tensor.uniform_(low, high, generator=generator)


def run(model: DenseNet, size: tuple[int, int], given: Any, normalisation: Any = None) -> Any:
    graph = onnx_graph(model, size, normalisation)
    onnx.checker.check_model(graph, full_check=True)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["logits"], {"images": given})[0]


def check(found: Any, model: DenseNet, images: torch.Tensor) -> None:
    with torch.no_grad():
        truth = plain_forward(model.double(), images.double()).numpy()
    assert found.shape == truth.shape
    assert found.dtype == np.float32
    assert np.abs(found - truth).max() < 2e-6 * np.abs(truth).max()


@pytest.mark.parametrize("size", [(32, 32), (37, 50), (44, 61), (35, 33), (62, 40)])
@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
def test_every_size_pools_as_the_plain_network(variant: str, size: tuple[int, int]) -> None:
    """Odd and even sides after conv0, whose maximum the original pads otherwise."""
    model = network(variant=variant)
    images = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(1))
    check(run(model, size, images.numpy()), model, images)


@pytest.mark.parametrize("settings", [{"stem": "cifar"}, {"in_channels": 1}, {"num_classes": 1}])
def test_the_other_networks_are_written_too(settings: dict[str, Any]) -> None:
    model = network(**settings)
    images = torch.randn(2, model.in_channels, 33, 40, generator=torch.Generator().manual_seed(1))
    check(run(model, (33, 40), images.numpy()), model, images)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_normalisation_can_be_part_of_it(channels: int) -> None:
    model = network(in_channels=channels)
    pixels = np.random.default_rng(2).integers(0, 256, (2, 34, 36, channels), dtype=np.uint8)
    mean = torch.tensor([120.0, 110.0, 100.0][:channels]).view(-1, 1, 1)
    std = torch.tensor([58.0, 57.0, 56.0][:channels]).view(-1, 1, 1)
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).double() - mean) / std
    check(run(model, (34, 36), pixels, (mean, std)), model, images)


def test_a_norm_after_a_convolution_is_folded_and_nothing_else_is() -> None:
    """As PyTorch's exporter writes densenet121: 120 convolutions, and 62 of 121 norms."""
    graph = onnx_graph(build("densenet121", num_classes=7).eval(), (224, 224), None)
    found = Counter(node.op_type for node in graph.graph.node)
    assert found == {
        "Conv": 120, "BatchNormalization": 62, "Relu": 121, "Concat": 58, "AveragePool": 3,
        "MaxPool": 1, "ReduceMean": 1, "Gemm": 1,
    }  # fmt: skip
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 20)]
    names = [name for node in graph.graph.node for name in node.output]
    names += [constant.name for constant in graph.graph.initializer]
    assert len(names) == len(set(names))


def test_a_layer_that_is_no_densenets_is_refused() -> None:
    model = network()
    model.features.add_module("more", nn.Dropout())
    with pytest.raises(TypeError, match=r"features.more: a Dropout is no layer of a DenseNet"):
        onnx_graph(model, (32, 32), None)
    other: Any = network()
    other.classifier = nn.Identity()
    with pytest.raises(TypeError, match="the classifier must be a linear layer, got Identity"):
        onnx_graph(other, (32, 32), None)
