"""A whole network behind conv0, in evaluation without gradients, as one call of the kernels.

``native/network.h`` has the mathematics. What is found out about a network once, its packed weights
included, is kept until anything about it changes.
"""

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from densenet121.native import Kernels
from densenet121.network.fused.arguments import block_arguments, layer_parameters, make_plan
from densenet121.network.fused.conditions import (
    is_plain_convolution,
    is_untouched,
    usable_kernels,
    uses_batch_statistics,
)
from densenet121.network.fused.inference import InferenceArguments
from densenet121.network.fused.stem import StemArguments
from densenet121.network.fused.transition import TransitionArguments
from densenet121.network.fused.watch import Watch, same_state

Kinds = tuple[type[nn.Module], type[nn.Module], type[nn.Module]]
Pool = tuple[type[nn.Module], tuple[int, int]]


class _NetworkArguments(ctypes.Structure):
    """``NetworkArguments`` of native/network.h."""

    _fields_ = [
        ("pictures", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("blocks", ctypes.c_int64),
        ("pooled", ctypes.c_int64),
        ("averages", ctypes.c_int64),
        ("stem", StemArguments),
        ("block", ctypes.POINTER(InferenceArguments)),
        ("transition", ctypes.POINTER(TransitionArguments)),
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("norms", ctypes.c_void_p),
        ("fingerprint", ctypes.c_uint64),
        ("weight_numbers", ctypes.c_int64),
        ("norm_numbers", ctypes.c_int64),
    ]


@dataclass(frozen=True)
class _Known:
    """A network as it was seen last; ``arguments`` is None if the kernels are not for it."""

    watch: Watch
    state: list[object]
    dtype: torch.dtype
    arguments: _NetworkArguments | None = None
    num_features: int = 0
    packed: tuple[Tensor, ...] = ()


# By norm5: the memory goes when the network goes.
_KNOWN: weakref.WeakKeyDictionary[nn.Module, _Known] = weakref.WeakKeyDictionary()


def fused_network(
    parts: Sequence[nn.Module], kinds: Kinds, pool: Pool | None, x: Tensor
) -> Tensor | None:
    """The output of norm5, or None where the parts must compute it one by one.

    Args:
        parts: all that follow conv0: norm0, relu0 and pool0 if the stem has them, dense blocks with
            transitions between them, norm5.
        kinds: the classes of a dense block, of its layers and of a transition that nobody changed.
        pool: the class of such a pool0, and how far its first window reaches over the top and the
            left side; None if the stem has none.
        x: conv0's output, ``(N, C, H, W)``.

    Returns:
        ``(N, num_features, H', W')``, channels_last.
    """
    if torch.is_grad_enabled():
        return None
    found = usable_kernels((), x)
    if found is None or found[1] not in (torch.float32, torch.float64):
        return None
    kernels, dtype = found
    known = _known(kernels, dtype, parts, kinds, pool)
    if known is None or known.arguments is None or known.arguments.stem.columns != x.shape[1]:
        return None
    arguments = _NetworkArguments.from_buffer_copy(known.arguments)
    pictures, _, height, width = x.shape
    stem = arguments.stem
    stem.pictures, stem.height, stem.width = pictures, height, width
    if pool is not None:
        height, width = (height + 1) // 2, (width + 1) // 2
        stem.pad_top, stem.pad_left = pool[1]
    stem.out_height, stem.out_width = height, width
    transitions = arguments.blocks - 1
    height, width = height >> transitions, width >> transitions
    if min(height, width) < 1:
        return None  # for the plain implementation's error
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    y = torch.empty(
        (pictures, known.num_features, height, width),
        dtype=dtype,
        memory_format=torch.channels_last,
    )
    arguments.pictures, arguments.threads = pictures, torch.get_num_threads()
    arguments.x = stem.x = x.data_ptr()
    arguments.y = y.data_ptr()
    kernels.call("network_run", dtype, arguments)
    return y


def _known(
    kernels: Kernels,
    dtype: torch.dtype,
    parts: Sequence[nn.Module],
    kinds: Kinds,
    pool: Pool | None,
) -> _Known | None:
    """What is known of the network, of the last call where nothing has changed since."""
    known = _KNOWN.get(parts[-1])
    # Without the last part, which is the key and must be free to go.
    setting = (dtype, kernels, kinds, None if pool is None else pool[0], *parts[:-1])
    watch = Watch(parts) if known is None else known.watch
    state = watch.state(setting)
    if state is None:
        return None
    if known is not None and same_state(known.state, state):
        if known.arguments is None:
            return known
        arguments = _NetworkArguments.from_buffer_copy(known.arguments)
        kernels.call("network_fingerprint", dtype, arguments)
        if arguments.fingerprint == known.arguments.fingerprint:
            return known
    watch = Watch(parts)
    state = watch.state(setting)
    if state is None:
        return None
    known = _prepare(kernels, dtype, parts, kinds, pool, _Known(watch, state, dtype))
    _KNOWN[parts[-1]] = known
    return known


def _prepare(
    kernels: Kernels,
    dtype: torch.dtype,
    parts: Sequence[nn.Module],
    kinds: Kinds,
    pool: Pool | None,
    unknown: _Known,
) -> _Known:
    """Pack the weights of a network, if the kernels are for it."""
    stem: Sequence[Any] = parts[:3] if pool is not None else ()
    blocks: Sequence[Any] = parts[len(stem) : -1 : 2]
    transitions: Sequence[Any] = parts[len(stem) + 1 : -1 : 2]
    last: Any = parts[-1]
    if not _is_plain(stem, blocks, transitions, kinds, pool):
        return unknown
    norms = [norm for block in blocks for layer in block for norm in (layer.norm1, layer.norm2)]
    others = [*(transition.norm for transition in transitions), last]
    if uses_batch_statistics([*stem[:1], *norms, *others]) is not False:
        return unknown
    parameters = [p for part in parts for p in part.parameters()]
    if not all(p.dtype == dtype and p.device.type == "cpu" for p in parameters):
        return unknown
    columns = stem[0].num_features if stem else blocks[0][0].norm1.num_features
    if not _sizes_fit(columns, blocks, transitions, last):
        return unknown
    arguments = _NetworkArguments(
        threads=torch.get_num_threads(),
        blocks=len(blocks),
        pooled=pool is not None,
        averages=any(isinstance(transition.pool, nn.AvgPool2d) for transition in transitions),
        stem=StemArguments(columns=columns, frozen=True, **_norm(stem[0]) if stem else {}),
        block=(InferenceArguments * len(blocks))(),
        transition=(TransitionArguments * len(blocks))(),
    )
    for i, block in enumerate(blocks):
        layers = tuple(block)
        of_layers = [norm for layer in layers for norm in (layer.norm1, layer.norm2)]
        empty = torch.empty((1, columns, 0, 0), dtype=dtype)
        plan = make_plan(kernels, dtype, layers, of_layers, empty, frozen=True)
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
    kernels.call("network_fingerprint", dtype, arguments)
    packed = (
        torch.empty(arguments.weight_numbers, dtype=dtype),
        torch.empty(arguments.norm_numbers, dtype=dtype),
    )
    arguments.weights, arguments.norms = (tensor.data_ptr() for tensor in packed)
    kernels.call("network_pack", dtype, arguments)
    return replace(unknown, arguments=arguments, num_features=columns, packed=packed)


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
    pool: Pool | None,
) -> bool:
    """Whether everything but the batch norms is what was built."""
    block_kind, layer_kind, transition_kind = kinds
    if pool is not None and not (is_untouched(stem[1], nn.ReLU) and is_untouched(stem[2], pool[0])):
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
            and is_untouched(transition.pool, type(transition.pool))
            for transition in transitions
        )
        and all(is_untouched(block, block_kind) and len(block) > 0 for block in blocks)
        and all(
            is_untouched(layer, layer_kind)
            and is_plain_convolution(layer.conv1, 1)
            and is_plain_convolution(layer.conv2, 3)
            for block in blocks
            for layer in block
        )
    )


def _sizes_fit(columns: int, blocks: Sequence[Any], transitions: Sequence[Any], last: Any) -> bool:
    """Whether each part reads as many channels as there are."""
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
