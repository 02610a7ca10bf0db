"""The arithmetic of int8 inference in NumPy, written from its definition and slow.

Whole numbers are int64; the sums of a convolution are made in float64, which is exact for them and
which matrix products are quick in. The only operations in float32 are one product and one rounding
for each result of a convolution.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Whole = NDArray[np.int64]  # (N, H, W, C)


def convolution(
    x: Whole, tensors: Mapping[str, Tensor], name: str, low: int, high: int, stride: int = 1
) -> Whole:
    """Of an image that has its frame already; limited to ``low`` ... ``high``."""
    weight = tensors[f"{name}.weight"].numpy().astype(np.float64)
    bias = tensors[f"{name}.bias"].numpy().astype(np.float64)
    size, pixels = weight.shape[2], x.astype(np.float64)
    largest = np.abs(pixels).max() * np.abs(weight).sum((1, 2, 3)) + np.abs(bias)
    assert largest.max() < 2**53, "a sum on the way may be no whole number of float64"
    rows, columns = ((n - size) // stride + 1 for n in x.shape[1:3])
    sums = np.zeros((len(x), rows, columns, len(weight))) + bias
    for r in range(size):
        for c in range(size):
            part = pixels[:, r : r + stride * rows : stride, c : c + stride * columns : stride]
            sums += part[:, :rows, :columns] @ weight[:, :, r, c].T
    scaled = sums.astype(np.int64).astype(np.float32) * tensors[f"{name}.scale"].numpy()
    found: Whole = np.rint(scaled).astype(np.int64).clip(low, high)
    return found


def norm(x: Whole, tensors: Mapping[str, Tensor], name: str) -> Whole:
    """A norm with 4 binary places, before relu: rounded half up, limited to 16 bits."""
    factor = tensors[f"{name}.factor"].numpy().astype(np.int64)
    product = (x * factor + 2**14) // 2**15
    found: Whole = np.clip(product + tensors[f"{name}.shift"].numpy(), -(2**15), 2**15 - 1)
    return found


def framed(x: Whole, width: int, value: int | Whole = 0) -> Whole:
    """With pixels of ``value`` around the images."""
    n, rows, columns, channels = x.shape
    out = np.empty((n, rows + 2 * width, columns + 2 * width, channels), np.int64)
    out[:] = value
    out[:, width : width + rows, width : width + columns] = x
    return out


def features(
    tensors: Mapping[str, Tensor],
    blocks: Sequence[int],
    images: NDArray[np.float32],
    *,
    variant: str,
    stem: str,
) -> NDArray[np.float32]:
    """The features of normalised images ``(N, C, H, W)``."""
    low, step = (tensors[f"images.{name}"].numpy() for name in ("low", "step"))
    pixels = np.rint(((images.transpose(0, 2, 3, 1) - low) * step).clip(0, 255)).astype(np.int64)
    zero = np.rint(((0 - low) * step).clip(0, 255)).astype(np.int64)
    size = tensors["features.conv0.weight"].shape[2]
    stride = 2 if stem == "imagenet" else 1
    x = convolution(
        framed(pixels, size // 2, zero), tensors, "features.conv0", -(2**15), 2**15 - 1, stride
    )
    if stem == "imagenet":
        x = stem_maximum(x, variant)
    for b, layers in enumerate(blocks, start=1):
        for i in range(1, layers + 1):
            name = f"features.denseblock{b}.denselayer{i}"
            inputs = ((norm(x, tensors, f"{name}.norm1") + 8) >> 4).clip(0, 255)
            inner = convolution(inputs, tensors, f"{name}.conv1", 0, 255)
            new = convolution(framed(inner, 1), tensors, f"{name}.conv2", -(2**15), 2**15 - 1)
            x = np.concatenate([x, new], axis=3)
        if b < len(blocks):
            x = transition(x, tensors, f"features.transition{b}", variant)
    sums = norm(x, tensors, "features.norm5").clip(0).sum((1, 2)).astype(np.float32)
    mean = sums / np.float32(x.shape[1] * x.shape[2])
    found: NDArray[np.float32] = mean * tensors["features.norm5.scale"].numpy()
    return found


def stem_maximum(x: Whole, variant: str) -> Whole:
    """Of 3 x 3 pixels at stride 2; the model zoo's windows of even sizes begin at 0."""
    n, rows, columns, channels = x.shape
    top, left = (1 if variant == "paper" or size % 2 else 0 for size in (rows, columns))
    out = np.full((n, (rows + 1) // 2, (columns + 1) // 2, channels), -(2**15), np.int64)
    for r in range(out.shape[1]):
        for c in range(out.shape[2]):
            window = x[
                :, max(2 * r - top, 0) : 2 * r - top + 3, max(2 * c - left, 0) : 2 * c - left + 3
            ]
            out[:, r, c] = window.max((1, 2))
    return out


def transition(x: Whole, tensors: Mapping[str, Tensor], name: str, variant: str) -> Whole:
    """By average before the convolution, by maximum after it."""
    rows, columns = (size // 2 for size in x.shape[1:3])
    values = norm(x, tensors, f"{name}.norm")
    four = [values[:, r : 2 * rows : 2, c : 2 * columns : 2] for r in (0, 1) for c in (0, 1)]
    if variant == "paper":
        sums: Whole = np.array([part.clip(0, 255 * 16) for part in four]).sum(0)
        return convolution((sums + 32) >> 6, tensors, f"{name}.conv", -(2**15), 2**15 - 1)
    found = [
        convolution(((part + 8) >> 4).clip(0, 255), tensors, f"{name}.conv", -(2**15), 2**15 - 1)
        for part in four
    ]
    most: Whole = np.maximum.reduce(found)
    return most
