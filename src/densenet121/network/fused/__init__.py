"""Fused kernels: the same functions as the plain modules, with less time and memory."""

from densenet121.network.fused.arguments import LARGE_MAPS
from densenet121.network.fused.block import fused_dense_block
from densenet121.network.fused.classifier import classify, fused_classifier, prepare_classifier
from densenet121.network.fused.conditions import (
    is_plain_convolution,
    is_pooling,
    is_untouched,
    plain_network,
    runs_plain,
)
from densenet121.network.fused.network import NetworkCall, prepare_network, unchanged
from densenet121.network.fused.network_plan import StemPool
from densenet121.network.fused.stem import fused_stem
from densenet121.network.fused.transition import fused_transition

__all__ = [
    "LARGE_MAPS",
    "NetworkCall",
    "StemPool",
    "classify",
    "fused_classifier",
    "fused_dense_block",
    "fused_stem",
    "fused_transition",
    "is_plain_convolution",
    "is_pooling",
    "is_untouched",
    "plain_network",
    "prepare_classifier",
    "prepare_network",
    "runs_plain",
    "unchanged",
]
