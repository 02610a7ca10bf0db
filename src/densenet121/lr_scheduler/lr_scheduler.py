"""The original's two learning rate schedules (its lr_scheduler/) as pure functions of the step.

``step`` counts optimiser updates from 0, ``step // steps_per_epoch`` is the epoch. The original
tabulates the same values, in float32, for the whole run. Both schedules begin with
``W = int(warmup_epochs * steps_per_epoch)`` steps of linear warmup, ``base_lr / W * (step + 1)``:
``base_lr`` is reached on the last of them. After it the rate changes only between epochs.
"""

import math
from collections.abc import Sequence


def exponential(
    step: int,
    *,
    base_lr: float,
    steps_per_epoch: int,
    milestones: Sequence[int],
    gamma: float,
    warmup_epochs: float = 0,
) -> float:
    """Learning rate that is multiplied by ``gamma`` at the start of each milestone epoch.

    The name is the original's; the decay is in steps, not exponential. As in the original,
    milestones count from the start of training, a duplicate has no effect, and one that begins
    within the warmup never has an effect (see ``lost_milestones``).

    Args:
        step: 0 or more.
        base_lr: rate before the first milestone.
        steps_per_epoch: 1 or more.
        milestones: epochs from 0, in any order.
        gamma: factor per milestone.
        warmup_epochs: may be fractional.
    """
    warmup_steps = int(warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return linear_warmup(step, base_lr, warmup_steps)
    lr = base_lr
    # One product per milestone, not gamma ** n, to round as the original does.
    for milestone in set(milestones):
        if warmup_steps <= milestone * steps_per_epoch <= step:
            lr *= gamma
    return lr


def cosine_annealing(
    step: int,
    *,
    base_lr: float,
    steps_per_epoch: int,
    T_max: int,
    eta_min: float = 0,
    warmup_epochs: float = 0,
) -> float:
    """Learning rate on half a cosine from ``base_lr`` to ``eta_min``, constant within an epoch.

    In epoch e it is ``eta_min + (base_lr - eta_min) * (1 + cos(pi * e / T_max)) / 2``. As in the
    original, e counts from the start of training, so the rate drops at the end of a warmup; after a
    warmup that ends within an epoch it stays at ``base_lr`` until the next epoch; beyond ``T_max``
    it rises again; ``eta_min`` itself is reached only in epoch ``T_max``, which is after the last
    one if there are ``T_max`` epochs.

    Args:
        step: 0 or more.
        base_lr: rate of epoch 0.
        steps_per_epoch: 1 or more.
        T_max: epochs from ``base_lr`` to ``eta_min``, 1 or more.
        eta_min: lowest rate.
        warmup_epochs: may be fractional.
    """
    warmup_steps = int(warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return linear_warmup(step, base_lr, warmup_steps)
    epoch = step // steps_per_epoch
    if epoch == 0 or epoch * steps_per_epoch < warmup_steps:
        return base_lr
    return eta_min + (base_lr - eta_min) * (1 + math.cos(math.pi * epoch / T_max)) / 2


def lost_milestones(
    milestones: Sequence[int], *, steps_per_epoch: int, warmup_epochs: float
) -> list[int]:
    """Milestones of ``exponential`` without effect, because they begin within the warmup, sorted.

    A milestone exactly at the end of the warmup has an effect.
    """
    warmup_steps = int(warmup_epochs * steps_per_epoch)
    return sorted(m for m in set(milestones) if m * steps_per_epoch < warmup_steps)


def linear_warmup(step: int, base_lr: float, warmup_steps: int) -> float:
    """The rate of step ``step`` of ``warmup_steps``, in the original's order of operations."""
    return base_lr / warmup_steps * (step + 1)
