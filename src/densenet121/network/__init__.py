"""DenseNet in seven sizes."""

from densenet121.network.constant import constant_network
from densenet121.network.densenet import DenseNet, Stem
from densenet121.network.fused import plain_network
from densenet121.network.layers import DenseBlock, DenseLayer, MaxPoolSame, Transition, Variant
from densenet121.network.recompute import set_recompute
from densenet121.network.sizes import (
    FOR_SMALL_IMAGES,
    NETWORKS,
    build,
    densenet40,
    densenet100,
    densenet121,
    densenet161,
    densenet169,
    densenet201,
    densenet264,
)
from densenet121.network.stages import frozen_stages, set_frozen, stages
from densenet121.network.sync_batch_norm import synchronise_norms
from densenet121.network.triton import set_triton

__all__ = [
    "FOR_SMALL_IMAGES",
    "NETWORKS",
    "DenseBlock",
    "DenseLayer",
    "DenseNet",
    "MaxPoolSame",
    "Stem",
    "Transition",
    "Variant",
    "build",
    "constant_network",
    "densenet40",
    "densenet100",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "densenet264",
    "frozen_stages",
    "plain_network",
    "set_frozen",
    "set_recompute",
    "set_triton",
    "stages",
    "synchronise_norms",
]
