"""Cross-entropy with the original's label smoothing (its losses/crossentropy.py)."""

import torch
from torch import Tensor

from densenet121.utils.errors import InputError


def smooth_cross_entropy(logits: Tensor, labels: Tensor, smooth_factor: float = 0.0) -> Tensor:
    """Mean cross-entropy against smoothed one-hot labels, in nats per image.

    The true class has weight ``1 - smooth_factor`` and each other class
    ``smooth_factor / (C - 1)``, as in the original. torch's ``label_smoothing`` spreads over all C
    classes, so the same number is weaker there: ``s`` here equals ``s * C / (C - 1)`` there, which
    torch refuses above 1 (C = 2, s > 0.5).

    Labels on the CPU are range checked. On an accelerator the check would make the host wait for
    the device; there the gather itself fails. No label is ignored, not even -100. The original
    silently gave a label outside the classes zero loss.

    Args:
        logits: ``(N, C)``, any float type; computed in float32, or in float64 for float64 logits.
        labels: ``(N,)`` int64, each in ``[0, C)``.
        smooth_factor: share taken from the true class, in ``[0, 1)``.

    Returns:
        A scalar, float32 (float64 for float64 logits).

    Raises:
        InputError: ``smooth_factor`` or a label is outside its range, or the shapes are wrong.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not labels.numel():
        raise InputError(
            f"the loss needs logits (N, C) and labels (N,) with N of at least 1, got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    num_classes = logits.shape[1]
    if not 0 <= smooth_factor < 1:
        raise InputError(f"smooth_factor must be in [0, 1), got {smooth_factor}")
    if smooth_factor and num_classes == 1:
        raise InputError("smooth_factor must be 0 with one class: there is no wrong class")
    if labels.device.type == "cpu":
        _check_range(labels, num_classes)

    if logits.dtype != torch.float64:
        logits = logits.float()
    log_probs = logits.log_softmax(dim=1)
    # gather, because F.cross_entropy ignores labels of -100
    true = log_probs.gather(1, labels.unsqueeze(1)).squeeze(1)
    if smooth_factor == 0:
        return -true.mean()
    wrong = log_probs.sum(dim=1) - true
    return -((1 - smooth_factor) * true + smooth_factor / (num_classes - 1) * wrong).mean()


def _check_range(labels: Tensor, num_classes: int) -> None:
    """Raise for the first label outside ``[0, num_classes)``."""
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.numel():
        raise InputError(
            f"a label must be from 0 to {num_classes - 1}, got {int(outside[0])}; "
            f"is num_classes ({num_classes}) correct for these images?"
        )
