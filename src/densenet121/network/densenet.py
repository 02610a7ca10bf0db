"""DenseNet in plain PyTorch modules: the reference, with torchvision's parameter names.

Shapes: N images, C channels, H rows, W columns; every feature map is ``(N, C, H, W)``.

Sources: Huang et al. 2017, "Densely Connected Convolutional Networks" (the paper), section 3 and
table 1; torchvision's ``models/densenet.py`` for the names; the original's
``src/network/densenet.py`` for the variant ``model_zoo``.
"""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, Literal, SupportsIndex, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densenet121.network.fused import (
    LARGE_MAPS,
    NetworkCall,
    StemPool,
    classify,
    fused_stem,
    is_untouched,
    prepare_network,
)
from densenet121.network.layers import DenseBlock, DenseLayer, MaxPoolSame, Transition, Variant
from densenet121.network.recompute import run_again_in_backward
from densenet121.network.triton import triton_pooling
from densenet121.utils.errors import InputError

Stem = Literal["imagenet", "cifar"]

_POOLS = (MaxPoolSame, nn.MaxPool2d)
_KINDS = (DenseBlock, DenseLayer, Transition)


class Features(nn.Sequential):
    """Everything before the last ReLU, under torchvision's names."""

    recompute = False  # see set_recompute
    triton = False  # see set_triton

    def parts(self) -> list[nn.Module]:
        """What ``forward`` applies, one after the other."""
        # children() takes ten times as long.
        return [part for part in self._modules.values() if part is not None]

    def forward(self, images: Tensor, *, in_parts: bool = False) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, num_features, H', W')``.

        ``in_parts``: without a try to compute all of it in one call.
        """
        x, parts = images, self.parts()
        frozen = _frozen_parts(parts, x)
        if frozen:
            # Stores nothing for the backward pass, and runs by the inference kernels.
            with torch.no_grad():
                x = _run(parts[:frozen], x)
        recompute = self.recompute and torch.is_grad_enabled()
        return _run(parts[frozen:], x, in_parts=in_parts, recompute=recompute, triton=self.triton)


def _frozen_parts(parts: Sequence[nn.Module], x: Tensor) -> int:
    """Number of first parts through which no gradient flows, as long as nobody hooks them."""
    if not torch.is_grad_enabled() or not isinstance(x, Tensor) or x.requires_grad:
        return 0  # torch.fx passes symbols
    count = 0
    for part in parts:
        if any(parameter.requires_grad for parameter in part.parameters()):
            break
        if any(_may_begin_gradients(module) for module in part.modules()):
            break
        count += 1
    return count


def _may_begin_gradients(module: nn.Module) -> bool:
    """Whether a hook or a patched ``forward`` could give an output a gradient of its own."""
    own = module.__dict__
    return bool(own["_forward_hooks"] or own["_forward_pre_hooks"] or "forward" in own)


def _prepare(parts: Sequence[nn.Module], x: Tensor) -> NetworkCall | None:
    """The one call for all parts of a network, if it is possible."""
    if not parts or not isinstance(parts[-1], nn.BatchNorm2d):
        return None
    return prepare_network(parts, _KINDS, _stem_pool(parts), x)


def _stem_pool(parts: Sequence[nn.Module]) -> StemPool | None:
    if len(parts) >= 4 and type(parts[3]) in _POOLS:
        return StemPool(type(parts[3]), isinstance(parts[3], MaxPoolSame))
    return None


def _run(
    parts: Sequence[nn.Module],
    x: Tensor,
    *,
    in_parts: bool = False,
    recompute: bool = False,
    triton: bool = False,
) -> Tensor:
    """Apply ``parts``, the first or the last of a network's, by the fast paths where they can."""
    call = None if in_parts else _prepare(parts, x)
    if call is not None:
        return call.maps()
    pool = _stem_pool(parts)
    if pool is not None:
        x = parts[0](x)
        kernels = triton_pooling if triton else fused_stem
        fused = kernels(parts[1:4], pool.kind, pool.padding(x.shape[2], x.shape[3]), x)
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
            InputError: an unknown variant or stem, or a number that is none or less than 1.
        """
        super().__init__()
        _check_kinds(variant, stem)
        sizes = {"growth_rate": growth_rate, "num_init_features": num_init_features}
        sizes |= {"num_classes": num_classes, "bn_size": bn_size, "in_channels": in_channels}
        _check_sizes(block_config, sizes)
        self.growth_rate, self.block_config = growth_rate, tuple(block_config)
        self.num_classes, self.in_channels = num_classes, in_channels
        self.variant: Variant = variant
        self.stem: Stem = stem

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
        if getattr(self.pooled, "__func__", None) is not DenseNet.pooled:
            return classify(self.classifier, self.pooled(images))
        call = self._in_one_call(images)
        logits = None if call is None else call.logits(self.classifier)
        return classify(self.classifier, self._means(images, call)) if logits is None else logits

    def least_batch(self, height: int, width: int) -> int:
        """Fewest images of this size in a batch of training: batch norm needs two values a channel.

        Args:
            height: pixels, at least ``min_image_size``.
            width: the same.
        """
        blocks = len(self.block_config)
        sides = (_last_size(pixels, blocks, self.stem) for pixels in (height, width))
        return 2 if max(sides) == 1 else 1

    def pooled(self, images: Tensor) -> Tensor:
        """The classifier's input, ``(N, num_features)``, for the images of ``forward``."""
        return self._means(images, self._in_one_call(images))

    def _in_one_call(self, images: Tensor) -> NetworkCall | None:
        if not self._features_are_untouched():
            return None
        return _prepare(self.features.parts(), images)

    def _means(self, images: Tensor, call: NetworkCall | None) -> Tensor:
        if call is not None:
            return call.means()
        # What was just found to be impossible is not tried again: it takes a millisecond.
        tried = self._features_are_untouched()
        maps = self.features(images, in_parts=True) if tried else self.features(images)
        return F.relu(maps).mean(dim=(2, 3))

    def _features_are_untouched(self) -> bool:
        """Whether one call may stand for ``features``; not while torch.compile traces."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return False
        return is_untouched(self.features, Features)


def _check_kinds(variant: str, stem: str) -> None:
    if variant not in get_args(Variant):
        raise InputError(f'variant must be one of {get_args(Variant)}, got "{variant}"')
    if stem not in get_args(Stem):
        raise InputError(f'stem must be one of {get_args(Stem)}, got "{stem}"')


def _check_sizes(block_config: Sequence[int], sizes: Mapping[str, Any]) -> None:
    blocks = [("layers of each block of block_config", count) for count in block_config]
    for name, value in (*sizes.items(), ("blocks of block_config", len(block_config)), *blocks):
        if isinstance(value, bool) or not isinstance(value, SupportsIndex):
            raise InputError(f"{name} must be a whole number, got {value!r}")
        if operator.index(value) < 1:
            raise InputError(f"{name} must be at least 1, got {value}")


def _min_image_size(blocks: int, stem: Stem) -> int:
    size = 1 << (blocks - 1)
    return size if stem == "cifar" else 4 * size - 3


def _last_size(size: int, blocks: int, stem: Stem) -> int:
    """Height or width of the last features of images with this one."""
    # conv0 and pool0 keep ceil(n / 2) pixels each, a transition keeps floor(n / 2)
    return (size if stem == "cifar" else (size + 3) // 4) >> (blocks - 1)


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
