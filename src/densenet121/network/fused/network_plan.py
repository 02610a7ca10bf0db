"""Prepare a whole network for the kernels: check it and pack its weights once.

The mathematics is in ``native/network/network.h``.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from densenet121.native.network import Kernels
from densenet121.native.network.structures import (
    FirstConvolution,
    InferenceArguments,
    NetworkArguments,
    StemArguments,
    TransitionArguments,
)
from densenet121.network.fused.arguments import block_arguments, layer_parameters, make_plan
from densenet121.network.fused.conditions import (
    holds_its_numbers,
    is_plain_convolution,
    is_plain_layer,
    is_pooling,
    is_stem_pooling,
    is_untouched,
    real,
    uses_batch_statistics,
)
from densenet121.network.fused.watch import Watch

Kinds = tuple[type[nn.Module], type[nn.Module], type[nn.Module]]


@dataclass(frozen=True)
class StemPool:
    """A pool0: its class, and whether it pads like MindSpore's "same" or by 1 on each side."""

    kind: type[nn.Module]
    same: bool

    def padding(self, height: int, width: int) -> tuple[int, int]:
        """Padding of the first window at the top and the left of conv0's output."""
        return (height % 2, width % 2) if self.same else (1, 1)


@dataclass(frozen=True)
class Known:
    """A prepared network; ``arguments`` is None if the kernels do not support it."""

    watch: Watch
    state: list[object]
    dtype: torch.dtype
    arguments: NetworkArguments | None = None
    num_features: int = 0
    packed: tuple[Tensor, ...] = ()


def prepare(
    kernels: Kernels,
    dtype: torch.dtype,
    parts: Sequence[nn.Module],
    kinds: Kinds,
    pool: StemPool | None,
    unknown: Known,
) -> Known:
    """Pack the weights of a network, if the kernels support it."""
    stem: Sequence[Any] = parts[: 1 if pool is None else 4]
    blocks: Sequence[Any] = parts[len(stem) : -1 : 2]
    transitions: Sequence[Any] = parts[len(stem) + 1 : -1 : 2]
    last: Any = parts[-1]
    if not _is_plain(stem, blocks, transitions, kinds, pool):
        return unknown
    norms = [norm for block in blocks for layer in block for norm in (layer.norm1, layer.norm2)]
    others = [*(transition.norm for transition in transitions), last]
    if uses_batch_statistics([*stem[1:2], *norms, *others]) is not False:
        return unknown
    parameters = [p for part in parts for p in part.parameters()]
    if not all(p.dtype == real(dtype) and p.device.type == "cpu" for p in parameters):
        return unknown
    columns = stem[0].out_channels
    if pool is not None and stem[1].num_features != columns:
        return unknown
    if not _sizes_fit(columns, blocks, transitions, last):
        return unknown
    arguments = NetworkArguments(
        threads=torch.get_num_threads(),
        blocks=len(blocks),
        pooled=pool is not None,
        averages=any(isinstance(transition.pool, nn.AvgPool2d) for transition in transitions),
        first=FirstConvolution(
            channels=stem[0].in_channels,
            columns=columns,
            kernel=stem[0].kernel_size[0],
            stride=stem[0].stride[0],
            padding=stem[0].padding[0],
            weight=stem[0].weight.data_ptr(),
            weight_strides=(ctypes.c_int64 * 4)(*stem[0].weight.stride()),
        ),
        stem=StemArguments(columns=columns, frozen=True, **_norm(stem[1]) if pool else {}),
        block=(InferenceArguments * len(blocks))(),
        transition=(TransitionArguments * len(blocks))(),
    )
    columns = _add_blocks(arguments, kernels, dtype, blocks, transitions, last)
    kernels.call("network_fingerprint", dtype, arguments)
    packed = (
        torch.empty(arguments.weight_numbers, dtype=dtype, device="cpu"),
        torch.empty(arguments.norm_numbers, dtype=real(dtype), device="cpu"),
    )
    arguments.weights, arguments.norms = (tensor.data_ptr() for tensor in packed)
    kernels.call("network_pack", dtype, arguments)
    return replace(unknown, arguments=arguments, num_features=columns, packed=packed)


def _add_blocks(
    arguments: NetworkArguments,
    kernels: Kernels,
    dtype: torch.dtype,
    blocks: Sequence[Any],
    transitions: Sequence[Any],
    last: Any,
) -> int:
    """Fill in the blocks and what follows each of them; the number of features of the last."""
    columns: int = arguments.first.columns
    for i, block in enumerate(blocks):
        layers = tuple(block)
        of_layers = [norm for layer in layers for norm in (layer.norm1, layer.norm2)]
        empty = torch.empty((1, columns, 0, 0), dtype=dtype, device="cpu")
        plan = make_plan(
            kernels, dtype, layers, of_layers, empty, frozen=True, patch_pixels=block.patch_pixels
        )
        weights = [p for layer in layers for p in layer_parameters(layer)]
        arguments.block[i].block = block_arguments(plan, empty, empty, weights, columns)
        columns += len(layers) * plan.growth
        if i + 1 == len(blocks):
            norm, convolution = _norm(last), {}
        else:
            norm, weight = _norm(transitions[i].norm), transitions[i].conv.weight
            convolution = {
                "weight": weight.data_ptr(),
                "output_columns": weight.shape[0],
                "strides": (ctypes.c_int64 * 4)(*weight.stride()),
            }
        arguments.transition[i] = TransitionArguments(
            columns=columns, pool=2, frozen=True, **norm, **convolution
        )
        columns = columns if i + 1 == len(blocks) else arguments.transition[i].output_columns
    return columns


def _norm(norm: Any) -> dict[str, Any]:
    return {
        "gamma": norm.weight.data_ptr(),
        "beta": norm.bias.data_ptr(),
        "mean": norm.running_mean.data_ptr(),
        "variance": norm.running_var.data_ptr(),
        "eps": norm.eps,
    }


def _is_plain(
    stem: Sequence[Any],
    blocks: Sequence[Any],
    transitions: Sequence[Any],
    kinds: Kinds,
    pool: StemPool | None,
) -> bool:
    """Whether everything except the batch norms is unmodified."""
    block_kind, layer_kind, transition_kind = kinds
    if not _is_plain_first_convolution(stem[0]):
        return False
    if pool is not None and not (
        is_untouched(stem[2], nn.ReLU) and is_stem_pooling(stem[3], pool.kind)
    ):
        return False
    if not blocks or len(transitions) != len(blocks) - 1:
        return False
    if not all(is_untouched(transition, transition_kind) for transition in transitions):
        return False
    pools = {type(transition.pool) for transition in transitions}
    return (
        pools in (set(), {nn.AvgPool2d}, {nn.MaxPool2d})
        and all(
            is_untouched(transition.relu, nn.ReLU)
            and is_plain_convolution(transition.conv, 1)
            and is_pooling(transition.pool, type(transition.pool))
            for transition in transitions
        )
        and all(is_untouched(block, block_kind) and len(block) > 0 for block in blocks)
        and all(is_plain_layer(layer, layer_kind) for block in blocks for layer in block)
    )


def _is_plain_first_convolution(module: Any) -> bool:
    """Whether it is a square convolution without a bias, dilation or groups."""
    return (
        is_untouched(module, nn.Conv2d)
        and module.kernel_size[0] == module.kernel_size[1]
        and module.stride[0] == module.stride[1]
        and not isinstance(module.padding, str)
        and module.padding[0] == module.padding[1]
        and module.dilation == (1, 1)
        and module.groups == 1
        and module.bias is None
        and module.padding_mode == "zeros"
        and holds_its_numbers(module.weight)
    )


def _sizes_fit(columns: int, blocks: Sequence[Any], transitions: Sequence[Any], last: Any) -> bool:
    """Whether each part has as many input channels as the parts before it produce."""
    for i, block in enumerate(blocks):
        growth, width = block[0].conv2.out_channels, block[0].conv1.out_channels
        for layer in block:
            if (
                tuple(layer.conv1.weight.shape[:2]) != (width, columns)
                or tuple(layer.conv2.weight.shape[:2]) != (growth, width)
                or layer.norm1.num_features != columns
                or layer.norm2.num_features != width
            ):
                return False
            columns += growth
        norm = last if i + 1 == len(blocks) else transitions[i].norm
        if norm.num_features != columns:
            return False
        if i + 1 < len(blocks):
            if transitions[i].conv.weight.shape[1] != columns:
                return False
            columns = transitions[i].conv.weight.shape[0]
    return True
