"""Arguments of the kernels for a dense block."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from densenet121.native.network import Kernels
from densenet121.native.network.structures import BlockArguments, LayerArguments
from densenet121.network.fused.conditions import real

PARAMETERS = 6  # per layer, in the order of layer_parameters
# A network's first blocks, whose maps are worth patches of 4 x 4 pixels in 3x3 convolutions.
LARGE_MAPS = 2


@dataclass(frozen=True)
class BlockPlan:
    """What forward and backward of a block share, besides the tensors.

    ``means`` and ``variances`` alternate between norm1 and norm2 of all layers. They are the
    running ones in a frozen block, else those of the batch; then those of norm1 are the first
    channels of the block's.
    """

    kernels: Kernels
    dtype: torch.dtype
    frozen: bool
    patch_pixels: int
    growth: int
    bottleneck: int
    eps: tuple[float, ...]
    means: Sequence[Tensor]
    variances: Sequence[Tensor]
    mean: Tensor | None
    variance: Tensor | None


def layer_parameters(layer: Any) -> tuple[Tensor, ...]:
    """All parameters of a ``DenseLayer``."""
    return (
        layer.norm1.weight,
        layer.norm1.bias,
        layer.conv1.weight,
        layer.norm2.weight,
        layer.norm2.bias,
        layer.conv2.weight,
    )


def make_plan(
    kernels: Kernels,
    dtype: torch.dtype,
    layers: Sequence[Any],
    norms: Sequence[Any],
    x: Tensor,
    *,
    frozen: bool,
    patch_pixels: int,
) -> BlockPlan:
    """Plan with empty tensors for the batch's statistics, or a ``frozen`` block's running ones."""
    bottleneck, growth = layers[0].conv1.out_channels, layers[0].conv2.out_channels
    columns = x.shape[1] + len(layers) * growth
    mean = variance = None
    if frozen:
        means = [norm.running_mean for norm in norms]
        variances = [norm.running_var for norm in norms]
    else:
        mean, variance = torch.empty((2, columns), dtype=real(dtype), device="cpu").unbind()
        inner = torch.empty((2, len(layers), bottleneck), dtype=real(dtype), device="cpu")
        means, variances = [], []
        for i in range(len(layers)):
            seen = x.shape[1] + i * growth
            means += [mean[:seen], inner[0, i]]
            variances += [variance[:seen], inner[1, i]]
    return BlockPlan(
        kernels=kernels,
        dtype=dtype,
        frozen=frozen,
        patch_pixels=patch_pixels,
        growth=growth,
        bottleneck=bottleneck,
        eps=tuple(norm.eps for norm in norms),
        means=means,
        variances=variances,
        mean=mean,
        variance=variance,
    )


def block_arguments(
    plan: BlockPlan, y: Tensor, z: Tensor, parameters: Sequence[Tensor], input_columns: int
) -> BlockArguments:
    """All arguments except x and the gradients. The tensors must outlive the call."""
    layers = (LayerArguments * (len(parameters) // PARAMETERS))()
    for i, layer in enumerate(layers):
        gamma1, beta1, weight1, gamma2, beta2, weight2 = parameters[
            i * PARAMETERS : (i + 1) * PARAMETERS
        ]
        layer.gamma1, layer.beta1 = gamma1.data_ptr(), beta1.data_ptr()
        layer.gamma2, layer.beta2 = gamma2.data_ptr(), beta2.data_ptr()
        layer.weight1, layer.weight2 = weight1.data_ptr(), weight2.data_ptr()
        layer.strides1[:], layer.strides2[:] = weight1.stride(), weight2.stride()
        layer.mean1, layer.mean2 = (m.data_ptr() for m in plan.means[2 * i : 2 * i + 2])
        layer.variance1, layer.variance2 = (v.data_ptr() for v in plan.variances[2 * i : 2 * i + 2])
        layer.eps1, layer.eps2 = plan.eps[2 * i : 2 * i + 2]
    return BlockArguments(
        images=y.shape[0],
        height=y.shape[2],
        width=y.shape[3],
        input_columns=input_columns,
        layers=len(layers),
        growth=plan.growth,
        bottleneck=plan.bottleneck,
        threads=torch.get_num_threads(),
        frozen=plan.frozen,
        patch_pixels=plan.patch_pixels,
        y=y.data_ptr(),
        z=z.data_ptr(),
        mean=None if plan.mean is None else plan.mean.data_ptr(),
        variance=None if plan.variance is None else plan.variance.data_ptr(),
        layer=layers,
    )
