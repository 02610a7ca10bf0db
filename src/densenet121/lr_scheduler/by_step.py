"""Schedules that change the learning rate in every step, as pure functions of the step.

``step`` counts optimiser updates from 0 to ``steps - 1``, the last of the run. ``cosine`` and
``polynomial`` begin with ``warmup_steps`` steps of the original's linear warmup.
"""

import math

from densenet121.lr_scheduler.lr_scheduler import linear_warmup

# torch's OneCycleLR: the run starts at 1 / 25 of the largest rate, and rises for 30 % of its steps.
_FIRST_SHARE, _RISING_SHARE = 1 / 25, 0.3


def cosine(
    step: int, *, base_lr: float, steps: int, eta_min: float = 0.0, warmup_steps: int = 0
) -> float:
    """Half a cosine from ``base_lr`` after the warmup towards ``eta_min`` (SGDR, one period).

    Loshchilov and Hutter 2017, equation 5.
    """
    if step < warmup_steps:
        return linear_warmup(step, base_lr, warmup_steps)
    return _between(base_lr, eta_min, (step - warmup_steps) / max(steps - warmup_steps, 1))


def polynomial(
    step: int,
    *,
    base_lr: float,
    steps: int,
    power: float = 1.0,
    eta_min: float = 0.0,
    warmup_steps: int = 0,
) -> float:
    """``eta_min + (base_lr - eta_min) * (1 - t) ** power``.

    t is the share of the steps after the warmup that are done.
    With ``eta_min`` 0 and no warmup this is torch's PolynomialLR.
    """
    if step < warmup_steps:
        return linear_warmup(step, base_lr, warmup_steps)
    left = max(1 - (step - warmup_steps) / max(steps - warmup_steps, 1), 0.0)
    return eta_min + (base_lr - eta_min) * math.pow(left, power)


def one_cycle(
    step: int, *, base_lr: float, steps: int, eta_min: float = 0.0, rising_steps: float = 0.0
) -> float:
    """From ``base_lr / 25`` up to ``base_lr`` and down to ``eta_min``, both on half a cosine.

    torch's OneCycleLR without its change of the momentum; Smith and Topin 2018.

    Args:
        step: 0 or more.
        base_lr: the largest rate.
        steps: steps of the run.
        eta_min: rate of the last step.
        rising_steps: steps until ``base_lr``; 0 takes 30 % of the run.
    """
    peak = (rising_steps or _RISING_SHARE * steps) - 1
    if step <= peak:
        return _between(base_lr * _FIRST_SHARE, base_lr, step / peak if peak > 0 else 1.0)
    return _between(base_lr, eta_min, (step - peak) / max(steps - 1 - peak, 1))


def _between(start: float, end: float, share: float) -> float:
    """Half a cosine from ``start`` at share 0 to ``end`` at share 1 and after it."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * min(share, 1.0)))
