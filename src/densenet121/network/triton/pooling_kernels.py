"""The Triton kernels of norm, relu and pooling: of a transition, and of the stem.

``x`` is the input, a row of ``columns`` channels for each pixel; ``p`` what is pooled. ``g`` is the
gradient of ``p``. Other names as in ``kernels.py`` and ``backward_kernels.py``.
"""

import triton
import triton.language as tl

from densenet121.network.triton.backward_kernels import through_norm
from densenet121.network.triton.kernels import norm_at, store_two


@triton.jit
def _at(pixel, column, columns):
    """Offsets of the columns of pixels; their product may not fit 32 bits."""
    return pixel.to(tl.int64)[:, None] * columns + column[None, :]


@triton.jit
def average(
    x, gamma, beta, mean, variance, eps, p, rows, columns, height, width,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """``p``, the means of 2 x 2 pixels of ``relu(norm(x))``. ``rows`` are those of ``p``."""
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    known = column < columns
    inside = (row < rows)[:, None] & known[None, :]
    scale, shift = norm_at(gamma, beta, mean, variance, eps, column, known)
    across = width // 2
    top = row // across
    image, top = top // (height // 2), top % (height // 2)
    corner = (image * height + 2 * top) * width + 2 * (row % across)
    total = tl.zeros((BM, BN), tl.float32)
    for down in tl.static_range(2):
        for right in tl.static_range(2):
            place = (corner + down * width + right).to(tl.int64)[:, None] * columns + column[
                None, :
            ]
            found = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
            total += tl.maximum(found * scale[None, :] + shift[None, :], 0.0)
    place = _at(row, column, columns)
    tl.store(p + place, (total * 0.25).to(p.dtype.element_ty), mask=inside)


@triton.jit
def _average_gradient(g, row, column, known, columns, height, width, rows):
    """The gradient of ``relu(norm(x))`` from that of its average; zero for pixels left out."""
    left, above = row % width, row // width
    image, above = above // height, above % height
    across, down = width // 2, height // 2
    pooled = (left < 2 * across) & (above < 2 * down) & (row < rows)
    place = (image * down + above // 2) * across + left // 2
    mask = pooled[:, None] & known[None, :]
    found = tl.load(g + _at(place, column, columns), mask=mask, other=0.0)
    return found.to(tl.float32) * 0.25


@triton.jit
def _maximum_gradient(
    g, chosen, row, column, known, columns, height, width, rows, down, across, pad_y, pad_x
):  # fmt: skip
    """The gradient of ``relu(norm(x))`` from that of its maximum over windows of 3 x 3."""
    left, above = row % width, row // width
    image, above = above // height, above % height
    total = tl.zeros((row.shape[0], column.shape[0]), tl.float32)
    for back_y in tl.static_range(2):
        for back_x in tl.static_range(2):
            # The windows that cover a pixel: the last that begins at or before it, and one before.
            y, x = (above + pad_y) // 2 - back_y, (left + pad_x) // 2 - back_x
            inner_y, inner_x = above + pad_y - 2 * y, left + pad_x - 2 * x
            covers = (y >= 0) & (y < down) & (inner_y < 3) & (row < rows)
            covers = covers & (x >= 0) & (x < across) & (inner_x < 3)
            mask = covers[:, None] & known[None, :]
            place = ((image * down + y) * across + x).to(tl.int64)[:, None] * columns + column[
                None, :
            ]
            taken = tl.load(chosen + place, mask=mask, other=9).to(tl.int32)
            found = tl.load(g + place, mask=mask, other=0.0).to(tl.float32)
            total += tl.where(taken == (inner_y * 3 + inner_x)[:, None], found, 0.0)
    return total


@triton.jit
def _gradient(
    g, chosen, row, column, known, columns, height, width, rows, down, across, pad_y, pad_x,
    MAXIMUM: tl.constexpr,
):  # fmt: skip
    if MAXIMUM:
        found = _maximum_gradient(
            g, chosen, row, column, known, columns, height, width, rows,
            down, across, pad_y, pad_x,
        )  # fmt: skip
    else:
        found = _average_gradient(g, row, column, known, columns, height, width, rows)
    return found


@triton.jit
def maximum(
    x, gamma, beta, mean, variance, eps, p, chosen, rows, columns, height, width,
    down, across, pad_y, pad_x, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """``p``, the maxima of ``relu(norm(x))`` in windows of 3 x 3 at stride 2, and which it was."""
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    known = column < columns
    scale, shift = norm_at(gamma, beta, mean, variance, eps, column, known)
    left, top = row % across, row // across
    image, top = top // down, top % down
    best = tl.full((BM, BN), -1.0, tl.float32)
    taken = tl.full((BM, BN), 9, tl.int32)
    for i in tl.static_range(3):
        for j in tl.static_range(3):
            y, at = 2 * top - pad_y + i, 2 * left - pad_x + j
            exists = (y >= 0) & (y < height) & (at >= 0) & (at < width) & (row < rows)
            mask = exists[:, None] & known[None, :]
            place = ((image * height + y) * width + at).to(tl.int64)[:, None] * columns + column[
                None, :
            ]
            found = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
            found = tl.maximum(found * scale[None, :] + shift[None, :], 0.0)
            better = mask & (found > best)
            best = tl.where(better, found, best)
            taken = tl.where(better, i * 3 + j, taken)
    inside = (row < rows)[:, None] & known[None, :]
    place = _at(row, column, columns)
    tl.store(p + place, best.to(p.dtype.element_ty), mask=inside)
    tl.store(chosen + place, taken.to(tl.int8), mask=inside)


@triton.jit
def pool_sums(
    g, chosen, x, gamma, beta, mean, variance, eps, parts, rows, columns, height, width,
    down, across, pad_y, pad_x, tiles,
    MAXIMUM: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Sums of the norm's gradient where relu was open, and of it times ``x - mean``."""
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    known = column < columns
    scale, shift = norm_at(gamma, beta, mean, variance, eps, column, known)
    middle = tl.load(mean + column, mask=known, other=0.0)
    total, along = tl.zeros((BM, BN), tl.float32), tl.zeros((BM, BN), tl.float32)
    for tile in range(tiles):
        row = (tl.program_id(0) * tiles + tile) * BM + tl.arange(0, BM)
        inside = (row < rows)[:, None] & known[None, :]
        found = _gradient(
            g, chosen, row, column, known, columns, height, width, rows,
            down, across, pad_y, pad_x, MAXIMUM,
        )  # fmt: skip
        place = _at(row, column, columns)
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        found = tl.where(value * scale[None, :] + shift[None, :] > 0, found, 0.0)
        total += found
        along += found * (value - middle[None, :])
    store_two(parts, column, columns, tl.sum(total, axis=0), tl.sum(along, axis=0))


@triton.jit
def pool_gradient(
    g, chosen, x, gamma, beta, mean, variance, eps, owed, out, rows, columns, height, width,
    down, across, pad_y, pad_x,
    FROZEN: tl.constexpr, MAXIMUM: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The gradient of ``x``."""
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    known = column < columns
    scale, shift = norm_at(gamma, beta, mean, variance, eps, column, known)
    inside = (row < rows)[:, None] & known[None, :]
    found = _gradient(
        g, chosen, row, column, known, columns, height, width, rows,
        down, across, pad_y, pad_x, MAXIMUM,
    )  # fmt: skip
    place = _at(row, column, columns)
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    found = through_norm(found, value, scale, shift, mean, owed, column, columns, FROZEN)
    tl.store(out + place, found.to(out.dtype.element_ty), mask=inside)
