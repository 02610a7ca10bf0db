"""Schedules by step against torch's own; patience and plateau."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LRScheduler,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
)

from densenet121.lr_scheduler import Progress, cosine, one_cycle, polynomial


def rates_of(make: Callable[[torch.optim.Optimizer], LRScheduler], steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.3)
    schedule, found = make(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("steps", [2, 7, 50, 101])
def test_one_cycle_is_torchs(steps: int) -> None:
    expected = rates_of(
        # torch refuses a step beyond the last one
        lambda opt: OneCycleLR(opt, max_lr=0.3, total_steps=steps + 1, cycle_momentum=False),
        steps,
    )
    ours = [
        one_cycle(t, base_lr=0.3, steps=steps + 1, eta_min=0.3 / 25 / 1e4) for t in range(steps)
    ]
    assert ours == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("power", [1.0, 0.9, 2.0])
def test_polynomial_is_torchs(power: float) -> None:
    expected = rates_of(lambda opt: PolynomialLR(opt, total_iters=40, power=power), 40)
    ours = [polynomial(t, base_lr=0.3, steps=40, power=power) for t in range(40)]
    assert ours == pytest.approx(expected, rel=1e-9)


def test_cosine_is_torchs_with_one_step_an_epoch() -> None:
    expected = rates_of(lambda opt: CosineAnnealingLR(opt, T_max=40, eta_min=0.01), 40)
    ours = [cosine(t, base_lr=0.3, steps=40, eta_min=0.01) for t in range(40)]
    assert ours == pytest.approx(expected, rel=1e-9)


@given(st.integers(1, 300), st.integers(0, 50), st.floats(0, 0.1))
def test_every_rate_is_between_its_ends_and_falls_after_the_warmup(
    steps: int, warmup: int, least: float
) -> None:
    for schedule in (cosine, polynomial):
        found = [
            schedule(t, base_lr=0.1, steps=steps, eta_min=least, warmup_steps=warmup)
            for t in range(steps)
        ]
        rising, falling = found[:warmup], found[warmup:]
        assert rising == sorted(rising)
        assert falling == sorted(falling, reverse=True)
        assert all(least * (1 - 1e-9) <= lr <= 0.1 * (1 + 1e-9) for lr in falling)


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_the_plateau_schedule_lowers_the_rate_where_torchs_does(patience: int) -> None:
    """torch counts validations beyond its patience, so its number is one less."""
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = ReduceLROnPlateau(
        optimizer,
        mode="max",
        factor=0.1,
        patience=patience - 1,
        threshold=0.01,
        threshold_mode="abs",
        eps=0,
    )
    ours = Progress()
    values = torch.rand(60, generator=torch.Generator().manual_seed(patience)).tolist()
    for value in values:
        theirs.step(value)
        ours.add(value, higher_is_better=True, min_delta=0.01, plateau_patience=patience)
        assert ours.lr_factor == pytest.approx(optimizer.param_groups[0]["lr"])
    assert ours.lr_factor < 1


def test_patience_ends_a_run_after_so_many_validations_without_a_larger_gain() -> None:
    progress, ended = Progress(), []
    for value in (0.5, 0.505, 0.6, 0.6, 0.609, 0.1):
        progress.add(value, higher_is_better=True, min_delta=0.01, patience=3)
        ended.append(progress.ended)
    assert ended == [False, False, False, False, False, True]
    assert progress.best == 0.6


def test_lower_is_better_for_a_loss() -> None:
    progress = Progress()
    for value in (2.0, 1.0, 1.5):
        progress.add(value, higher_is_better=False, patience=1)
    assert (progress.best, progress.waited, progress.ended) == (1.0, 1, True)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_never_an_improvement(bad: float) -> None:
    for higher in (True, False):
        progress = Progress()
        progress.add(bad, higher_is_better=higher, patience=2)
        assert progress.best is None
        progress.add(bad, higher_is_better=higher, patience=2)
        assert progress.ended
