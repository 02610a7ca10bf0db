"""The training losses."""

from densenet121.losses.asymmetric import Asymmetry, masked_asymmetric_loss
from densenet121.losses.binary import masked_binary_cross_entropy
from densenet121.losses.crossentropy import smooth_cross_entropy
from densenet121.losses.distillation import binary_distillation_loss, distillation_loss
from densenet121.losses.focal import focal_loss

__all__ = [
    "Asymmetry",
    "binary_distillation_loss",
    "distillation_loss",
    "focal_loss",
    "masked_asymmetric_loss",
    "masked_binary_cross_entropy",
    "smooth_cross_entropy",
]
