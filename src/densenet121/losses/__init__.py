"""The training loss."""

from densenet121.losses.crossentropy import smooth_cross_entropy

__all__ = ["smooth_cross_entropy"]
