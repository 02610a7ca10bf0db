"""The focal loss of one true class (Lin et al. 2017)."""

import torch
from torch import Tensor

from densenet121.losses.crossentropy import log_probability, weighted_mean


def focal_loss(
    logits: Tensor, labels: Tensor, gamma: float, weights: Tensor | None = None
) -> Tensor:
    """Mean of ``-(1 - p)^gamma log p``, where ``p`` is the softmax probability of the true class.

    Two classes give the loss of ``torchvision.ops.sigmoid_focal_loss(alpha=-1)`` for the difference
    of the logits. It is always a mean over images, never a sum.

    Args:
        logits: ``(N, C)``, any float type; computed in float32, or in float64 for float64 logits.
        labels: ``(N,)`` int64, each in ``[0, C)``.
        gamma: 0 or more; 0 is cross-entropy.
        weights: ``(C,)``, see ``smooth_cross_entropy``.

    Returns:
        A scalar, float32 (float64 for float64 logits).

    Raises:
        InputError: a label is outside its range, or the shapes are wrong.
    """
    log_p = log_probability(logits, labels)
    # Not 0: a power below 1 has no gradient there.
    rest = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
    return weighted_mean(-(rest**gamma) * log_p, labels, weights)
