"""The layers of a DenseNet in plain PyTorch modules, with torchvision's parameter names.

Shapes: N images, C channels, H rows, W columns; every feature map is ``(N, C, H, W)``.

Sources: those of ``densenet.py``.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densenet121.network.fused import (
    fused_dense_block,
    fused_transition,
    is_plain_convolution,
    is_pooling,
)
from densenet121.network.recompute import run_again_in_backward
from densenet121.network.triton import triton_dense_block, triton_pooling

Variant = Literal["paper", "model_zoo"]


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
            # A hook may write into the result, which the backward pass and the next norm read.
            return fused.clone() if self._forward_hooks else fused
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

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, num_input_features, H, W)`` to ``(N, num_output_features, H // 2, W // 2)``."""
        if self.triton and self._commutes():
            pooled = triton_pooling((self.norm, self.relu, self.pool), nn.AvgPool2d, None, x)
            if pooled is not None:
                convolved: Tensor = self.conv(pooled)
                return convolved
        fused = fused_transition(tuple(self), isinstance(self.pool, nn.AvgPool2d), x)
        if fused is not None:
            return fused
        if self.recompute and torch.is_grad_enabled():
            return run_again_in_backward(self._run, [self], x)
        return self._run(x)

    def _run(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(x))
        pooled: Tensor = self.conv(self.pool(x)) if self._commutes() else self.pool(self.conv(x))
        return pooled

    def _commutes(self) -> bool:
        """Whether pooling first gives the same function, with a quarter of the multiplications.

        An average and a 1x1 convolution commute. A maximum does not, nor does what was changed.
        """
        return is_pooling(self.pool, nn.AvgPool2d) and is_plain_convolution(self.conv, 1)
