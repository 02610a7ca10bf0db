"""The Triton kernels of a dense block, forward. Every matrix is stored by rows, one for each pixel.

Names: ``y`` the block's buffer, ``z`` the output of a 1x1 convolution, ``w`` its weights with a row
for each output. A batch norm is ``gamma``, ``beta``, ``mean``, ``variance`` and ``eps``, or
``affine``, two rows: ``scale`` and ``shift`` of ``scale * x + shift``. A program works on ``tiles``
tiles of ``BM`` rows, one after another. Sums are of float32, in one order: no program adds to what
another has written.
"""

import triton
import triton.language as tl


@triton.jit
def norm_at(gamma, beta, mean, variance, eps, column, known):
    """A batch norm of some columns as ``scale * x + shift``."""
    scale = tl.load(gamma + column, mask=known, other=0.0)
    scale *= 1.0 / tl.sqrt(tl.load(variance + column, mask=known, other=0.0) + eps)
    middle = tl.load(mean + column, mask=known, other=0.0)
    return scale, tl.load(beta + column, mask=known, other=0.0) - middle * scale


@triton.jit
def tile_at(rows, columns, BM: tl.constexpr, BN: tl.constexpr):
    """This program's one tile: its first row, rows from there, columns, and which of them exist."""
    start = tl.program_id(0).to(tl.int64) * BM
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    local = tl.arange(0, BM)
    known = column < columns
    return start, local, column, known, (local < rows - start)[:, None] & known[None, :]


@triton.jit
def _merge(seen, mean, squares, found, inside, count):
    """Add ``count`` rows to means, and sums of squared differences from them (Chan et al. 1979)."""
    tile_mean = tl.sum(tl.where(inside, found, 0.0), axis=0) / tl.maximum(count, 1.0)
    difference = tl.where(inside, found - tile_mean[None, :], 0.0)
    share = count / tl.maximum(seen + count, 1.0)
    away = tile_mean - mean
    squares += tl.sum(difference * difference, axis=0) + away * away * seen * share
    return seen + count, mean + away * share, squares


@triton.jit
def append(
    source, y, parts, rows, columns, stride, first, tiles,
    COPY: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Copy ``source`` into the columns of ``y`` from ``first`` on; their means and squares."""
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    seen, mean, squares = 0.0, tl.zeros((BN,), tl.float32), tl.zeros((BN,), tl.float32)
    for tile in range(tiles):
        start = (tl.program_id(0) * tiles + tile).to(tl.int64) * BM
        local = tl.arange(0, BM)
        inside = (local < rows - start)[:, None] & (column < columns)[None, :]
        place = source + start * columns + (local[:, None] * columns + column[None, :])
        found = tl.load(place, mask=inside, other=0.0)
        if COPY:
            place = y + start * stride + first + (local[:, None] * stride + column[None, :])
            tl.store(place, found, mask=inside)
        count = tl.minimum(tl.maximum(rows - start, 0), BM).to(tl.float32)
        seen, mean, squares = _merge(seen, mean, squares, found.to(tl.float32), inside, count)
    store_two(parts, column, columns, mean, squares)


@triton.jit
def store_two(parts, column, columns, first, second):
    """Two sums of each column of this program's rows."""
    place = parts + tl.program_id(0) * 2 * columns + column
    tl.store(place, first, mask=column < columns)
    tl.store(place + columns, second, mask=column < columns)


@triton.jit
def statistics(
    parts, mean, variance, gamma, beta, eps, affine, rows, first, columns, programs, each,
    NORM: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Mean and variance of the columns from ``first`` on, from ``programs`` parts of ``each`` rows.

    ``NORM`` also makes scale and shift of the next batch norm, which reads all ``columns``:
    two rows of ``affine``.
    """
    column = tl.program_id(0) * BN + tl.arange(0, BN)
    known, new = column < columns, (column >= first) & (column < columns)
    width = columns - first
    total = tl.zeros((BP, BN), tl.float32)
    for start in range(0, programs, BP):
        part = start + tl.arange(0, BP)
        inside = (part < programs)[:, None] & new[None, :]
        count = tl.minimum(rows - part * each, each).to(tl.float32)
        place = parts + part[:, None] * 2 * width + (column - first)[None, :]
        found = tl.load(place, mask=inside, other=0.0)
        total += tl.where(inside, found * (count / rows)[:, None], 0.0)
    middle = tl.sum(total, axis=0)
    squares = tl.zeros((BP, BN), tl.float32)
    for start in range(0, programs, BP):
        part = start + tl.arange(0, BP)
        inside = (part < programs)[:, None] & new[None, :]
        count = tl.minimum(rows - part * each, each).to(tl.float32)
        place = parts + part[:, None] * 2 * width + (column - first)[None, :]
        away = tl.load(place, mask=inside, other=0.0) - middle[None, :]
        found = tl.load(place + width, mask=inside, other=0.0)
        squares += tl.where(inside, found + away * away * count[:, None], 0.0)
    spread = tl.sum(squares, axis=0) / rows
    tl.store(mean + column, middle, mask=new)
    tl.store(variance + column, spread, mask=new)
    if NORM:
        older = known & (column < first)
        middle = tl.where(new, middle, tl.load(mean + column, mask=older, other=0.0))
        spread = tl.where(new, spread, tl.load(variance + column, mask=older, other=0.0))
        scale = tl.load(gamma + column, mask=known, other=0.0) / tl.sqrt(spread + eps)
        shift = tl.load(beta + column, mask=known, other=0.0) - middle * scale
        tl.store(affine + column, scale, mask=known)
        tl.store(affine + columns + column, shift, mask=known)


@triton.jit
def first_product(
    y, affine, w, z, parts, rows, depth, columns, stride,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``z = relu(norm(y)) w'``, with the means and squares of its columns, of one tile of rows."""
    start = tl.program_id(0).to(tl.int64) * BM
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    local = tl.arange(0, BM)
    present, known = local < rows - start, column < columns
    source = y + start * stride
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for first in range(0, depth, BK):
        k = first + tl.arange(0, BK)
        deep = k < depth
        a = tl.load(
            source + (local[:, None] * stride + k[None, :]),
            mask=present[:, None] & deep[None, :],
            other=0.0,
        )
        b = tl.load(
            w + (column[None, :] * depth + k[:, None]),
            mask=known[None, :] & deep[:, None],
            other=0.0,
        )
        scale = tl.load(affine + k, mask=deep, other=0.0)
        shift = tl.load(affine + depth + k, mask=deep, other=0.0)
        a = tl.maximum(a.to(tl.float32) * scale[None, :] + shift[None, :], 0.0)
        total = tl.dot(a.to(b.dtype), b, total, input_precision=PRECISION)
    rounded = total.to(z.dtype.element_ty)
    inside = present[:, None] & known[None, :]
    place = z + start * columns + (local[:, None] * columns + column[None, :])
    tl.store(place, rounded, mask=inside)
    found = rounded.to(tl.float32)
    count = tl.minimum(rows - start, BM).to(tl.float32)
    middle = tl.sum(tl.where(inside, found, 0.0), axis=0) / count
    away = tl.where(inside, found - middle[None, :], 0.0)
    store_two(parts, column, columns, middle, tl.sum(away * away, axis=0))


@triton.jit
def normalise(z, affine, b, rows, columns, BM: tl.constexpr, BN: tl.constexpr):
    """``b = relu(norm(z))``, which the 3x3 convolution reads."""
    start, local, column, known, inside = tile_at(rows, columns, BM, BN)
    place = start * columns + (local[:, None] * columns + column[None, :])
    scale = tl.load(affine + column, mask=known, other=0.0)
    shift = tl.load(affine + columns + column, mask=known, other=0.0)
    found = tl.load(z + place, mask=inside, other=0.0).to(tl.float32)
    found = tl.maximum(found * scale[None, :] + shift[None, :], 0.0)
    tl.store(b + place, found.to(b.dtype.element_ty), mask=inside)
