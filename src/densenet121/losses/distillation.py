"""The distillation loss (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network")."""

import torch.nn.functional as F
from torch import Tensor

from densenet121.losses.crossentropy import weighted_mean


def distillation_loss(
    logits: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float,
    weights: Tensor | None = None,
) -> Tensor:
    """``T^2`` times the mean divergence ``KL(teacher || network)`` of the softmaxes at ``T``.

    The factor keeps the gradients as large as those of cross-entropy for every temperature (section
    2 of the paper).

    Args:
        logits: ``(N, C)`` of the network, any float type; computed in float32.
        teacher: ``(N, C)`` of the teacher, without gradient.
        labels: ``(N,)`` int64; they only choose the weights.
        temperature: T, above 0.
        weights: ``(C,)``, see ``smooth_cross_entropy``.

    Returns:
        A scalar, float32 (float64 for float64 logits).
    """
    if logits.element_size() < 4:
        logits = logits.float()
    own = (logits / temperature).log_softmax(dim=1)
    theirs = (teacher.to(own.dtype) / temperature).log_softmax(dim=1)
    divergence = (theirs.exp() * (theirs - own)).sum(dim=1)
    return temperature**2 * weighted_mean(divergence, labels, weights)


def binary_distillation_loss(
    logits: Tensor, teacher: Tensor, targets: Tensor, temperature: float
) -> Tensor:
    """``T^2`` times the mean divergence of the sigmoids at ``T`` over the known cells.

    Args:
        logits: ``(N, K)`` of the network, any float type; computed in float32.
        teacher: ``(N, K)`` of the teacher, without gradient.
        targets: ``(N, K)``; cells that are nan do not count.
        temperature: T, above 0.

    Returns:
        A scalar, float32 (float64 for float64 logits).
    """
    if logits.element_size() < 4:
        logits = logits.float()
    own, theirs = logits / temperature, teacher.to(logits.dtype) / temperature
    divergence = theirs.sigmoid() * (F.logsigmoid(theirs) - F.logsigmoid(own))
    divergence = divergence + (-theirs).sigmoid() * (F.logsigmoid(-theirs) - F.logsigmoid(-own))
    known = ~targets.isnan()
    return temperature**2 * (divergence * known).sum() / known.sum().clamp(min=1)
