"""The tensors of ``scheme`` as the kernels read them: see ``native/network/int8_*.h``."""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densenet121.native.network.structures import (
    FirstConvolution,
    Int8Affine,
    Int8Block,
    Int8Layer,
    Int8Network,
    Int8Product,
    StemArguments,
)
from densenet121.network.fused.arguments import LARGE_MAPS
from densenet121.network.int8.weights import PAIR, fours_fit

PANEL = 32  # columns
SUMMANDS = 4
GROUP = 64  # channels of a norm
WORD_CHANNELS = 16  # the channels of transformed weights are a multiple of it
_TRANSFORM = [[1, 0, 0], [-1, -1, -1], [-1, 1, -1], [1, 2, 4], [1, -2, 4], [0, 0, 1]]


@dataclass(frozen=True)
class Packed:
    """The arguments of the kernels, and the memory that they point to."""

    arguments: Int8Network
    memory: list[Any]


def pack(
    tensors: Mapping[str, Tensor],
    block_config: Sequence[int],
    *,
    stride: int,
    averages: bool,
    pooled: bool,
    patch_columns: int,
) -> Packed:
    """Everything but the images, the sizes and the output.

    ``patch_columns`` are those of a register: with them the weights of large maps' 3x3 convolutions
    are also packed as ``int8_winograd.h`` reads them.
    """
    memory: list[Any] = []
    conv0 = tensors["features.conv0.weight"]
    columns, channels, kernel = conv0.shape[:3]
    low, step = tensors["images.low"], tensors["images.step"]
    zero = zero_pixel(low, step)
    arguments = Int8Network(
        blocks=len(block_config),
        pooled=pooled,
        averages=averages,
        first=FirstConvolution(
            channels=channels, columns=columns, kernel=kernel, stride=stride, padding=kernel // 2
        ),
        pool=StemArguments(columns=columns),
        conv0=_product(tensors, "features.conv0", memory),
        low=(ctypes.c_float * 4)(*low.tolist()),
        step=(ctypes.c_float * 4)(*step.tolist()),
        zero=(ctypes.c_uint8 * 4)(*zero.tolist()),
        block=(Int8Block * len(block_config))(),
        feature_scale=_kept(tensors["features.norm5.scale"].numpy(), memory),
    )
    for b, layers in enumerate(block_config):
        last = b + 1 == len(block_config)
        after = "features.norm5" if last else f"features.transition{b + 1}.norm"
        block = _block(tensors, b, layers, memory, patch_columns)
        block.transition = _affine(tensors, after, memory)
        if not last:
            block.reduction = _product(tensors, after[:-4] + "conv", memory)
        arguments.block[b] = block
    return Packed(arguments, memory)


def _block(
    tensors: Mapping[str, Tensor], b: int, layers: int, memory: list[Any], patch_columns: int
) -> Int8Block:
    name = f"features.denseblock{b + 1}.denselayer"
    growth, bottleneck = tensors[f"{name}1.conv2.weight"].shape[:2]
    by_patches = patch_columns > 0 and takes_patches(b, bottleneck)
    packed = (Int8Layer * layers)()
    for i in range(layers):
        conv2 = f"{name}{i + 1}.conv2"
        packed[i] = Int8Layer(
            _affine(tensors, f"{name}{i + 1}.norm1", memory),
            _product(tensors, f"{name}{i + 1}.conv1", memory),
            _product(tensors, conv2, memory),
            _patches(tensors[f"{conv2}.weight"], patch_columns, memory) if by_patches else None,
        )
    return Int8Block(
        input_columns=len(tensors[f"{name}1.norm1.factor"]),
        layers=layers,
        growth=growth,
        bottleneck=bottleneck,
        by_patches=by_patches,
        layer=packed,
    )


def zero_pixel(low: Tensor, step: Tensor) -> Tensor:
    """The 8 bits of a zero of each channel of the images, which is around them."""
    return ((0 - low) * step).clamp(0, 255).round().to(torch.uint8)


def _kept(array: Any, memory: list[Any]) -> int:
    """Address of a copy at the start of a cache line: torch aligns its memory, NumPy does not."""
    kept = torch.from_numpy(np.ascontiguousarray(array)).clone()
    memory.append(kept)
    return kept.data_ptr()


def _product(tensors: Mapping[str, Tensor], name: str, memory: list[Any]) -> Int8Product:
    weight = tensors[f"{name}.weight"].numpy().transpose(2, 3, 1, 0)
    channels, columns = weight.shape[2:]
    padded = -(-columns // PANEL) * PANEL
    widths = ((0, 0), (0, 0), (0, -channels % SUMMANDS), (0, padded - columns))
    rows = np.pad(weight, widths).reshape(-1, SUMMANDS, padded // PANEL, PANEL)

    def whole(kind: str) -> Any:
        return np.pad(tensors[f"{name}.{kind}"].numpy(), (0, padded - columns))

    return Int8Product(
        columns,
        fours_fit(tensors[f"{name}.weight"]),
        _kept(rows.transpose(2, 0, 3, 1), memory),
        _kept(whole("bias"), memory),
        _kept(whole("scale"), memory),
    )


def takes_patches(block: int, bottleneck: int) -> bool:
    """Whether the 3x3 convolutions of a block may be Winograd's: in large maps, and exact.

    The weights take eight times the memory, which only large maps are worth. The sums are right
    modulo 2^26; a sum is at most 255 times 64 for each of 9 weights of each channel.
    """
    return block < LARGE_MAPS and 255 * (PAIR // 2) * 9 * (bottleneck + 1) < 1 << 25


def _patches(weight: Tensor, columns: int, memory: list[Any]) -> int:
    """The transforms of weights, times what makes them whole.

    Each in panels of two registers of columns, or one at the end: all pairs of channels after
    another, each with the columns of the panel.
    """
    rows = np.array(_TRANSFORM, dtype=np.int32)
    whole = np.einsum("ar,oirc,bc->abio", rows, weight.numpy().astype(np.int32), rows)
    whole = whole.reshape(-1, *whole.shape[2:]).astype(np.int16)
    channels, width = whole.shape[1:]
    whole = np.pad(whole, ((0, 0), (0, -channels % WORD_CHANNELS), (0, -width % columns)))
    numbers, _, padded = whole.shape
    pairs = whole.reshape(numbers, -1, 2, padded).swapaxes(2, 3)
    panels = [pairs[:, :, n : n + 2 * columns] for n in range(0, padded, 2 * columns)]
    return _kept(np.concatenate([p.reshape(numbers, -1) for p in panels], axis=1), memory)


def _affine(tensors: Mapping[str, Tensor], name: str, memory: list[Any]) -> Int8Affine:
    columns = len(tensors[f"{name}.factor"])

    def padded(kind: str) -> int:
        return _kept(np.pad(tensors[f"{name}.{kind}"].numpy(), (0, -columns % GROUP)), memory)

    return Int8Affine(columns, padded("factor"), padded("shift"))
