"""A network as an ONNX graph, written layer by layer.

PyTorch's exporter traces the network three times, which takes half a minute where this takes less
than one second. The operators are those that it writes (ONNX opset 20). A batch norm that follows a
convolution is folded into its weight, in float64.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from densenet121.network import DenseNet
from densenet121.network.layers import DenseBlock, DenseLayer, MaxPoolSame, Transition

if TYPE_CHECKING:
    import onnx

_OPSET = 20
_IR_VERSION = 10  # as PyTorch writes with that opset


class _Graph:
    """Operators and constants, in the order in which they are added.

    A tensor is called like the module or parameter that it comes from, so all names differ.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Append an operator; returns the name of its output."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Tensor | NDArray[Any]) -> str:
        """Store a constant; returns its name."""
        from onnx import numpy_helper

        array = value.cpu().numpy() if isinstance(value, Tensor) else value
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def convolution(self, x: str, name: str, conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> str:
        """A convolution, and the batch norm that follows it."""
        weight, bias = (conv.weight, conv.bias) if norm is None else _folded(conv, norm)
        inputs = [x, self.constant(f"{name}.weight", weight)]
        if bias is not None:
            inputs.append(self.constant(f"{name}.bias", bias))
        padding = _pair(conv.padding)
        return self.add(
            "Conv", inputs, name, kernel_shape=_pair(conv.kernel_size), strides=_pair(conv.stride),
            pads=padding + padding, dilations=_pair(conv.dilation), group=conv.groups,
        )  # fmt: skip

    def norm(self, x: str, name: str, norm: nn.BatchNorm2d) -> str:
        """A batch norm in evaluation mode."""
        kinds = ("weight", "bias", "running_mean", "running_var")
        constants = [self.constant(f"{name}.{kind}", getattr(norm, kind)) for kind in kinds]
        return self.add("BatchNormalization", [x, *constants], name, epsilon=norm.eps)

    def relu(self, x: str) -> str:
        """What is positive of a tensor."""
        return self.add("Relu", [x], f"{x}.relu")


@torch.no_grad()
def onnx_graph(
    model: DenseNet, size: tuple[int, int], normalisation: tuple[Tensor, Tensor] | None
) -> "onnx.ModelProto":
    """The network for any number of images of one size.

    Its input is called ``images``, float32 ``(N, C, H, W)``, normalised, and its output ``logits``,
    float32 ``(N, K)``.

    Args:
        model: the network in float32; its statistics are those of evaluation mode.
        size: height and width of the images, in pixels.
        normalisation: mean and standard deviation of each channel, to be part of the graph: then
            the input is uint8 ``(N, H, W, C)``.

    Raises:
        TypeError: a layer is none of a DenseNet's.
    """
    from onnx import TensorProto, helper

    graph, channels, (height, width) = _Graph(), model.in_channels, size
    x, kind = "images", TensorProto.FLOAT
    shape: list[str | int] = ["batch", channels, height, width]
    if normalisation is not None:
        kind, shape = TensorProto.UINT8, ["batch", height, width, channels]
        x = _normalised(graph, x, *normalisation)
    x = _features(graph, model, x, size)
    axes = graph.constant("rows_and_columns", np.array([2, 3], dtype=np.int64))
    x = graph.add("ReduceMean", [graph.relu(x), axes], "features", keepdims=0)
    head = model.classifier
    if not isinstance(head, nn.Linear):
        raise TypeError(f"the classifier must be a linear layer, got {type(head).__name__}")
    inputs = [x, graph.constant("classifier.weight", head.weight)]
    inputs.append(graph.constant("classifier.bias", head.bias))
    graph.add("Gemm", inputs, "logits", transB=1)
    given = helper.make_tensor_value_info("images", kind, shape)
    found = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", model.num_classes])
    whole = helper.make_graph(graph.nodes, "densenet", [given], [found], graph.constants)
    return helper.make_model(
        whole,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="densenet121",
    )


def _normalised(graph: _Graph, x: str, mean: Tensor, std: Tensor) -> str:
    from onnx import TensorProto

    x = graph.add("Transpose", [x], "images.channels_first", perm=[0, 3, 1, 2])
    x = graph.add("Cast", [x], "images.float", to=TensorProto.FLOAT)
    x = graph.add("Sub", [x, graph.constant("mean", mean)], "images.centred")
    return graph.add("Div", [x, graph.constant("std", std)], "images.normalised")


def _features(graph: _Graph, model: DenseNet, x: str, size: tuple[int, int]) -> str:
    """Everything before the last ReLU; the ``size`` of the images decides how pool0 pads."""
    parts = dict(model.features.named_children())
    for name, part in parts.items():
        path = f"features.{name}"
        match part:
            case nn.Conv2d():  # conv0, and the norm after it
                norm = parts.get("norm0")
                x = graph.convolution(x, path, part, norm)  # type: ignore[arg-type]
            case nn.BatchNorm2d():
                x = x if name == "norm0" else graph.norm(x, path, part)
            case nn.ReLU():
                x = graph.relu(x)
            case MaxPoolSame():  # see there; of n pixels conv0 has left ceil(n / 2)
                before = [(pixels + 1) // 2 % 2 for pixels in size]
                x = graph.add("MaxPool", [x], path, kernel_shape=[3, 3], strides=[2, 2],
                              pads=[*before, 1, 1])  # fmt: skip
            case nn.MaxPool2d():
                x = _pool(graph, x, path, part)
            case DenseBlock():
                for inner, layer in part.named_children():
                    added = _dense_layer(graph, x, f"{path}.{inner}", layer)
                    x = graph.add("Concat", [x, added], f"{path}.{inner}", axis=1)
            case Transition():
                x = _transition(graph, x, path, part)
            case _:
                raise TypeError(f"{path}: a {type(part).__name__} is no layer of a DenseNet")
    return x


def _dense_layer(graph: _Graph, x: str, path: str, layer: nn.Module) -> str:
    """The new channels of a layer."""
    assert isinstance(layer, DenseLayer)
    x = graph.relu(graph.norm(x, f"{path}.norm1", layer.norm1))
    x = graph.relu(graph.convolution(x, f"{path}.conv1", layer.conv1, layer.norm2))
    return graph.convolution(x, f"{path}.conv2", layer.conv2, None)


def _transition(graph: _Graph, x: str, path: str, part: Transition) -> str:
    x = graph.relu(graph.norm(x, f"{path}.norm", part.norm))
    if isinstance(part.pool, nn.AvgPool2d):  # commutes with the 1x1 convolution
        x = _pool(graph, x, f"{path}.pool", part.pool)
        return graph.convolution(x, f"{path}.conv", part.conv, None)
    x = graph.convolution(x, f"{path}.conv", part.conv, None)
    return _pool(graph, x, f"{path}.pool", part.pool)


def _pool(graph: _Graph, x: str, path: str, pool: nn.AvgPool2d | nn.MaxPool2d) -> str:
    operator = "AveragePool" if isinstance(pool, nn.AvgPool2d) else "MaxPool"
    padding = _pair(pool.padding)
    sizes = {"kernel_shape": _pair(pool.kernel_size), "strides": _pair(pool.stride)}
    return graph.add(operator, [x], path, **sizes, pads=padding + padding)


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution without a bias, with the batch norm that follows it."""
    assert conv.bias is None and norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    bias = norm.bias.double() - norm.running_mean.double() * scale
    return weight.float(), bias.float()


def _pair(value: Any) -> list[int]:
    """Height and width of a setting that may be one number."""
    return [value, value] if isinstance(value, int) else list(value)
