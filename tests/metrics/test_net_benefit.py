"""Net benefit: by hand, at another share of positives, and its intervals by a plain bootstrap."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densenet121.metrics.bootstrap import draw
from densenet121.metrics.net_benefit import net_benefits
from densenet121.metrics.values import Counts, Floats

# 100 images, 20 of them positive; 15 positives and 20 negatives have 0.3, the others 0.1.
TRUTH = np.repeat([1.0, 0.0], [20, 80])[:, None]
PROBABILITY = np.repeat([0.3, 0.1, 0.3, 0.1], [15, 5, 20, 60])[:, None]


def benefits(
    truth: Floats,
    probability: Floats,
    act_from: float,
    prevalence: float | None = None,
    group: Counts | None = None,
    resamples: int = 0,
) -> dict[str, Any]:
    """Those of the only label."""
    ((found,),) = net_benefits(
        truth,
        probability,
        [act_from],
        [prevalence],
        group=group,
        resamples=resamples,
        seed=3,
    )
    return found


def test_it_is_that_of_the_calculation_by_hand() -> None:
    found = benefits(TRUTH, PROBABILITY, 0.25)
    assert found["net_benefit"] == pytest.approx(15 / 100 - 20 / 100 / 3, abs=1e-15)
    assert found["of_all"] == pytest.approx(20 / 100 - 80 / 100 / 3, abs=1e-15)
    assert found["gain"] == found["net_benefit"]  # acting on all is worse than on none
    # From 0.1 on all reach it, and so many are positive that acting on all is good.
    found = benefits(TRUTH, PROBABILITY, 0.1)
    assert found["net_benefit"] == found["of_all"] == pytest.approx(0.2 - 0.8 / 9, abs=1e-15)
    assert found["gain"] == 0


def test_at_another_share_of_positives_it_is_that_of_a_file_with_this_share() -> None:
    other = np.concatenate([TRUTH, *[TRUTH[20:]] * 9])  # 20 of 820
    scores = np.concatenate([PROBABILITY, *[PROBABILITY[20:]] * 9])
    found = benefits(TRUTH, PROBABILITY, 0.25, prevalence=20 / 820)
    assert found["prevalence"] == 20 / 820
    expected = benefits(other, scores, 0.25)
    for name in ("net_benefit", "of_all", "gain"):
        assert found[name] == pytest.approx(expected[name], abs=1e-15)


@pytest.mark.parametrize("prevalence", [None, 0.03])
@pytest.mark.parametrize("images", [1, 4])
def test_the_interval_is_that_of_a_plain_bootstrap(images: int, prevalence: float | None) -> None:
    rng = np.random.default_rng(1)
    truth = (rng.random((120, 1)) < 0.3).astype(float)
    truth[5] = np.nan
    scores = 0.4 * np.nan_to_num(truth) + 0.6 * rng.random((120, 1))
    group = np.arange(120) // images
    found = benefits(truth, scores, 0.2, prevalence, group=group, resamples=200)
    drawn = draw(120 // images, 0, 200, 3)
    resamples = [
        benefits(truth[rows], scores[rows], 0.2, prevalence)
        for rows in (np.repeat(np.arange(120), times[group]) for times in drawn.T)
    ]
    for name in ("net_benefit", "gain"):
        plain = np.percentile([one[name] for one in resamples], [2.5, 97.5])
        assert found[f"{name}_ci"] == pytest.approx(plain, abs=1e-12)
        assert found[f"{name}_ci"][0] < found[name] < found[f"{name}_ci"][1]


def test_what_is_not_defined_is_none() -> None:
    unknown = np.full((5, 1), np.nan)
    names = ("net_benefit", "net_benefit_ci", "of_all", "gain", "gain_ci")
    found = benefits(unknown, unknown + 0.5, 0.2, resamples=100)
    assert [found[name] for name in names] == [None] * 5
    negatives = np.zeros((5, 1))
    found = benefits(negatives, negatives + 0.5, 0.2, prevalence=0.1, resamples=100)
    assert [found[name] for name in names] == [None, None, pytest.approx(-0.125), None, None]
    found = benefits(negatives, negatives + 0.5, 0.2, resamples=100)
    assert found["net_benefit"] == found["of_all"] == found["gain"] == -0.25
    assert found["gain_ci"] is None  # the same in all resamples


@given(
    truth=st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=30),
    act_from=st.floats(0.01, 0.99),
)
def test_a_perfect_network_finds_all_and_a_constant_one_is_acting_on_all_or_none(
    truth: list[float], act_from: float
) -> None:
    known = np.array(truth)[:, None]
    perfect = benefits(known, known, act_from)
    assert perfect["net_benefit"] == pytest.approx(known.mean(), abs=1e-12)
    assert perfect["gain"] >= -1e-12
    everyone = benefits(known, np.ones_like(known), act_from)
    assert everyone["net_benefit"] == everyone["of_all"]
    no_one = benefits(known, np.zeros_like(known), act_from)
    assert no_one["net_benefit"] == 0


def test_what_is_the_same_in_every_resample_has_no_interval() -> None:
    """Rounding alone made one of width 0, as of a figure without any error."""
    for seed in range(20):
        truth = (np.arange(60 + seed) % 3 == 0).astype(np.float64)[:, None]
        all_called = np.full_like(truth, 0.5)
        found = benefits(truth, all_called, 0.05, prevalence=0.01, resamples=200)
        assert found["net_benefit"] == pytest.approx(found["of_all"], abs=1e-15)
        assert found["net_benefit_ci"] is None and found["gain_ci"] is None
