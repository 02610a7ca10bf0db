"""Cross-entropy with the original's label smoothing (its losses/crossentropy.py)."""

import torch
from torch import Tensor

from densenet121.utils.errors import InputError


def smooth_cross_entropy(
    logits: Tensor, labels: Tensor, smooth_factor: float = 0.0, weights: Tensor | None = None
) -> Tensor:
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
        weights: ``(C,)``: each image has the weight of its class, and the result is the weighted
            mean, ``sum(w * loss) / sum(w)``, as with torch's ``weight``; None weighs all alike.

    Returns:
        A scalar, float32 (float64 for float64 logits).

    Raises:
        InputError: ``smooth_factor`` or a label is outside its range, or the shapes are wrong.
    """
    if not 0 <= smooth_factor < 1:
        raise InputError(f"smooth_factor must be in [0, 1), got {smooth_factor}")
    log_probs = _log_probabilities(logits, labels)
    num_classes = logits.shape[1]
    if smooth_factor and num_classes == 1:
        raise InputError("smooth_factor must be 0 with one class: there is no wrong class")
    true = _of_label(log_probs, labels)
    if smooth_factor == 0:
        return -weighted_mean(true, labels, weights)
    wrong = log_probs.sum(dim=1) - true
    smoothed = (1 - smooth_factor) * true + smooth_factor / (num_classes - 1) * wrong
    return -weighted_mean(smoothed, labels, weights)


def log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """``(N,)``: the logarithm of the softmax probability of each label.

    Raises:
        InputError: as ``smooth_cross_entropy``.
    """
    return _of_label(_log_probabilities(logits, labels), labels)


def weighted_mean(values: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of ``(N,)`` values, with the weight of the label of each; None weighs all alike."""
    if weights is None:
        return values.mean()
    own = weights.to(values.dtype)[labels]
    return (values * own).sum() / own.sum()


def _log_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not labels.numel():
        raise InputError(
            f"the loss needs logits (N, C) and labels (N,) with N of at least 1, got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if labels.device.type == "cpu":
        _check_range(labels, logits.shape[1])
    if logits.dtype != torch.float64:
        logits = logits.float()
    return logits.log_softmax(dim=1)


def _of_label(log_probs: Tensor, labels: Tensor) -> Tensor:
    # gather, because F.cross_entropy ignores labels of -100
    return log_probs.gather(1, labels.unsqueeze(1)).squeeze(1)


def _check_range(labels: Tensor, num_classes: int) -> None:
    """Raise for the first label outside ``[0, num_classes)``."""
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.numel():
        raise InputError(
            f"a label must be from 0 to {num_classes - 1}, got {int(outside[0])}; "
            f"is num_classes ({num_classes}) correct for these images?"
        )
