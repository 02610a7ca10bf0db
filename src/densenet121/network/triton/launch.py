"""Launches the kernels of a dense block: tensors in, tensors out."""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from densenet121.network.triton import kernels

_BM = 64  # rows of a tile
_BK = 32  # depth of one step of a product
_MOST_SHARES = 64  # of the rows, in the gradient of a weight
Sums = tuple[Tensor, Tensor]


class Norm(NamedTuple):
    """A batch norm of a pass, float32: ``scale * x + shift``.

    Attributes:
        mean: that is subtracted.
        rstd: one over the standard deviation.
        scale: ``gamma * rstd``.
        shift: ``beta - mean * scale``.
    """

    mean: Tensor
    rstd: Tensor
    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, eps: float) -> "Norm":
        """From its weights and statistics."""
        rstd = torch.rsqrt(variance + eps)
        scale = gamma * rstd
        return cls(mean.contiguous(), rstd, scale, beta - mean * scale)


def append(x: Tensor, y: Tensor, first: int) -> Sums:
    """Copy ``x`` into the channels of ``y`` from ``first`` on; their means and variances."""
    rows, columns = rows_of(x), x.shape[1]
    parts = _parts(y, rows, columns)
    kernels.append[_grid(rows, columns)](
        x, y, parts, rows, columns, y.shape[1], first, BM=_BM, BN=_width(columns)
    )
    return _statistics(parts, rows)


def first_product(y: Tensor, norm: Norm, weight: Tensor) -> tuple[Tensor, Sums]:
    """``z``, ``(rows, out)``, of a 1x1 convolution of the first channels; means and variances."""
    rows, (columns, depth) = rows_of(y), weight.shape
    z = torch.empty((rows, columns), dtype=y.dtype, device=y.device)
    parts = _parts(y, rows, columns)
    kernels.first_product[_grid(rows, columns)](
        y, norm.scale, norm.shift, weight, z, parts, rows, depth, columns, y.shape[1],
        BM=_BM, BN=_width(columns), BK=_BK, PRECISION=_precision(y),
    )  # fmt: skip
    return z, _statistics(parts, rows)


def normalise(z: Tensor, norm: Norm) -> Tensor:
    """``relu`` of the batch norm of ``z``."""
    b, (rows, columns) = torch.empty_like(z), z.shape
    kernels.normalise[_grid(rows, columns)](
        z, norm.scale, norm.shift, b, rows, columns, BM=_BM, BN=_width(columns)
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
    rows = rows_of(y)
    kernels.read_gradient[_grid(rows, columns)](
        grad, y, mean, owed[0], owed[1], out, rows, columns, y.shape[1], first,
        BM=_BM, BN=_width(columns),
    )  # fmt: skip
    return out


def close_relu(db: Tensor, z: Tensor, norm: Norm) -> Sums:
    """Close relu's gradient ``db`` in place; sums of it, and of it times ``z - mean``."""
    rows, columns = z.shape
    parts = _parts(z, rows, columns)
    kernels.close_relu[_grid(rows, columns)](
        db, z, norm.scale, norm.shift, norm.mean, parts, rows, columns,
        BM=_BM, BN=_width(columns),
    )  # fmt: skip
    return parts[:, 0].sum(dim=0), parts[:, 1].sum(dim=0)


def norm_gradient(db: Tensor, z: Tensor, norm: Norm, owed: Tensor) -> None:
    """Turn the gradient of a norm's output, in ``db``, into that of its input ``z``."""
    rows, columns = z.shape
    kernels.norm_gradient[_grid(rows, columns)](
        db, z, norm.scale, norm.mean, owed[0], owed[1], rows, columns, BM=_BM, BN=_width(columns)
    )


def input_gradient(dz: Tensor, weight: Tensor, y: Tensor, norm: Norm, grad: Tensor) -> Sums:
    """Add the gradient of the channels that a layer reads to ``grad``; sums as ``close_relu``."""
    (rows, depth), columns = dz.shape, weight.shape[1]
    parts = _parts(y, rows, columns)
    kernels.input_gradient[_grid(rows, columns)](
        dz, weight, y, norm.scale, norm.shift, norm.mean, grad, parts,
        rows, depth, columns, y.shape[1],
        BM=_BM, BN=_width(columns), BK=_BK, PRECISION=_precision(y),
    )  # fmt: skip
    return parts[:, 0].sum(dim=0), parts[:, 1].sum(dim=0)


def weight_gradient(dz: Tensor, y: Tensor, norm: Norm) -> Tensor:
    """The gradient of the 1x1 convolution's weight, ``(out, in)`` float32."""
    (rows, depth), columns = dz.shape, len(norm.scale)
    steps = triton.cdiv(rows, _BK)
    each = triton.cdiv(steps, min(_MOST_SHARES, steps)) * _BK
    shares = triton.cdiv(rows, each)
    parts = torch.empty((shares, depth, columns), dtype=torch.float32, device=y.device)
    wide = _width(columns)
    kernels.weight_gradient[(triton.cdiv(depth, _BM), triton.cdiv(columns, wide), shares)](
        dz, y, norm.scale, norm.shift, parts, rows, depth, columns, y.shape[1], each,
        BM=_BM, BN=wide, BK=_BK, PRECISION=_precision(y),
    )  # fmt: skip
    return parts.sum(dim=0)


def rows_of(x: Tensor) -> int:
    """Number of pixels of all images."""
    return x.shape[0] * x.shape[2] * x.shape[3]


def _parts(like: Tensor, rows: int, columns: int) -> Tensor:
    """Two sums of each column of each tile."""
    shape = (triton.cdiv(rows, _BM), 2, columns)
    return torch.empty(shape, dtype=torch.float32, device=like.device)


def _statistics(parts: Tensor, rows: int) -> Sums:
    """Mean and variance of each column, from those of its tiles (Chan et al. 1979)."""
    count = torch.full((len(parts), 1), float(_BM), device=parts.device)
    count[-1] = rows - (len(parts) - 1) * _BM
    mean = (parts[:, 0] * (count / rows)).sum(dim=0)
    squares = parts[:, 1] + count * (parts[:, 0] - mean).square()
    return mean, squares.sum(dim=0) / rows


def _width(columns: int) -> int:
    """Columns of a tile: Triton multiplies blocks of 16 and more, in powers of two."""
    return int(min(128, max(16, triton.next_power_of_2(columns))))


def _grid(rows: int, columns: int) -> tuple[int, int]:
    return triton.cdiv(rows, _BM), triton.cdiv(columns, _width(columns))


def _precision(y: Tensor) -> Any:
    """How float32 is multiplied: as PyTorch does it now."""
    return "tf32" if y.is_cuda and torch.backends.cuda.matmul.allow_tf32 else "ieee"
