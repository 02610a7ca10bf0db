"""Correct-at-k counts: integers that can be summed over batches and processes without error."""

from dataclasses import dataclass

import torch
from torch import Tensor

from densenet121.utils.errors import InputError, NotFiniteError


def label_ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Rank of each image's true class among its logits: 1 is the highest.

    For equal logits the lower class index comes first, so rank 1 means that ``logits.argmax(1)`` is
    the label, on every device and in every float type. (``torch.topk`` does not define ties.) The
    host waits for the device once.

    Args:
        logits: ``(N, C)``, any float type.
        labels: ``(N,)`` int64, each in ``[0, C)``.

    Returns:
        ``(N,)`` int64, each in ``[1, C]``.

    Raises:
        NotFiniteError: a logit is nan or infinite. Every comparison with nan is false, so such an
            image would count as correct.
    """
    num_bad = int((~torch.isfinite(logits).all(dim=1)).sum())
    if num_bad:
        raise NotFiniteError(
            f"the weights give nan or infinite logits for {num_bad} of {len(logits)} images",
            "the checkpoint is damaged, its training diverged, or `amp` fp16 overflows "
            "(try `amp` fp32)",
        )
    label_column = labels.unsqueeze(1)
    true = logits.gather(1, label_column)
    is_lower_class = torch.arange(logits.shape[1], device=logits.device) < label_column
    is_ahead = (logits > true) | ((logits == true) & is_lower_class)
    return 1 + is_ahead.sum(dim=1)


def topk_correct(ranks: Tensor, k: int) -> int:
    """Number of images whose true class is among the ``k`` highest.

    Args:
        ranks: ``(N,)``, the result of ``label_ranks``. With k classes or fewer all are correct.
        k: 1 or more.
    """
    return int((ranks <= k).sum())


@dataclass(frozen=True)
class Counts:
    """Sums over the images seen so far; add two with ``+``, start from ``Counts()``.

    Attributes:
        top1_correct: number of images with rank 1.
        top5_correct: number of images with rank 1 to 5.
        total: number of images.
        loss_sum: loss in nats, summed over the images, not averaged: the last batch may be
            shorter, and a mean of means would be wrong.
    """

    top1_correct: int = 0
    top5_correct: int = 0
    total: int = 0
    loss_sum: float = 0.0

    def __add__(self, other: "Counts") -> "Counts":
        """Counts of both sets of images."""
        return Counts(
            top1_correct=self.top1_correct + other.top1_correct,
            top5_correct=self.top5_correct + other.top5_correct,
            total=self.total + other.total,
            loss_sum=self.loss_sum + other.loss_sum,
        )

    @property
    def top1(self) -> float:
        """Share of images whose highest logit is the true class, in [0, 1]."""
        return self._per_image(self.top1_correct)

    @property
    def top5(self) -> float:
        """Share of images whose true class is among the five highest logits, in [0, 1]."""
        return self._per_image(self.top5_correct)

    @property
    def loss(self) -> float:
        """Mean loss in nats per image."""
        return self._per_image(self.loss_sum)

    def _per_image(self, value: float) -> float:
        if self.total == 0:
            raise InputError("no image was evaluated, so no accuracy or loss can be reported")
        return value / self.total
