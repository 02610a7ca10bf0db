"""The asymmetric loss of several labels (Ridnik et al. 2021, "Asymmetric Loss For Multi-Label")."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from densenet121.losses.binary import check_cells


@dataclass(frozen=True)
class Asymmetry:
    """Exponents and margin of the asymmetric loss; the defaults are the paper's.

    Attributes:
        gamma_neg: exponent of negative cells.
        gamma_pos: exponent of positive cells.
        clip: the margin m of the paper; a negative cell whose probability is at most m has no loss.
    """

    gamma_neg: float = 4.0
    gamma_pos: float = 1.0
    clip: float = 0.05


def masked_asymmetric_loss(logits: Tensor, targets: Tensor, asymmetry: Asymmetry) -> Tensor:
    """Mean over the known cells of the asymmetric loss (equation 7 of the paper).

    With p the probability of the label and ``q = max(p - clip, 0)``, a positive cell has the loss
    ``-(1 - p) ** gamma_pos * log(p)`` and a negative one ``-q ** gamma_neg * log(1 - q)``. Equal
    exponents without a margin are the focal loss, and exponents of 0 binary cross-entropy. It is a
    mean, as in ``masked_binary_cross_entropy``; the paper's own program sums over the batch. The
    gradient is that of the whole formula, factors included.

    An unknown cell (nan) has no part in the loss, and its logit gets a gradient of exactly 0.
    Without a known cell the loss is 0.

    Args:
        logits: ``(N, K)``, any float type; computed in float32, or in float64 for float64 logits.
        targets: ``(N, K)``, 1, 0 or nan.
        asymmetry: exponents of 0 or more, and a margin in ``[0, 1)``.

    Returns:
        A scalar, float32 (float64 for float64 logits).

    Raises:
        InputError: the shapes differ.
    """
    check_cells(logits, targets)
    if logits.dtype != torch.float64:
        logits = logits.float()
    p, rest = logits.sigmoid(), (-logits).sigmoid()
    positive = _power(rest, asymmetry.gamma_pos) * -F.logsigmoid(logits)
    # log(1 - p + clip), also where 1 - p is too small for a float.
    margin = math.log(asymmetry.clip) if asymmetry.clip else -math.inf
    log_rest = torch.logaddexp(F.logsigmoid(-logits), torch.full_like(logits, margin))
    shifted = (p - asymmetry.clip).clamp(min=0)
    negative = _power(shifted, asymmetry.gamma_neg) * -log_rest.clamp(max=0)
    known = ~targets.isnan()
    # where, not a product: 0 * nan is nan
    cells = torch.where(known, torch.where(targets == 1, positive, negative), 0.0)
    return cells.sum() / known.sum().clamp(min=1)


def _power(share: Tensor, gamma: float) -> Tensor:
    # Not 0: a power below 1 has no gradient there.
    return share.clamp(min=torch.finfo(share.dtype).tiny) ** gamma
