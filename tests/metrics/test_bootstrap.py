"""The bootstrap over groups: repeated rows, keyed draws, coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densenet121.metrics.bootstrap import (
    LabelResampler,
    draw,
    group_numbers,
    percentile_interval,
    resampled,
)
from densenet121.metrics.classes import rank_intervals, summarise_classes
from densenet121.metrics.decisions import decisions
from densenet121.metrics.probabilities import brier, log_loss
from densenet121.metrics.ranking import auroc, average_precision

ROWS = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, math.nan]), st.integers(0, 6), st.integers(0, 4)),
    min_size=1,
    max_size=40,
)


@settings(deadline=None)
@given(ROWS, st.integers(0, 2**62))
def test_a_resample_is_the_metrics_of_the_drawn_rows(
    rows: list[tuple[float, int, int]], seed: int
) -> None:
    truth, score, ids = np.array(rows).T
    group = group_numbers(ids.astype(str))
    groups = int(group.max()) + 1
    drawn = draw(groups, 0, 3, seed)
    found = LabelResampler(truth, score / 6, group, groups, score / 6 >= 0.5)(drawn)
    for column in range(3):
        repeated = np.repeat(np.arange(len(truth)), drawn[group, column])
        true, own = truth[repeated], score[repeated] / 6
        expected = {
            "auroc": auroc(true, own),
            "average_precision": average_precision(true, own),
            "brier": brier(true, own),
            "log_loss": log_loss(true, own),
            **decisions(true, own, 0.5).values,
        }
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            own_value = math.nan if value is None else value
            assert found[name][column] == pytest.approx(own_value, abs=1e-12, nan_ok=True), name


def test_draws_depend_on_seed_and_resample_alone() -> None:
    whole = draw(7, 0, 20, seed=3)
    assert (whole.sum(axis=0) == 7).all()
    parts = [draw(7, first, first + 5, seed=3) for first in (0, 5, 10, 15)]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    assert not np.array_equal(draw(7, 0, 20, seed=4), whole)
    assert len(np.unique(whole, axis=1).T) > 15


def test_draws_stay_the_same_in_every_version() -> None:
    """Philox4x64-10 with the keys (1, 2**62) and (1, 2**62 + 1), as in test_sampler.py."""
    assert draw(6, 0, 2, seed=1).T.tolist() == [[1, 0, 0, 0, 3, 2], [2, 0, 1, 2, 1, 0]]


def test_every_group_is_drawn_equally_often() -> None:
    drawn = draw(5, 0, 4000, seed=1)
    # 4,000 expected for each group, standard deviation 57.
    assert np.abs(drawn.sum(axis=1) - 4000).max() < 250


def test_many_images_at_a_time_or_few_give_the_same() -> None:
    rng = np.random.default_rng(1)
    truth, score = (rng.random(300) < 0.3).astype(np.float64), rng.random(300)
    label = LabelResampler(truth, score, np.arange(300), 300)
    whole = resampled([label], 300, 300, 200, 1)
    parts = resampled([label], 100_000, 300, 200, 1)  # 20 resamples at a time
    for name in whole:
        np.testing.assert_allclose(whole[name], parts[name], rtol=1e-13)


def test_an_interval_needs_resamples_in_which_the_metric_is_defined() -> None:
    values = np.linspace(0, 1, 101)
    assert percentile_interval(values) == pytest.approx((0.025, 0.975))
    assert percentile_interval(np.where(values < 0.4, math.nan, values)) is not None
    assert percentile_interval(np.where(values < 0.6, math.nan, values)) is None
    assert percentile_interval(np.full(100, math.nan)) is None
    assert percentile_interval(np.full(100, 0.5)) is None
    rounded = np.where(values < 0.5, 0.1 + 0.2, 0.3)
    assert percentile_interval(rounded) is None
    assert percentile_interval(np.empty(0)) is None


def test_one_answer_for_all_images_leaves_the_balanced_accuracy_without_an_interval() -> None:
    """Of 2,000 resamples of ten patients 4 lack a class, and have another than one half."""
    labels, patients = np.repeat([0, 1], 10), np.arange(20) // 2
    answers, rank = np.ones_like(labels), np.where(labels == 1, 1, 2)
    found = rank_intervals(labels, answers, rank, patients)
    assert found["balanced_accuracy_ci"] is found["quadratic_kappa_ci"] is None
    assert found["top1_ci"] == pytest.approx((0.2, 0.8))
    shares = np.tile([0.25, 0.75], (20, 1))
    pooled = summarise_classes(labels, shares, group=patients)
    assert (pooled["balanced_accuracy"], pooled["balanced_accuracy_ci"]) == (0.5, None)


def test_the_interval_over_groups_covers_where_that_over_images_does_not() -> None:
    """Ten images a patient share most of their score: the images alone promise too much."""
    rng = np.random.default_rng(4)
    patients, each, runs = 60, 10, 200
    group = np.repeat(np.arange(patients), each)
    truth = np.repeat(np.arange(patients) % 2, each).astype(np.float64)
    shift = 1.0
    true = 0.5 * (1 + math.erf(shift / 2 / math.sqrt(0.8 + 0.2)))
    covered = {"groups": 0, "images": 0}
    for run in range(runs):
        score = shift * truth + math.sqrt(0.8) * rng.normal(size=patients)[group]
        score += math.sqrt(0.2) * rng.normal(size=len(group))
        for name, units in (("groups", group), ("images", np.arange(len(group)))):
            count = int(units.max()) + 1
            label = LabelResampler(truth, score, units, count)
            found = percentile_interval(resampled([label], len(group), count, 200, run)["auroc"])
            assert found is not None
            covered[name] += found.low <= true <= found.high
    assert covered["groups"] / runs > 0.87
    assert covered["images"] / runs < 0.70
