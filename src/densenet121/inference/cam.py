"""Class-activation maps: which parts of an image are evidence for a class.

Source: Selvaraju et al. 2017, "Grad-CAM". At the last layer this is the analytic map of Zhou et al.
2016, "Learning Deep Features for Discriminative Localization", divided by the number of positions:
the classifier's input is the mean, so the gradient of a logit is its weight over that number.
"""

import difflib

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densenet121.inference.layers import layer_names, plain_forward
from densenet121.network import DenseNet
from densenet121.utils.errors import InputError

LAST = "features"
# Of images of up to 63 pixels the last layer is a single position, which cannot say where.
OF_SMALL_IMAGES = "features.denseblock2"


def evidence_maps(
    model: DenseNet, images: Tensor, classes: Tensor, layer: str | None = None
) -> Tensor:
    """``class_activation_maps`` of a layer; without one, of the last that has several positions."""
    heat = class_activation_maps(model, images, classes, layer or LAST)
    if layer is None and heat[0].numel() == 1:
        return class_activation_maps(model, images, classes, OF_SMALL_IMAGES)
    return heat


def class_activation_maps(
    model: DenseNet, images: Tensor, classes: Tensor, layer: str = LAST
) -> Tensor:
    """Maps of the evidence for one class of each image.

    Args:
        model: in evaluation mode; its parameters and their gradients are not changed.
        images: ``(N, 3, H, W)``, normalised.
        classes: ``(N,)`` int64.
        layer: name of a module in torch, e.g. features.denseblock3.

    Returns:
        ``(N, h, w)`` float32 in the layer's resolution: the sum over channels of activation times
        mean gradient of the class's logit, before any clipping (negative: evidence against it).

    Raises:
        InputError: there is no such layer.
    """
    known = layer_names(model)
    if layer not in known:
        near = difflib.get_close_matches(layer, known, n=1, cutoff=0)
        raise InputError(f"`cam_layer` {layer}: there is no such layer; did you mean {near[0]}?")
    kept: list[Tensor] = []

    def tap(name: str, x: Tensor) -> Tensor:
        if name != layer:
            return x
        # A new leaf: earlier parameters get no gradients, and no later step can overwrite it (an
        # in-place ReLU would, a known problem of maps on DenseNet).
        kept.append(x.detach().clone().requires_grad_())
        return kept[0]

    with torch.inference_mode(False), torch.enable_grad():
        logits = plain_forward(model, images.clone(), tap)
        chosen = logits.gather(1, classes.to(logits.device)[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, kept[0])
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * kept[0].detach()).sum(dim=1).float().cpu()


def overlay(
    pixels: NDArray[np.uint8], heat: NDArray[np.float32], side: int = 256
) -> NDArray[np.uint8]:
    """The image overlaid with its map, ``(H, W, 3)`` uint8 RGB with a shorter side of ``side``.

    Args:
        pixels: ``(h, w, 3)`` uint8 RGB, as given to the network.
        heat: a map of any resolution; evidence against the class is transparent.
        side: minimum shorter side, in pixels.
    """
    scale = max(1.0, side / min(pixels.shape[:2]))
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    from densenet121.utils.drawing import matplotlib  # not at the top: most commands draw no maps

    large = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
    positive = np.maximum(cv2.resize(heat, size, interpolation=cv2.INTER_LINEAR), 0)
    strength = positive / max(float(positive.max()), 1e-12)
    colours = matplotlib.colormaps["inferno"](strength)[..., :3] * 255
    opacity = 0.7 * strength[..., None]
    return np.rint(large * (1 - opacity) + colours * opacity).clip(0, 255).astype(np.uint8)
