"""Binary cross-entropy over several labels, of which some may be unknown."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densenet121.utils.errors import InputError


def masked_binary_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    smooth_factor: float = 0.0,
    pos_weight: Tensor | None = None,
    gamma: float = 0.0,
) -> Tensor:
    """Mean binary cross-entropy over the known cells, in nats per cell.

    An unknown cell (nan) has no part in the loss, and its logit gets a gradient of exactly 0.
    Without a known cell the loss is 0.

    Args:
        logits: ``(N, K)``, any float type; computed in float32, or in float64 for float64 logits.
        targets: ``(N, K)``, 1, 0 or nan.
        smooth_factor: s in ``y * (1 - s) + s / 2``, in ``[0, 1)``.
        pos_weight: ``(K,)``, factor of the loss of the positive cells of each label; the mean is
            still over the number of cells, as in torch. A smoothed negative cell keeps its weight
            of 1; torch's would multiply its share ``s / 2`` and could turn it into a positive one.
        gamma: multiplies the loss of a cell by ``(1 - p) ** gamma``, where p is the probability of
            its true value (the focal loss, Lin et al. 2017, without its alpha).

    Returns:
        A scalar, float32 (float64 for float64 logits).

    Raises:
        InputError: the shapes differ.
    """
    check_cells(logits, targets)
    if logits.dtype != torch.float64:
        logits = logits.float()
    known = ~targets.isnan()
    # where, not a product: 0 * nan is nan
    wanted = torch.where(known, targets, 0.0).to(logits.dtype)
    smooth = wanted * (1 - smooth_factor) + smooth_factor / 2
    share = known.to(logits.dtype)
    if pos_weight is not None and smooth_factor:
        share, pos_weight = torch.where(wanted == 1, share * pos_weight, share), None
    if gamma:
        # Not 0: a power below 1 has no gradient there.
        rest = torch.where(wanted == 1, (-logits).sigmoid(), logits.sigmoid())
        share = share * rest.clamp(min=torch.finfo(rest.dtype).tiny) ** gamma
        cells = F.binary_cross_entropy_with_logits(
            logits, smooth, pos_weight=pos_weight, reduction="none"
        )
        return (cells * share).sum() / known.sum().clamp(min=1)
    cells = F.binary_cross_entropy_with_logits(
        logits, smooth, weight=share, pos_weight=pos_weight, reduction="sum"
    )
    return cells / known.sum().clamp(min=1)


def check_cells(logits: Tensor, targets: Tensor) -> None:
    """Refuse logits and targets that are not one number for each image and label.

    Raises:
        InputError: the shapes differ.
    """
    if logits.ndim != 2 or logits.shape != targets.shape:
        raise InputError(
            f"the loss needs logits and targets (N, K), got {tuple(logits.shape)} and "
            f"{tuple(targets.shape)}"
        )
