"""The network's forward pass in plain modules, one step after another.

``DenseNet.forward`` may use fused kernels for its blocks; maps of a layer and export need every
step separately.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densenet121.network import DenseNet
from densenet121.network.layers import DenseBlock, DenseLayer, Transition

Tap = Callable[[str, Tensor], Tensor]


def plain_forward(model: DenseNet, images: Tensor, tap: Tap = lambda name, x: x) -> Tensor:
    """Logits ``(N, C)`` of normalised images ``(N, 3, H, W)``.

    Args:
        model: the network, in evaluation mode.
        images: its input.
        tap: called with the name and output of every module, and of "features" after its ReLU; its
            result replaces the output.
    """
    x = images
    for name, part in model.features.named_children():
        path = f"features.{name}"
        if isinstance(part, DenseBlock):
            for inner, layer in part.named_children():
                assert isinstance(layer, DenseLayer)
                x = torch.cat([x, _dense_layer(layer, x, f"{path}.{inner}", tap)], dim=1)
        elif isinstance(part, Transition):
            x = _transition(part, x, path, tap)
        else:
            x = part(x)
        x = tap(path, x)
    features = tap("features", F.relu(x))
    return tap("classifier", model.classifier(features.mean(dim=(2, 3))))


def _dense_layer(layer: DenseLayer, x: Tensor, path: str, tap: Tap) -> Tensor:
    x = tap(f"{path}.norm1", layer.norm1(x))
    x = tap(f"{path}.conv1", layer.conv1(F.relu(x)))
    x = tap(f"{path}.norm2", layer.norm2(x))
    x = tap(f"{path}.conv2", layer.conv2(F.relu(x)))
    return tap(path, x)


def _transition(part: Transition, x: Tensor, path: str, tap: Tap) -> Tensor:
    x = tap(f"{path}.norm", part.norm(x))
    x = tap(f"{path}.relu", F.relu(x))
    if isinstance(part.pool, nn.AvgPool2d):  # commutes with the 1x1 convolution
        x = tap(f"{path}.pool", part.pool(x))
        return tap(f"{path}.conv", part.conv(x))
    x = tap(f"{path}.conv", part.conv(x))
    return tap(f"{path}.pool", part.pool(x))


def layer_names(model: DenseNet) -> list[str]:
    """Every layer that ``plain_forward`` passes to its tap and that has rows and columns."""
    groups = (DenseBlock, DenseLayer, Transition)
    return ["features"] + [
        f"features.{name}"
        for name, module in model.features.named_modules()
        if name and (isinstance(module, groups) or not list(module.children()))
    ]
