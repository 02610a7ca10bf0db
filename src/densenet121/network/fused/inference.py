"""A dense block in evaluation without gradients: weights are folded and packed once, then cached.

The mathematics is in ``native/network/inference.h`` and ``inference_layers.h``.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from densenet121.native.network.structures import InferenceArguments
from densenet121.network.fused.arguments import BlockPlan, block_arguments
from densenet121.network.fused.conditions import real


@dataclass(frozen=True)
class _Packed:
    """Packed weights of a block for the kernels, and the versions of their sources."""

    versions: tuple[object, ...]
    weights: Tensor
    norms: Tensor


# By the first layer of the block, so that the memory is freed with the network.
_PACKED: weakref.WeakKeyDictionary[nn.Module, _Packed] = weakref.WeakKeyDictionary()


def infer_block(
    first_layer: nn.Module,
    plan: BlockPlan,
    x: Tensor,
    parameters: Sequence[Tensor],
) -> Tensor:
    """Output of the block for ``x``, ``(N, C, H, W)`` channels_last, with running statistics."""
    images, columns, height, width = x.shape
    layers = len(plan.means) // 2
    y = torch.empty(
        (images, columns + layers * plan.growth, height, width),
        dtype=plan.dtype,
        device="cpu",
        memory_format=torch.channels_last,
    )
    arguments = InferenceArguments(block=block_arguments(plan, y, y, parameters, columns))
    packed = _packed(first_layer, plan, arguments, parameters)
    arguments.block.x = x.data_ptr()
    arguments.weights, arguments.norms = packed.weights.data_ptr(), packed.norms.data_ptr()
    plan.kernels.call("inference_run", plan.dtype, arguments)
    return y


def _packed(
    first_layer: nn.Module,
    plan: BlockPlan,
    arguments: InferenceArguments,
    parameters: Sequence[Tensor],
) -> _Packed:
    """The packed weights; those of the last call are reused if their sources did not change."""
    sources = [*parameters, *plan.means, *plan.variances]
    # Tensors created in inference mode have no version counter.
    countable = not any(t.is_inference() for t in sources)
    plan.kernels.call("inference_fingerprint", plan.dtype, arguments)
    versions = (
        *(plan.dtype, plan.eps, plan.patch_pixels, arguments.fingerprint),
        *((t.data_ptr(), t._version) for t in sources if countable),
    )
    known = _PACKED.get(first_layer)
    if countable and known is not None and known.versions == versions:
        return known
    packed = _Packed(
        versions,
        torch.empty(arguments.weight_numbers, dtype=plan.dtype, device="cpu"),
        torch.empty(arguments.norm_numbers, dtype=real(plan.dtype), device="cpu"),
    )
    arguments.weights, arguments.norms = packed.weights.data_ptr(), packed.norms.data_ptr()
    plan.kernels.call("inference_pack", plan.dtype, arguments)
    if countable:
        _PACKED[first_layer] = packed
    return packed
