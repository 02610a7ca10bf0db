"""The Triton kernels of a dense block. Every matrix is stored by rows, a row for each pixel.

Names: ``y`` the block's buffer, ``z`` the output of a 1x1 convolution, ``w`` its weights with a row
for each output, ``scale`` and ``shift`` a batch norm as ``scale * x + shift``. Sums are of float32,
in one order: no program adds to what another has written.
"""

import triton
import triton.language as tl


@triton.jit
def append(source, y, parts, rows, columns, stride, first, BM: tl.constexpr, BN: tl.constexpr):
    """Copy ``source`` into the columns of ``y`` from ``first`` on; their means and squares."""
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    found = tl.load(source + row[:, None] * columns + column[None, :], mask=inside, other=0.0)
    tl.store(y + row[:, None] * stride + first + column[None, :], found, mask=inside)
    _measure(found.to(tl.float32), parts, row, rows, column, columns, BM)


@triton.jit
def _measure(found, parts, row, rows, column, columns, BM: tl.constexpr):
    """Write the mean of each column of a tile, and the sum of its squared differences from it."""
    tile = tl.program_id(0)
    present = (row < rows)[:, None]
    count = tl.minimum(rows - tile * BM, BM).to(tl.float32)
    mean = tl.sum(tl.where(present, found, 0.0), axis=0) / count
    difference = tl.where(present, found - mean[None, :], 0.0)
    place = parts + tile * 2 * columns + column
    tl.store(place, mean, mask=column < columns)
    tl.store(place + columns, tl.sum(difference * difference, axis=0), mask=column < columns)


@triton.jit
def first_product(
    y, scale, shift, w, z, parts, rows, depth, columns, stride,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``z = relu(scale * y + shift) w'``, with the means and squares of its columns."""
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, depth, BK):
        k = start + tl.arange(0, BK)
        known = k < depth
        a = tl.load(
            y + row[:, None] * stride + k[None, :],
            mask=(row < rows)[:, None] & known[None, :],
            other=0.0,
        )
        s = tl.load(scale + k, mask=known, other=0.0)
        t = tl.load(shift + k, mask=known, other=0.0)
        a = tl.maximum(a.to(tl.float32) * s[None, :] + t[None, :], 0.0)
        b = tl.load(
            w + column[None, :] * depth + k[:, None],
            mask=(column < columns)[None, :] & known[:, None],
            other=0.0,
        )
        total += tl.dot(a.to(b.dtype), b, input_precision=PRECISION)
    rounded = total.to(z.dtype.element_ty)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    tl.store(z + row[:, None] * columns + column[None, :], rounded, mask=inside)
    _measure(rounded.to(tl.float32), parts, row, rows, column, columns, BM)


@triton.jit
def normalise(z, scale, shift, b, rows, columns, BM: tl.constexpr, BN: tl.constexpr):
    """``b = relu(scale * z + shift)``, which the 3x3 convolution reads."""
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    known = column < columns
    inside = (row < rows)[:, None] & known[None, :]
    place = row[:, None] * columns + column[None, :]
    found = tl.load(z + place, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(scale + column, mask=known, other=0.0)
    t = tl.load(shift + column, mask=known, other=0.0)
    found = tl.maximum(found * s[None, :] + t[None, :], 0.0)
    tl.store(b + place, found.to(b.dtype.element_ty), mask=inside)


@triton.jit
def read_gradient(
    grad, y, mean, constant, slope, out, rows, columns, stride, first,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The gradient of columns of ``y`` with what the batch norms that read them owe it."""
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    known = column < columns
    inside = (row < rows)[:, None] & known[None, :]
    place = row[:, None] * stride + first + column[None, :]
    found = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(y + place, mask=inside, other=0.0).to(tl.float32)
    middle = tl.load(mean + first + column, mask=known, other=0.0)
    c = tl.load(constant + first + column, mask=known, other=0.0)
    k = tl.load(slope + first + column, mask=known, other=0.0)
    found += c[None, :] + k[None, :] * (value - middle[None, :])
    target = out + row[:, None] * columns + column[None, :]
    tl.store(target, found.to(out.dtype.element_ty), mask=inside)


@triton.jit
def close_relu(
    db, z, scale, shift, mean, parts, rows, columns, BM: tl.constexpr, BN: tl.constexpr
):  # fmt: skip
    """Set ``db`` to zero where relu was closed; sums of it, and of it times ``z - mean``."""
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    known = column < columns
    inside = (row < rows)[:, None] & known[None, :]
    place = row[:, None] * columns + column[None, :]
    value = tl.load(z + place, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(scale + column, mask=known, other=0.0)
    t = tl.load(shift + column, mask=known, other=0.0)
    middle = tl.load(mean + column, mask=known, other=0.0)
    found = tl.load(db + place, mask=inside, other=0.0).to(tl.float32)
    found = tl.where(value * s[None, :] + t[None, :] > 0, found, 0.0)
    tl.store(db + place, found.to(db.dtype.element_ty), mask=inside)
    _sums(found, value - middle[None, :], parts, column, columns)


@triton.jit
def _sums(gradient, centred, parts, column, columns):
    """Write the sum of each column of a tile, and that of its product with ``centred``."""
    place = parts + tl.program_id(0) * 2 * columns + column
    tl.store(place, tl.sum(gradient, axis=0), mask=column < columns)
    tl.store(place + columns, tl.sum(gradient * centred, axis=0), mask=column < columns)


@triton.jit
def norm_gradient(
    db, z, scale, mean, constant, slope, rows, columns, BM: tl.constexpr, BN: tl.constexpr
):  # fmt: skip
    """Turn the gradient of a batch norm's output, in ``db``, into that of its input ``z``."""
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    known = column < columns
    inside = (row < rows)[:, None] & known[None, :]
    place = row[:, None] * columns + column[None, :]
    value = tl.load(z + place, mask=inside, other=0.0).to(tl.float32)
    found = tl.load(db + place, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(scale + column, mask=known, other=0.0)
    middle = tl.load(mean + column, mask=known, other=0.0)
    c = tl.load(constant + column, mask=known, other=0.0)
    k = tl.load(slope + column, mask=known, other=0.0)
    found = s[None, :] * found + c[None, :] + k[None, :] * (value - middle[None, :])
    tl.store(db + place, found.to(db.dtype.element_ty), mask=inside)


@triton.jit
def input_gradient(
    dz, w, y, scale, shift, mean, grad, parts, rows, depth, columns, stride,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add ``scale * (dz w where relu was open)`` to ``grad``; sums as of ``close_relu``.

    ``columns`` are those of ``y`` that the layer reads, ``depth`` those of ``dz``.
    """
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    known = column < columns
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, depth, BK):
        k = start + tl.arange(0, BK)
        a = tl.load(
            dz + row[:, None] * depth + k[None, :],
            mask=(row < rows)[:, None] & (k < depth)[None, :],
            other=0.0,
        )
        b = tl.load(
            w + k[:, None] * columns + column[None, :],
            mask=(k < depth)[:, None] & known[None, :],
            other=0.0,
        )
        total += tl.dot(a, b, input_precision=PRECISION)
    inside = (row < rows)[:, None] & known[None, :]
    place = row[:, None] * stride + column[None, :]
    value = tl.load(y + place, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(scale + column, mask=known, other=0.0)
    t = tl.load(shift + column, mask=known, other=0.0)
    middle = tl.load(mean + column, mask=known, other=0.0)
    total = tl.where(inside & (value * s[None, :] + t[None, :] > 0), total, 0.0)
    before = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
    after = before + s[None, :] * total
    tl.store(grad + place, after.to(grad.dtype.element_ty), mask=inside)
    _sums(total, value - middle[None, :], parts, column, columns)


@triton.jit
def weight_gradient(
    dz, y, scale, shift, parts, rows, depth, columns, stride, rows_each,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``dz' relu(scale * y + shift)`` over a share of the rows: ``(depth, columns)`` of each."""
    share = tl.program_id(2)
    out = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    s = tl.load(scale + column, mask=column < columns, other=0.0)
    t = tl.load(shift + column, mask=column < columns, other=0.0)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, rows_each, BK):
        row = share.to(tl.int64) * rows_each + start + tl.arange(0, BK)
        a = tl.load(
            dz + row[None, :] * depth + out[:, None],
            mask=(row < rows)[None, :] & (out < depth)[:, None],
            other=0.0,
        )
        b = tl.load(
            y + row[:, None] * stride + column[None, :],
            mask=(row < rows)[:, None] & (column < columns)[None, :],
            other=0.0,
        )
        b = tl.maximum(b.to(tl.float32) * s[None, :] + t[None, :], 0.0).to(a.dtype)
        total += tl.dot(a, b, input_precision=PRECISION)
    inside = (out < depth)[:, None] & (column < columns)[None, :]
    place = parts + share * depth * columns + out[:, None] * columns + column[None, :]
    tl.store(place, total, mask=inside)
