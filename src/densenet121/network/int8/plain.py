"""The arithmetic of 8-bit integers in plain tensors: slow, and the same bits as the kernels.

Whole numbers are kept in float64, which holds all sums exactly, in any order.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from densenet121.network.int8.packing import zero_pixel
from densenet121.network.int8.scheme import FRACTION, LOWEST

Tensors = Mapping[str, Tensor]


def plain_features(
    tensors: Tensors,
    block_config: Sequence[int],
    images: Tensor,
    *,
    stride: int,
    averages: bool,
    pool_padding: tuple[int, int] | None,
) -> Tensor:
    """The features ``(N, num_features)`` float32 of normalised images.

    ``pool_padding`` is the stem's pooling at the top and left, None without one.
    """
    x = _pixels(tensors, images)
    x = _stored(x, tensors, "features.conv0", stride)
    if pool_padding is not None:
        top, left = pool_padding
        x = F.pad(x, (left, 2, top, 2), value=LOWEST)
        height, width = ((size + 1) // 2 for size in _conv0_size(tensors, images, stride))
        x = F.max_pool2d(x, 3, 2)[:, :, :height, :width]
    for b, layers in enumerate(block_config):
        for i in range(layers):
            name = f"features.denseblock{b + 1}.denselayer{i + 1}"
            inputs = _rounded(_values(x, tensors, f"{name}.norm1"), FRACTION).clamp(0, 255)
            inner = _result(inputs, tensors, f"{name}.conv1").clamp(0, 255)
            x = torch.cat([x, _stored(inner, tensors, f"{name}.conv2")], 1)
        if b + 1 < len(block_config):
            x = _transition(x, tensors, f"features.transition{b + 1}", averages=averages)
    values = _values(x, tensors, "features.norm5").clamp_min(0)
    sums = values.sum((2, 3)).float()
    pixels = torch.tensor(float(x.shape[2] * x.shape[3]), dtype=torch.float32)
    return sums / pixels * tensors["features.norm5.scale"]


def _conv0_size(tensors: Tensors, images: Tensor, stride: int) -> tuple[int, int]:
    kernel = tensors["features.conv0.weight"].shape[2]
    height, width = ((n + kernel // 2 * 2 - kernel) // stride + 1 for n in images.shape[2:])
    return height, width


def _pixels(tensors: Tensors, images: Tensor) -> Tensor:
    """The images as 8 bits, in a frame of zeros for the first convolution."""
    low, step = tensors["images.low"], tensors["images.step"]
    shifted = (images.float() - low.view(-1, 1, 1)) * step.view(-1, 1, 1)
    pixels = torch.nan_to_num(shifted).clamp(0, 255).round().double()
    zero = zero_pixel(low, step).double().view(1, -1, 1, 1)
    padding = tensors["features.conv0.weight"].shape[2] // 2
    return F.pad(pixels - zero, (padding,) * 4) + zero


def _values(x: Tensor, tensors: Tensors, name: str) -> Tensor:
    factor = tensors[f"{name}.factor"].double().view(1, -1, 1, 1)
    shift = tensors[f"{name}.shift"].double().view(1, -1, 1, 1)
    product = torch.floor((x * factor + 2**14) / 2**15)
    return (product + shift).clamp(LOWEST, -LOWEST - 1)


def _rounded(values: Tensor, places: int) -> Tensor:
    half, one = 1 << (places - 1), 1 << places
    # As the kernels' 16 bits, although what they limit is above 255 anyway.
    return torch.floor((values + half).clamp(LOWEST, -LOWEST - 1) / one)


def _result(x: Tensor, tensors: Tensors, name: str, stride: int = 1, padding: int = 0) -> Tensor:
    sums = F.conv2d(x, tensors[f"{name}.weight"].double(), None, stride, padding)
    sums = sums + tensors[f"{name}.bias"].double().view(1, -1, 1, 1)
    scaled = sums.float() * tensors[f"{name}.scale"].view(1, -1, 1, 1)
    return scaled.round().double()


def _stored(x: Tensor, tensors: Tensors, name: str, stride: int = 1) -> Tensor:
    # The first convolution's frame is there already.
    padding = 1 if name.endswith("conv2") else 0
    return _result(x, tensors, name, stride, padding).clamp(LOWEST, -LOWEST - 1)


def _transition(x: Tensor, tensors: Tensors, name: str, *, averages: bool) -> Tensor:
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    values = _values(x[:, :, :height, :width], tensors, f"{name}.norm")
    if averages:
        limited = values.clamp(0, 255 << FRACTION)
        sums = F.avg_pool2d(limited, 2, divisor_override=1)
        return _stored(_rounded(sums, FRACTION + 2), tensors, f"{name}.conv")
    inputs = _rounded(values, FRACTION).clamp(0, 255)
    return F.max_pool2d(_stored(inputs, tensors, f"{name}.conv"), 2)
