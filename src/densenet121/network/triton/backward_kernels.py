"""The Triton kernels of a dense block, backward; see ``kernels.py`` for the names.

``db`` is the gradient of ``relu(norm2(z))``, ``grad`` that of ``y``. What a batch norm owes its
input, because its statistics are of the whole batch, is a constant and a slope along ``x - mean``
for each column: ``owed``, two rows.
"""

import triton
import triton.language as tl

from densenet121.network.triton.kernels import norm_at, store_two, tile_at


@triton.jit
def _owed_at(owed, width, column, known):
    constant = tl.load(owed + column, mask=known, other=0.0)
    return constant, tl.load(owed + width + column, mask=known, other=0.0)


@triton.jit
def read_gradient(
    grad, y, mean, owed, out, rows, columns, stride, first, BM: tl.constexpr, BN: tl.constexpr
):  # fmt: skip
    """The gradient of columns of ``y``, with what the batch norms that read them owe it."""
    start, local, column, known, inside = tile_at(rows, columns, BM, BN)
    place = start * stride + first + (local[:, None] * stride + column[None, :])
    found = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(y + place, mask=inside, other=0.0).to(tl.float32)
    middle = tl.load(mean + first + column, mask=known, other=0.0)
    constant, slope = _owed_at(owed + first, stride, column, known)
    found += constant[None, :] + slope[None, :] * (value - middle[None, :])
    target = out + start * columns + (local[:, None] * columns + column[None, :])
    tl.store(target, found.to(out.dtype.element_ty), mask=inside)


@triton.jit
def open_relu(
    db, z, gamma, beta, mean, variance, eps, b, parts, rows, columns, tiles,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """``b`` again, and the sums of ``db`` where relu was open, and of it times ``z - mean``."""
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    local = tl.arange(0, BM)
    known = column < columns
    scale, shift = norm_at(gamma, beta, mean, variance, eps, column, known)
    middle = tl.load(mean + column, mask=known, other=0.0)
    # Sums over rows wait for all warps, and are taken once, at the end.
    total, along = tl.zeros((BM, BN), tl.float32), tl.zeros((BM, BN), tl.float32)
    for tile in range(tiles):
        start = (tl.program_id(0) * tiles + tile).to(tl.int64) * BM
        inside = (local < rows - start)[:, None] & known[None, :]
        place = start * columns + (local[:, None] * columns + column[None, :])
        value = tl.load(z + place, mask=inside, other=0.0).to(tl.float32)
        found = tl.load(db + place, mask=inside, other=0.0).to(tl.float32)
        normed = value * scale[None, :] + shift[None, :]
        tl.store(b + place, tl.maximum(normed, 0.0).to(b.dtype.element_ty), mask=inside)
        found = tl.where(normed > 0, found, 0.0)
        total += found
        along += found * (value - middle[None, :])
    store_two(parts, column, columns, tl.sum(total, axis=0), tl.sum(along, axis=0))


@triton.jit
def norm_sums(
    parts, gamma, variance, eps, owed, d_gamma, d_beta, rows, columns, width, programs,
    FROZEN: tl.constexpr, ADD: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Gradients of a norm's weights, and what it owes its input, which ``ADD`` adds to ``owed``."""
    column = tl.program_id(0) * BN + tl.arange(0, BN)
    known = column < columns
    totals, alongs = tl.zeros((BP, BN), tl.float32), tl.zeros((BP, BN), tl.float32)
    for start in range(0, programs, BP):
        part = start + tl.arange(0, BP)
        inside = (part < programs)[:, None] & known[None, :]
        place = parts + part[:, None] * 2 * columns + column[None, :]
        totals += tl.load(place, mask=inside, other=0.0)
        alongs += tl.load(place + columns, mask=inside, other=0.0)
    total, along = tl.sum(totals, axis=0), tl.sum(alongs, axis=0)
    rstd = 1.0 / tl.sqrt(tl.load(variance + column, mask=known, other=0.0) + eps)
    tl.store(d_beta + column, total, mask=known)
    tl.store(d_gamma + column, along * rstd, mask=known)
    if not FROZEN:
        factor = -tl.load(gamma + column, mask=known, other=0.0) * rstd / rows
        constant, slope = factor * total, factor * rstd * rstd * along
        if ADD:
            before, slope_before = _owed_at(owed, width, column, known)
            constant, slope = constant + before, slope + slope_before
        tl.store(owed + column, constant, mask=known)
        tl.store(owed + width + column, slope, mask=known)


@triton.jit
def through_norm(found, value, scale, shift, mean, owed, column, columns, FROZEN: tl.constexpr):
    """The gradient of a norm's input ``value`` from that of ``relu`` of its output."""
    found = tl.where(value * scale[None, :] + shift[None, :] > 0, found * scale[None, :], 0.0)
    if not FROZEN:
        known = column < columns
        constant, slope = _owed_at(owed, columns, column, known)
        middle = tl.load(mean + column, mask=known, other=0.0)
        found += constant[None, :] + slope[None, :] * (value - middle[None, :])
    return found


@triton.jit
def norm_gradient(
    db, z, gamma, beta, mean, variance, eps, owed, rows, columns,
    FROZEN: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Turn ``db`` into the gradient ``dz`` of ``z``."""
    start, local, column, known, inside = tile_at(rows, columns, BM, BN)
    place = start * columns + (local[:, None] * columns + column[None, :])
    scale, shift = norm_at(gamma, beta, mean, variance, eps, column, known)
    value = tl.load(z + place, mask=inside, other=0.0).to(tl.float32)
    found = tl.load(db + place, mask=inside, other=0.0).to(tl.float32)
    found = through_norm(found, value, scale, shift, mean, owed, column, columns, FROZEN)
    tl.store(db + place, found.to(db.dtype.element_ty), mask=inside)


@triton.jit
def layer_gradient(
    dz, w, y, gamma, beta, mean, variance, eps, grad, parts, weights,
    rows, depth, columns, stride, tiles,
    BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Backward of the 1x1 convolution, relu and norm1, over a share of the rows.

    ``scale * (dz w where relu was open)`` is added to ``grad``; ``weights`` gets
    ``dz' relu(norm1(y))`` of the share, ``parts`` the sums as of ``open_relu``. ``columns`` are
    those of ``y`` that the layer reads, ``depth`` those of ``dz``.
    """
    column = tl.program_id(0) * BN + tl.arange(0, BN)
    share = tl.program_id(1)
    local, k = tl.arange(0, BM), tl.arange(0, BD)
    known, deep = column < columns, k < depth
    scale, shift = norm_at(gamma, beta, mean, variance, eps, column, known)
    middle = tl.load(mean + column, mask=known, other=0.0)
    corner = k[:, None] * columns + column[None, :]
    product = tl.load(w + corner, mask=deep[:, None] & known[None, :], other=0.0)
    outer = tl.zeros((BD, BN), tl.float32)
    total, along = tl.zeros((BM, BN), tl.float32), tl.zeros((BM, BN), tl.float32)
    for tile in range(tiles):
        start = (share * tiles + tile).to(tl.int64) * BM
        present = local < rows - start
        factor = tl.load(
            dz + start * depth + (local[:, None] * depth + k[None, :]),
            mask=present[:, None] & deep[None, :],
            other=0.0,
        )
        inside = present[:, None] & known[None, :]
        place = start * stride + (local[:, None] * stride + column[None, :])
        value = tl.load(y + place, mask=inside, other=0.0).to(tl.float32)
        before = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
        normed = value * scale[None, :] + shift[None, :]
        found = tl.dot(factor, product, input_precision=PRECISION)
        found = tl.where(normed > 0, found, 0.0)
        after = before + scale[None, :] * found
        tl.store(grad + place, after.to(grad.dtype.element_ty), mask=inside)
        total += found
        along += found * (value - middle[None, :])
        a = tl.maximum(normed, 0.0).to(product.dtype)
        outer = tl.dot(tl.trans(factor), a, outer, input_precision=PRECISION)
    sums = parts + share * 2 * columns + column
    tl.store(sums, tl.sum(total, axis=0), mask=known)
    tl.store(sums + columns, tl.sum(along, axis=0), mask=known)
    target = weights + share.to(tl.int64) * depth * columns + corner
    tl.store(target, outer, mask=deep[:, None] & known[None, :])
