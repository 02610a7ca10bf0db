"""The optimisers, each with weight decay only for convolutions and the classifier."""

from densenet121.optimizers.averaging import AveragedWeights
from densenet121.optimizers.groups import get_param_groups, stage_factors
from densenet121.optimizers.make import OPTIMIZERS, make_optimizer, momentum_sgd
from densenet121.optimizers.state import optimizer_state, restore_optimizer

__all__ = [
    "OPTIMIZERS",
    "AveragedWeights",
    "get_param_groups",
    "make_optimizer",
    "momentum_sgd",
    "optimizer_state",
    "restore_optimizer",
    "stage_factors",
]
