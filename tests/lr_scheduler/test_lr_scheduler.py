import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densenet121.lr_scheduler import cosine_annealing, exponential, lost_milestones

S = 5004  # steps per epoch of ImageNet on 8 devices of 32 images


def original_table(
    *,
    base_lr: float,
    steps_per_epoch: int,
    max_epoch: int,
    warmup_epochs: float,
    milestones: Sequence[int] = (),
    gamma: float = 1.0,
    cosine: tuple[int, float] | None = None,
) -> list[float]:
    """The original's loop over the whole run; ``cosine`` is (T_max, eta_min)."""
    warmup_steps = int(warmup_epochs * steps_per_epoch)
    current, table = base_lr, []
    for i in range(max_epoch * steps_per_epoch):
        epoch = i // steps_per_epoch
        if i < warmup_steps:
            table.append(0 + (base_lr - 0) / warmup_steps * (i + 1))
            continue
        if cosine is None:
            if i % steps_per_epoch == 0 and epoch in milestones:
                current = current * gamma
        elif i % steps_per_epoch == 0 and i > 0:
            T_max, eta_min = cosine
            current = eta_min + (base_lr - eta_min) * (1 + math.cos(math.pi * epoch / T_max)) / 2
        table.append(current)
    return table


@pytest.mark.parametrize(
    ("epoch", "lr"),
    [
        (0, 0.1),
        (1, 0.09998287),
        (2, 0.09993148),
        (59, 0.05130885),
        (60, 0.05),
        (119, 1.7133751e-05),
    ],
)
def test_cosine_gives_the_originals_values_on_imagenet(epoch: int, lr: float) -> None:
    for step in (epoch * S, epoch * S + S - 1):  # constant within the epoch
        found = cosine_annealing(step, base_lr=0.1, steps_per_epoch=S, T_max=120)
        assert found == pytest.approx(lr, rel=1e-6)


def test_cosine_after_a_warmup_jumps_down_because_epochs_count_from_the_start() -> None:
    lrs = [
        cosine_annealing(step, base_lr=0.1, steps_per_epoch=4, T_max=6, warmup_epochs=2)
        for step in range(24)
    ]
    warmup = [0.0125 * i for i in range(1, 9)]
    after = [lr for lr in (0.075, 0.05, 0.025, 0.00669873) for _ in range(4)]
    assert lrs == pytest.approx(warmup + after, rel=1e-6)


def test_cosine_waits_at_base_after_a_warmup_that_ends_within_an_epoch() -> None:
    lrs = [
        cosine_annealing(step, base_lr=1.0, steps_per_epoch=4, T_max=4, warmup_epochs=1.5)
        for step in range(12)
    ]
    assert lrs[5:8] == [1.0, 1.0, 1.0]  # 6 warmup steps, then until step 8
    assert lrs[8:] == pytest.approx([0.5] * 4)


def test_cosine_reaches_eta_min_at_T_max_and_rises_beyond_it() -> None:
    def lr(epoch: int) -> float:
        return cosine_annealing(epoch, base_lr=0.1, steps_per_epoch=1, T_max=10, eta_min=0.01)

    assert lr(10) == pytest.approx(0.01)
    assert lr(9) == pytest.approx(lr(11))
    assert lr(11) > 0.01


def test_exponential_steps_down_at_each_milestone() -> None:
    for epoch, lr in ((0, 0.1), (29, 0.1), (30, 0.01), (59, 0.01), (60, 1e-3), (90, 1e-4)):
        for step in (epoch * S, epoch * S + S - 1):
            found = exponential(
                step, base_lr=0.1, steps_per_epoch=S, milestones=[30, 60, 90, 120], gamma=0.1
            )
            assert found == pytest.approx(lr)


def test_a_milestone_counts_once_and_in_any_order() -> None:
    for epoch, lr in ((0, 0.5), (2, 0.25), (3, 0.125)):
        found = exponential(
            epoch * 4, base_lr=1.0, steps_per_epoch=4, milestones=[3, 0, 2, 3], gamma=0.5
        )
        assert found == lr


@pytest.mark.parametrize(
    ("warmup_epochs", "lost"),
    [
        (0, []),
        (2, [0, 1]),  # epoch 2, where the warmup ends, still counts
        (2.5, [0, 1, 2]),  # the warmup ends within epoch 2, which is lost
        (2.1, [0, 1]),  # int(2.1 * 4) is 8 steps: two whole epochs
    ],
)
def test_milestones_within_the_warmup_are_lost_for_good(
    warmup_epochs: float, lost: list[int]
) -> None:
    milestones = [2, 1, 0, 5, 1]
    assert lost == lost_milestones(milestones, steps_per_epoch=4, warmup_epochs=warmup_epochs)
    last = exponential(
        99,
        base_lr=1.0,
        steps_per_epoch=4,
        milestones=milestones,
        gamma=0.5,
        warmup_epochs=warmup_epochs,
    )
    assert last == 0.5 ** (4 - len(lost))


@settings(deadline=None)  # a busy machine is not a failure
@given(
    base_lr=st.floats(1e-4, 10),
    steps_per_epoch=st.integers(1, 7),
    max_epoch=st.integers(1, 12),
    warmup_epochs=st.one_of(st.integers(0, 14), st.floats(0, 14)),
    milestones=st.lists(st.integers(0, 14), max_size=6),
    gamma=st.floats(0.01, 1),
)
def test_exponential_equals_the_originals_loop(
    base_lr: float,
    steps_per_epoch: int,
    max_epoch: int,
    warmup_epochs: float,
    milestones: list[int],
    gamma: float,
) -> None:
    expected = original_table(
        base_lr=base_lr,
        steps_per_epoch=steps_per_epoch,
        max_epoch=max_epoch,
        warmup_epochs=warmup_epochs,
        milestones=milestones,
        gamma=gamma,
    )
    found = [
        exponential(
            step,
            base_lr=base_lr,
            steps_per_epoch=steps_per_epoch,
            milestones=milestones,
            gamma=gamma,
            warmup_epochs=warmup_epochs,
        )
        for step in range(len(expected))
    ]
    assert found == expected  # to the last bit
    assert all(0 < lr <= base_lr * (1 + 1e-12) for lr in found)


@settings(deadline=None)  # a busy machine is not a failure
@given(
    base_lr=st.floats(1e-2, 10),
    steps_per_epoch=st.integers(1, 7),
    max_epoch=st.integers(1, 12),
    warmup_epochs=st.one_of(st.integers(0, 14), st.floats(0, 14)),
    T_max=st.integers(1, 14),
    eta_min=st.floats(0, 1e-2),
)
def test_cosine_equals_the_originals_loop(
    base_lr: float,
    steps_per_epoch: int,
    max_epoch: int,
    warmup_epochs: float,
    T_max: int,
    eta_min: float,
) -> None:
    expected = original_table(
        base_lr=base_lr,
        steps_per_epoch=steps_per_epoch,
        max_epoch=max_epoch,
        warmup_epochs=warmup_epochs,
        cosine=(T_max, eta_min),
    )
    found = [
        cosine_annealing(
            step,
            base_lr=base_lr,
            steps_per_epoch=steps_per_epoch,
            T_max=T_max,
            eta_min=eta_min,
            warmup_epochs=warmup_epochs,
        )
        for step in range(len(expected))
    ]
    assert found == expected  # to the last bit
    assert all(0 <= lr <= base_lr * (1 + 1e-12) for lr in found)
