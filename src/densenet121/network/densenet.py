"""DenseNet in plain PyTorch modules: the reference, with torchvision's parameter names.

Shapes: N images, C channels, H rows, W columns; every feature map is ``(N, C, H, W)``.

Sources: Huang et al. 2017, "Densely Connected Convolutional Networks" (the paper), section 3 and
table 1; torchvision's ``models/densenet.py`` for the names; the original's
``src/network/densenet.py`` for the variant ``model_zoo``.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densenet121.network.fused import (
    LARGE_MAPS,
    StemPool,
    Whole,
    classify,
    fused_dense_block,
    fused_logits,
    fused_means,
    fused_network,
    fused_stem,
    fused_transition,
    is_untouched,
)
from densenet121.network.recompute import run_again_in_backward
from densenet121.network.triton import triton_dense_block, triton_pooling
from densenet121.utils.errors import InputError

Variant = Literal["paper", "model_zoo"]
Stem = Literal["imagenet", "cifar"]


class MaxPoolSame(nn.Module):
    """3 x 3 maximum at stride 2 with MindSpore's ``pad_mode="same"``, the original's pool0.

    n becomes ``ceil(n / 2)``. An odd n is padded with -inf on both sides, as with torch's
    ``padding=1``; an even n only after the last row or column, so its windows are shifted by one
    pixel relative to the paper's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C, ceil(H / 2), ceil(W / 2))``."""
        # ceil_mode gives an even size the half-empty last window without a padded copy of x.
        padding = (x.shape[2] % 2, x.shape[3] % 2)
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=padding, ceil_mode=True)


class DenseLayer(nn.Module):
    """The ``growth_rate`` new channels of one layer: BN-ReLU-1x1 conv, then BN-ReLU-3x3 conv."""

    def __init__(self, num_input_features: int, growth_rate: int, bn_size: int) -> None:
        """The 1x1 convolution has ``bn_size * growth_rate`` channels (the paper's "B")."""
        super().__init__()
        bottleneck = bn_size * growth_rate
        self.norm1 = nn.BatchNorm2d(num_input_features)
        self.conv1 = nn.Conv2d(num_input_features, bottleneck, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm2d(bottleneck)
        self.conv2 = nn.Conv2d(bottleneck, growth_rate, kernel_size=3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, num_input_features, H, W)`` to ``(N, growth_rate, H, W)``."""
        bottleneck = self.conv1(F.relu(self.norm1(x)))
        new_features: Tensor = self.conv2(F.relu(self.norm2(bottleneck)))
        return new_features


class DenseBlock(nn.Sequential):
    """Layers; the input of each is the block's input and the outputs of all layers before it."""

    recompute = False  # see set_recompute
    triton = False  # see set_triton
    patch_pixels: Literal[2, 4] = 2  # see large_maps

    def __init__(
        self,
        num_layers: int,
        num_input_features: int,
        growth_rate: int,
        bn_size: int,
        *,
        large_maps: bool = False,
    ) -> None:
        """The output has ``num_input_features + num_layers * growth_rate`` channels.

        ``large_maps``: a CPU computes 4 x 4 pixels of a 3x3 convolution at once in place of 2 x 2
        (``native/network/patch_forms.h``). The results differ by rounding.
        """
        super().__init__()
        if large_maps:
            self.patch_pixels = 4
        for i in range(num_layers):
            layer = DenseLayer(num_input_features + i * growth_rate, growth_rate, bn_size)
            self.add_module(f"denselayer{i + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """Append each layer's channels to ``x``, oldest first."""
        if self.triton:
            fused = triton_dense_block(tuple(self), DenseLayer, x)
        else:
            fused = fused_dense_block(tuple(self), DenseLayer, x, self.patch_pixels)
        if fused is not None:
            return fused
        if self.recompute and torch.is_grad_enabled():
            return self._recomputed(x)
        for layer in self:
            x = torch.cat([x, layer(x)], dim=1)
        return x

    def _recomputed(self, x: Tensor) -> Tensor:
        """The same; of each layer only the new channels are stored."""
        features = [x]
        for layer in self:

            def run(*parts: Tensor, layer: nn.Module = layer) -> Tensor:
                new_features: Tensor = layer(torch.cat(parts, dim=1))
                return new_features

            features.append(run_again_in_backward(run, [layer], *features))
        return torch.cat(features, dim=1)


class Transition(nn.Sequential):
    """BN-ReLU-1x1 conv to ``num_output_features``, then a 2 x 2 pooling at stride 2.

    The paper pools by average, the original by maximum. Both drop the last row or column of an odd
    size.
    """

    recompute = False  # see set_recompute
    triton = False  # see set_triton

    def __init__(self, num_input_features: int, num_output_features: int, variant: Variant) -> None:
        """Modules under torchvision's names and in its order."""
        super().__init__()
        self.norm = nn.BatchNorm2d(num_input_features)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(num_input_features, num_output_features, kernel_size=1, bias=False)
        self.pool = nn.AvgPool2d(2) if variant == "paper" else nn.MaxPool2d(2)
        self._averages = variant == "paper"

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, num_input_features, H, W)`` to ``(N, num_output_features, H // 2, W // 2)``."""
        if self.triton and self._averages:
            pooled = triton_pooling((self.norm, self.relu, self.pool), nn.AvgPool2d, None, x)
            if pooled is not None:
                convolved: Tensor = self.conv(pooled)
                return convolved
        fused = fused_transition(tuple(self), self._averages, x)
        if fused is not None:
            return fused
        if self.recompute and torch.is_grad_enabled():
            return run_again_in_backward(self._run, [self], x)
        return self._run(x)

    def _run(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(x))
        # An average and a 1x1 convolution commute, so pooling first gives the same function with a
        # quarter of the multiplications. A maximum and a convolution do not commute.
        pooled: Tensor = self.conv(self.pool(x)) if self._averages else self.pool(self.conv(x))
        return pooled


_KINDS = (DenseBlock, DenseLayer, Transition)


class Features(nn.Sequential):
    """Everything before the last ReLU, under torchvision's names."""

    recompute = False  # see set_recompute
    triton = False  # see set_triton

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, num_features, H', W')``."""
        x, parts = images, list(self.children())
        frozen = _frozen_parts(parts, x)
        if frozen:
            # Stores nothing for the backward pass, and runs by the inference kernels.
            with torch.no_grad():
                x = _run(parts[:frozen], x)
        recompute = self.recompute and torch.is_grad_enabled()
        return _run(parts[frozen:], x, recompute=recompute, triton=self.triton)


def _frozen_parts(parts: Sequence[nn.Module], x: Tensor) -> int:
    """Number of first parts through which no gradient flows."""
    if not torch.is_grad_enabled() or x.requires_grad:
        return 0
    count = 0
    for part in parts:
        if any(parameter.requires_grad for parameter in part.parameters()):
            break
        count += 1
    return count


def _stem_pool(parts: Sequence[nn.Module]) -> StemPool | None:
    if len(parts) >= 4 and isinstance(parts[3], MaxPoolSame | nn.MaxPool2d):
        return StemPool(type(parts[3]), isinstance(parts[3], MaxPoolSame))
    return None


def _run(
    parts: Sequence[nn.Module], x: Tensor, *, recompute: bool = False, triton: bool = False
) -> Tensor:
    """Apply ``parts``, the first or the last of a network's, by the fast paths where they can."""
    pool = _stem_pool(parts)
    if parts and isinstance(parts[-1], nn.BatchNorm2d):
        fused = fused_network(Whole(parts, _KINDS, pool), x)
        if fused is not None:
            return fused
    if pool is not None:
        x = parts[0](x)
        kernels = triton_pooling if triton else fused_stem
        fused = kernels(parts[1:4], pool.kind, pool.padding(*x.shape[2:]), x)
        if fused is None and recompute:
            fused = run_again_in_backward(nn.Sequential(*parts[1:4]), parts[1:4], x)
        x, parts = (x, parts[1:]) if fused is None else (fused, parts[4:])
    for part in parts:
        x = part(x)
    return x


class DenseNet(nn.Module):
    """A DenseNet-BC with compression 0.5 and no dropout.

    The weights are torch's defaults; call ``utils.var_init.initialise`` or load a checkpoint next.

    Attributes:
        features: everything up to the last batch norm (norm5 for any number of blocks).
        classifier: the linear layer from ``num_features`` to ``num_classes``.
        num_features: number of input channels of the classifier.
        in_channels: channels of the images.
        min_image_size: smallest height and width, in pixels, for which one pixel remains.
    """

    def __init__(
        self,
        *,
        growth_rate: int,
        block_config: Sequence[int],
        num_init_features: int,
        num_classes: int = 1000,
        bn_size: int = 4,
        variant: Variant = "paper",
        stem: Stem = "imagenet",
        in_channels: int = 3,
    ) -> None:
        """Build the network.

        Args:
            growth_rate: channels that each layer adds, k in the paper.
            block_config: number of layers of each dense block.
            num_init_features: channels after conv0.
            num_classes: number of logits.
            bn_size: width of the bottleneck as a multiple of ``growth_rate``.
            variant: ``paper`` pools by average in the transitions and symmetrically after conv0
                (torchvision, timm, mindcv); ``model_zoo`` pools by maximum as in the original.
                The parameters have the same names and shapes, but weights of one variant give
                wrong results in the other.
            stem: ``imagenet`` is 7x7 at stride 2, BN, ReLU and pooling; ``cifar`` a 3x3
                convolution at stride 1 (the paper, section 4.2).
            in_channels: channels of the images, 3 for RGB and 1 for grey.

        Raises:
            InputError: an unknown variant or stem, or less than one class.
        """
        super().__init__()
        if variant not in get_args(Variant):
            raise InputError(f'variant must be one of {get_args(Variant)}, got "{variant}"')
        if stem not in get_args(Stem):
            raise InputError(f'stem must be one of {get_args(Stem)}, got "{stem}"')
        if num_classes < 1:
            raise InputError(f"num_classes must be at least 1, got {num_classes}")
        self.growth_rate = growth_rate
        self.block_config = tuple(block_config)
        self.num_classes = num_classes
        self.variant: Variant = variant
        self.stem: Stem = stem
        self.in_channels = in_channels

        self.features = _stem(in_channels, num_init_features, variant, stem)
        num_features = num_init_features
        for b, num_layers in enumerate(self.block_config, start=1):
            large = b <= LARGE_MAPS
            block = DenseBlock(num_layers, num_features, growth_rate, bn_size, large_maps=large)
            self.features.add_module(f"denseblock{b}", block)
            num_features += num_layers * growth_rate
            if b < len(self.block_config):
                transition = Transition(num_features, num_features // 2, variant)
                self.features.add_module(f"transition{b}", transition)
                num_features //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(num_features))
        self.num_features = num_features
        self.classifier = nn.Linear(num_features, num_classes)
        self.min_image_size = _min_image_size(len(self.block_config), stem)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, not probabilities.

        Args:
            images: ``(N, in_channels, H, W)``, normalised; any H and W of at least
                ``min_image_size``.

        Returns:
            ``(N, num_classes)``.
        """
        if getattr(self.pooled, "__func__", None) is DenseNet.pooled:
            whole = self._whole(images)
            logits = fused_logits(whole, self.classifier, images) if whole else None
            if logits is not None:
                return logits
        return classify(self.classifier, self.pooled(images))

    def pooled(self, images: Tensor) -> Tensor:
        """The classifier's input, ``(N, num_features)``, for the images of ``forward``."""
        whole = self._whole(images)
        means = fused_means(whole, images) if whole else None
        if means is not None:
            return means
        return F.relu(self.features(images)).mean(dim=(2, 3))

    def _whole(self, images: Tensor) -> Whole | None:
        """What one call may compute in place of ``features``, or None."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return None
        parts = list(self.features.children())
        if not is_untouched(self.features, Features) or not isinstance(parts[-1], nn.BatchNorm2d):
            return None
        return Whole(parts, _KINDS, _stem_pool(parts))


def _min_image_size(blocks: int, stem: Stem) -> int:
    size = 1 << (blocks - 1)  # a transition keeps floor(n / 2) pixels
    # conv0 and pool0 keep ceil(n / 2) each
    return size if stem == "cifar" else 4 * size - 3


def _stem(in_channels: int, num_init_features: int, variant: Variant, stem: Stem) -> Features:
    """The layers before the first dense block, under torchvision's names."""
    layers = Features()
    if stem == "cifar":
        conv0 = nn.Conv2d(in_channels, num_init_features, 3, padding=1, bias=False)
        layers.add_module("conv0", conv0)
        return layers
    conv0 = nn.Conv2d(in_channels, num_init_features, 7, stride=2, padding=3, bias=False)
    layers.add_module("conv0", conv0)
    layers.add_module("norm0", nn.BatchNorm2d(num_init_features))
    layers.add_module("relu0", nn.ReLU())
    pool0 = nn.MaxPool2d(3, stride=2, padding=1) if variant == "paper" else MaxPoolSame()
    layers.add_module("pool0", pool0)
    return layers
