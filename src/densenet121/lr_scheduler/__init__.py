"""The learning rate schedules."""

from densenet121.lr_scheduler.lr_scheduler import cosine_annealing, exponential, lost_milestones

__all__ = ["cosine_annealing", "exponential", "lost_milestones"]
