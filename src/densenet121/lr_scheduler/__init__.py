"""The learning rate schedules."""

from densenet121.lr_scheduler.by_step import cosine, one_cycle, polynomial
from densenet121.lr_scheduler.lr_scheduler import (
    cosine_annealing,
    exponential,
    linear_warmup,
    lost_milestones,
)
from densenet121.lr_scheduler.progress import Progress

__all__ = [
    "Progress",
    "cosine",
    "cosine_annealing",
    "exponential",
    "linear_warmup",
    "lost_milestones",
    "one_cycle",
    "polynomial",
]
