"""Launches the kernels of a dense block: tensors in, tensors out."""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from densenet121.network.triton import backward_kernels, kernels

# Tiles of rows, columns and depth; found by measuring on an H100.
_PRODUCT = {"BM": 64, "BK": 32, "num_warps": 4, "num_stages": 4}
_GRADIENT = {"BM": 32, "BN": 64, "num_warps": 4, "num_stages": 3}
_ELEMENTWISE_BM = 32
PROGRAMS = 1024  # that a kernel with sums is divided into, about; it leaves as many parts
_SHARES = 264  # the same of the gradient of a weight, whose parts are larger
_SUM_BN = 8  # columns of a program that sums parts
DEEPEST = 256  # bottleneck, in channels


class Norm(NamedTuple):
    """A batch norm of a pass, float32."""

    gamma: Tensor
    beta: Tensor
    mean: Tensor
    variance: Tensor
    eps: float

    def affine(self) -> Tensor:
        """``(2, C)``: scale and shift of ``scale * x + shift``."""
        scale = self.gamma * torch.rsqrt(self.variance + self.eps)
        return torch.stack([scale, self.beta - self.mean * scale])


class Parts(NamedTuple):
    """Statistics of shares of the rows, to be merged.

    Attributes:
        parts: ``(shares, 2, C)``, means and sums of squared differences from them.
        rows: of all shares.
        each: rows of a share; the last may have less.
    """

    parts: Tensor
    rows: int
    each: int


def append(x: Tensor, y: Tensor | None, first: int) -> Parts:
    """Copy ``x`` into the channels of ``y`` from ``first`` on.

    Args:
        x: ``(N, C, H, W)``, channels_last.
        y: the block's buffer; None only measures.
        first: the first of its channels.
    """
    rows, columns = rows_of(x), x.shape[1]
    wide = width_of(columns)
    tile = max(_ELEMENTWISE_BM, 4096 // wide)
    programs, tiles = shares_of(rows, tile, triton.cdiv(columns, wide), PROGRAMS)
    parts = parts_of(x, programs, columns)
    stride = 0 if y is None else y.shape[1]
    kernels.append[programs, triton.cdiv(columns, wide)](
        x, x if y is None else y, parts, rows, columns, stride, first, tiles,
        COPY=y is not None, BM=tile, BN=wide,
    )  # fmt: skip
    return Parts(parts, rows, tile * tiles)


def first_product(y: Tensor, affine: Tensor, weight: Tensor) -> tuple[Tensor, Parts]:
    """``z``, ``(rows, out)``, of a 1x1 convolution of the first channels, and its statistics.

    Args:
        y: the block's buffer.
        affine: the norm of the channels that are read.
        weight: ``(out, channels that are read)``.
    """
    rows, (columns, depth) = rows_of(y), weight.shape
    z = torch.empty((rows, columns), dtype=y.dtype, device=y.device)
    wide, chosen = width_of(columns), _chosen(_PRODUCT, y)
    programs = triton.cdiv(rows, chosen["BM"])
    parts = parts_of(y, programs, columns)
    kernels.first_product[programs, triton.cdiv(columns, wide)](
        y, affine, weight, z, parts, rows, depth, columns, y.shape[1],
        BN=wide, PRECISION=_precision(y), **chosen,
    )  # fmt: skip
    return z, Parts(parts, rows, chosen["BM"])


def statistics(found: Parts, mean: Tensor, variance: Tensor, next_norm: Norm | None) -> Tensor:
    """Set the last of ``mean`` and ``variance``; the next norm, which reads all, as ``affine``."""
    programs, _, width = found.parts.shape
    columns = len(mean)
    norm = next_norm or Norm(mean, mean, mean, mean, 0.0)
    affine = torch.empty((2, columns if next_norm else 0), dtype=torch.float32, device=mean.device)
    kernels.statistics[(triton.cdiv(columns, _SUM_BN),)](
        found.parts, mean, variance, norm.gamma, norm.beta, norm.eps, affine,
        found.rows, columns - width, columns, programs, found.each,
        NORM=next_norm is not None, **_steps(programs),
    )  # fmt: skip
    return affine


def normalise(z: Tensor, affine: Tensor) -> Tensor:
    """``relu`` of the batch norm of ``z``."""
    b, (rows, columns) = torch.empty_like(z), z.shape
    wide = width_of(columns)
    kernels.normalise[triton.cdiv(rows, _ELEMENTWISE_BM), triton.cdiv(columns, wide)](
        z, affine, b, rows, columns, BM=_ELEMENTWISE_BM, BN=wide
    )
    return b


def read_gradient(
    grad: Tensor, y: Tensor, mean: Tensor, owed: Tensor, first: int, columns: int
) -> Tensor:
    """The gradient of ``columns`` channels of ``y`` from ``first`` on, ``(N, columns, H, W)``.

    Args:
        grad: the gradient of ``y`` so far.
        y: the buffer.
        mean: means of the channels of ``y``.
        owed: ``(2, C)``, a constant and a slope along ``y - mean`` for each channel.
        first: the first channel.
        columns: number of channels.
    """
    images, _, height, width = y.shape
    out = torch.empty(
        (images, columns, height, width),
        dtype=y.dtype,
        device=y.device,
        memory_format=torch.channels_last,
    )
    rows, wide = rows_of(y), width_of(columns)
    tile = max(_ELEMENTWISE_BM, 4096 // wide)
    backward_kernels.read_gradient[triton.cdiv(rows, tile), triton.cdiv(columns, wide)](
        grad, y, mean, owed, out, rows, columns, y.shape[1], first, BM=tile, BN=wide
    )
    return out


def open_relu(db: Tensor, z: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """``relu`` of the norm of ``z`` again, and parts of the sums for ``norm_sums``."""
    b, (rows, columns) = torch.empty_like(z), z.shape
    wide = width_of(columns)
    programs, tiles = shares_of(rows, _ELEMENTWISE_BM, triton.cdiv(columns, wide), PROGRAMS)
    parts = parts_of(z, programs, columns)
    backward_kernels.open_relu[programs, triton.cdiv(columns, wide)](
        db, z, *norm, b, parts, rows, columns, tiles, BM=_ELEMENTWISE_BM, BN=wide
    )
    return b, parts


def norm_sums(
    parts: Tensor, norm: Norm, rows: int, owed: Tensor, *, frozen: bool, add: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of a norm's two weights; sets ``owed``, or adds to it, unless ``frozen``."""
    programs, _, columns = parts.shape
    d_gamma, d_beta = torch.empty((2, columns), dtype=torch.float32, device=parts.device).unbind()
    backward_kernels.norm_sums[(triton.cdiv(columns, _SUM_BN),)](
        parts, norm.gamma, norm.variance, norm.eps, owed, d_gamma, d_beta,
        rows, columns, owed.shape[1], programs,
        FROZEN=frozen, ADD=add, **_steps(programs),
    )  # fmt: skip
    return d_gamma, d_beta


def norm_gradient(db: Tensor, z: Tensor, norm: Norm, owed: Tensor, *, frozen: bool) -> None:
    """Turn ``db``, the gradient of ``relu`` of a norm, into that of its input ``z``."""
    rows, columns = z.shape
    wide = width_of(columns)
    backward_kernels.norm_gradient[triton.cdiv(rows, _ELEMENTWISE_BM), triton.cdiv(columns, wide)](
        db, z, *norm, owed, rows, columns, FROZEN=frozen, BM=_ELEMENTWISE_BM, BN=wide
    )


def layer_gradient(
    dz: Tensor, weight: Tensor, y: Tensor, norm: Norm, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """Add the gradient of the channels that a layer reads to ``grad``.

    Returns:
        The gradient of the 1x1 convolution's weight, ``(out, in)`` float32, and parts of the sums
        of the norm for ``norm_sums``.
    """
    (rows, depth), columns = dz.shape, weight.shape[1]
    chosen = _chosen(_GRADIENT, y)
    chosen["BN"] = min(chosen["BN"], width_of(columns))
    across = triton.cdiv(columns, chosen["BN"])
    shares, tiles = shares_of(rows, chosen["BM"], across, _SHARES)
    parts = parts_of(y, shares, columns)
    weights = torch.empty((shares, depth, columns), dtype=torch.float32, device=y.device)
    backward_kernels.layer_gradient[across, shares](
        dz, weight, y, *norm, grad, parts, weights, rows, depth, columns, y.shape[1], tiles,
        BD=int(max(16, triton.next_power_of_2(depth))), PRECISION=_precision(y), **chosen,
    )  # fmt: skip
    return weights.sum(dim=0), parts


def rows_of(x: Tensor) -> int:
    """Number of pixels of all images."""
    return x.shape[0] * x.shape[2] * x.shape[3]


def shares_of(rows: int, tile: int, across: int, most: int) -> tuple[int, int]:
    """Programs along the rows, and tiles of rows of each."""
    count = triton.cdiv(rows, tile)
    tiles = triton.cdiv(count, max(1, min(count, most // across)))
    return triton.cdiv(count, tiles), tiles


def parts_of(like: Tensor, programs: int, columns: int) -> Tensor:
    """Two sums of each column from each program."""
    return torch.empty((programs, 2, columns), dtype=torch.float32, device=like.device)


def _chosen(tiles: dict[str, int], y: Tensor) -> dict[str, int]:
    """``tiles``; of float32, whose tiles take twice the room, a smaller one."""
    if y.dtype != torch.float32:
        return dict(tiles)
    return tiles | {"BM": tiles["BM"] // 2} | ({"BK": 32} if "BK" in tiles else {})


def width_of(columns: int) -> int:
    """Columns of a tile: Triton multiplies blocks of 16 and more, in powers of two."""
    return int(min(128, max(16, triton.next_power_of_2(columns))))


def _steps(programs: int) -> dict[str, int]:
    """How the sum of so many parts is divided."""
    parts = int(min(1024, max(16, triton.next_power_of_2(programs))))
    return {"BP": parts, "BN": _SUM_BN, "num_warps": 8 if parts > 256 else 4}


def _precision(y: Tensor) -> Any:
    """How float32 is multiplied: as PyTorch does it now."""
    return "tf32" if y.is_cuda and torch.backends.cuda.matmul.allow_tf32 else "ieee"
