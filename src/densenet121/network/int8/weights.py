"""The whole numbers of a convolution's weights.

AVX2 adds products of 8 bits in 16 bits: two of them, which every file allows, or four, so that half
as many sums are widened to 32 bits. An activation is at most 255.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PAIR = 128  # largest sum of the magnitudes of two adjacent weights
FOUR = 128  # of the positive ones of four weights, and of the negative ones
_CLIPPED = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8)  # shares of the largest weight that are tried


def quantise_weights(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers and their unit, for each output channel ``(O, C, k, k)``.

    Of a few units, from that of the largest weight down, the one with the least squared error.
    """
    fours = as_fours(weight)
    largest = torch.maximum(fours.abs().amax((1, 2)) / 127, largest_pair(fours).amax(1) / PAIR)
    largest = torch.maximum(largest, largest_four(fours).amax(1) / FOUR)
    best, units = torch.zeros_like(fours), torch.zeros_like(largest)
    least = torch.full_like(largest, float("inf"))
    for share in _CLIPPED:
        unit = (largest * share).clamp_min(1e-12)
        rounded = (fours / unit.view(-1, 1, 1)).round().clamp(-127, 127)
        whole = within_fours(within_pairs(rounded.reshape(-1, 2)).reshape(fours.shape))
        error = (whole * unit.view(-1, 1, 1) - fours).square().sum((1, 2))
        better = error < least
        least = torch.where(better, error, least)
        units = torch.where(better, unit, units)
        best = torch.where(better.view(-1, 1, 1), whole, best)
    return from_fours(best, weight.shape), units


def as_fours(weight: Tensor) -> Tensor:
    """The weights ``(O, C, k, k)`` in fours ``(O, n, 4)``, whose products AVX2 adds in 16 bits.

    They are numbers 0, 1, 4 and 5, and 2, 3, 6 and 7, of eight adjacent ones in a row of the
    convolution, of which a pixel's are padded to a multiple of 4. Both halves are pairs.
    """
    rows = weight.permute(0, 2, 3, 1)
    rows = F.pad(rows, (0, -rows.shape[3] % 4)).flatten(2)
    eights = F.pad(rows, (0, -rows.shape[2] % 8)).reshape(*rows.shape[:2], -1, 2, 2, 2)
    return eights.transpose(3, 4).reshape(len(rows), -1, 4)


def from_fours(fours: Tensor, shape: Sequence[int]) -> Tensor:
    """What ``as_fours`` makes fours of."""
    outputs, channels, height, width = shape
    eights = fours.reshape(outputs, height, -1, 2, 2, 2).transpose(3, 4)
    padded = channels + -channels % 4
    rows = eights.reshape(outputs, height, -1)[..., : width * padded]
    pixels = rows.reshape(outputs, height, width, padded)
    return pixels[..., :channels].permute(0, 3, 1, 2).contiguous()


def largest_pair(fours: Tensor) -> Tensor:
    """The sum of the magnitudes of the larger pair of fours ``(..., 4)``."""
    return fours.abs().reshape(*fours.shape[:-1], 2, 2).sum(-1).amax(-1)


def largest_four(fours: Tensor) -> Tensor:
    """The sum of the positive ones of fours ``(..., 4)``, or of the negative ones, if larger."""
    return torch.maximum(fours.clamp_min(0).sum(-1), -fours.clamp_max(0).sum(-1))


def within_pairs(pairs: Tensor) -> Tensor:
    """Pairs ``(..., 2)`` whose magnitudes are at most PAIR together: the larger becomes smaller."""
    first, second = pairs.abs().unbind(-1)
    over = first + second > PAIR  # few; the others stay as they are
    found = pairs[over]
    excess = found.abs().sum(-1, keepdim=True) - PAIR
    larger = found.abs().argmax(-1, keepdim=True)
    value = found.gather(-1, larger)
    return pairs.index_put((over,), found.scatter(-1, larger, value - value.sign() * excess))


def within_fours(fours: Tensor) -> Tensor:
    """Fours ``(..., 4)`` of which either sign's are at most FOUR: the largest become smaller."""
    a, b, c, d = fours.unbind(-1)  # sums by columns, which are faster
    magnitudes, total = a.abs() + b.abs() + c.abs() + d.abs(), a + b + c + d
    over = magnitudes + total.abs() > 2 * FOUR  # twice the positive ones, or the negative ones
    found = fours[over]
    for sign in (1, -1) * 3:  # each time one of a sign becomes smaller; one alone always fits
        ofsign = (found * sign).clamp_min(0)
        excess = (ofsign.sum(-1, keepdim=True) - FOUR).clamp_min(0)
        value, largest = ofsign.max(-1, keepdim=True)
        less = torch.minimum(excess, value)
        found = found.scatter_add(-1, largest, -sign * less)
    return fours.index_put((over,), found)


def fours_fit(weight: Tensor) -> bool:
    """Whether the sums of four products fit 16 bits; those of older files do not.

    Args:
        weight: of a convolution ``(O, C, k, k)``, whole numbers.
    """
    return int(largest_four(as_fours(weight.to(torch.int16))).amax()) <= FOUR
