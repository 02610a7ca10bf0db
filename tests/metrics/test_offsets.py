"""Offsets: those that were planted, and those of scikit-learn; means that are the shares."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression

from densenet121.metrics.offsets import of_classes, of_label
from densenet121.metrics.probabilities import mean_is_off
from densenet121.tasks.multi_label.calibration import fit_temperature

Floats = NDArray[np.float64]


def label_of(logits: Floats, slope: float, offset: float, seed: int) -> Floats:
    drawn = np.random.default_rng(seed).random(len(logits))
    return np.asarray(drawn < expit(slope * logits + offset), dtype=np.float64)


def classes(
    count: int, shift: Floats, temperature: float, seed: int
) -> tuple[Floats, NDArray[np.int64]]:
    """Logits, and classes drawn from those plus ``shift``, over the temperature."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (count, len(shift)))
    drawn = (logits + shift) / temperature + generator.gumbel(size=logits.shape)
    return logits, drawn.argmax(axis=1)


@pytest.mark.parametrize(("slope", "offset"), [(2.0, -3.0), (0.05, 0.4), (1.0, 0.0), (30.0, -50.0)])
def test_the_offset_of_a_label_is_that_of_logistic_regression(slope: float, offset: float) -> None:
    logits = np.random.default_rng(3).normal(1, 2, 3000)
    truth = label_of(logits, slope, offset, 4)
    found = of_label(logits, truth)
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(logits[:, None], truth)
    assert not found.problem
    assert found.temperature == pytest.approx(1 / model.coef_[0, 0], rel=1e-4)
    assert found.values[0] == pytest.approx(model.intercept_[0] / model.coef_[0, 0], rel=1e-4)


@given(st.integers(0, 10_000), st.floats(-3, 3), st.floats(0.1, 5))
def test_the_mean_probability_of_a_label_becomes_its_share(
    seed: int, offset: float, slope: float
) -> None:
    logits = np.random.default_rng(seed).normal(-1, 3, 120)
    truth = label_of(logits, slope, offset, seed + 1)
    if truth.min() == truth.max():
        return
    found = of_label(logits, truth)
    if not found.problem:
        shares = expit((logits + found.values[0]) / found.temperature)
        assert shares.mean() == pytest.approx(truth.mean(), abs=1e-6)


def test_planted_offsets_of_classes_are_found() -> None:
    shift = np.array([1.5, -0.5, 0.25, -1.25])
    logits, truth = classes(40_000, shift, 1.7, 5)
    found = of_classes(logits, truth)
    assert found.values == pytest.approx(shift, abs=0.08)
    assert found.temperature == pytest.approx(1.7, rel=0.03)
    shares = softmax((logits + found.values) / found.temperature, axis=1)
    assert shares.mean(axis=0) == pytest.approx(np.bincount(truth) / len(truth), abs=1e-6)


def test_offsets_of_classes_are_those_of_a_plain_search() -> None:
    logits, truth = classes(200, np.array([1.0, 0.0, -2.0]), 0.6, 6)
    found = of_classes(logits, truth)

    def loss(at: Floats) -> float:
        logs = log_softmax((logits + np.append(at[1:], 0.0)) / math.exp(at[0]), axis=1)
        return float(-logs[np.arange(200), truth].mean())

    best = minimize(
        loss, np.zeros(3), method="Nelder-Mead", options={"fatol": 1e-13, "xatol": 1e-9}
    )
    expected = np.append(best.x[1:], 0.0)
    assert found.values == pytest.approx(expected - expected.mean(), abs=1e-5)
    assert found.temperature == pytest.approx(math.exp(best.x[0]), rel=1e-5)


def test_a_class_of_three_among_a_thousand_images_has_an_offset() -> None:
    logits, truth = classes(1000, np.array([0.0, 0.0, -5.0]), 1.0, 8)
    truth[:3] = 2
    found = of_classes(logits, truth)
    shares = softmax((logits + found.values) / found.temperature, axis=1)
    assert not found.problem
    assert shares.mean(axis=0) == pytest.approx(np.bincount(truth) / 1000, abs=1e-6)


def test_logits_that_say_nothing_of_the_label_have_no_offset() -> None:
    logits = np.array([3.0, 2.0, -1.0, 0.0])
    found = of_label(logits, np.array([0.0, 0.0, 1.0, 1.0]))
    assert "no temperature with an offset is better than the shares" in found.problem
    assert (found.values[0], found.temperature) == (0, 1)
    against, truth = -np.eye(3)[[0, 1, 2] * 5], np.array([0, 1, 2] * 5)
    nothing = of_classes(against, truth)
    assert "no temperature with an offset is better than the shares" in nothing.problem
    assert (nothing.values.tolist(), nothing.temperature) == ([0, 0, 0], 1)


def test_a_rare_label_in_reverse_order_has_a_temperature_but_no_offset() -> None:
    """A temperature is measured against 0.5, an offset against the share: the reasons differ."""
    truth = (np.arange(200) % 10 == 0).astype(np.float64)
    logits = np.random.default_rng(5).normal(-8, 1, 200) - truth
    assert not fit_temperature(logits, truth).problem
    problem = of_label(logits, truth).problem
    assert problem.startswith("no temperature with an offset is better than the shares")


@pytest.mark.parametrize("tie", [False, True])
def test_images_that_an_offset_tells_apart_have_none(tie: bool) -> None:
    logits = np.array([5.0, 6.0, 7.0 if tie else 6.5, 7.0, 9.0])
    found = of_label(logits, np.array([0.0, 0.0, 0.0, 1.0, 1.0]))
    assert "told apart without error" in found.problem and found.values[0] == 0
    apart = np.eye(3)[[0, 1, 2] * 5] * 4 + np.array([9.0, 0.0, 0.0])
    nothing = of_classes(apart, np.array([0, 1, 2] * 5))
    assert "told apart without error" in nothing.problem
    assert nothing.values.tolist() == [0, 0, 0]


def test_a_mean_is_off_where_chance_does_not_explain_it() -> None:
    generator = np.random.default_rng(9)
    shares = generator.uniform(0.05, 0.4, 1000)
    off = 0
    for _ in range(2000):
        off += mean_is_off((generator.random(1000) < shares).astype(np.float64), shares)
    assert off <= 8  # 2 expected; more than 8 in one of 4,000 such tests
    rare = (generator.random(1000) < shares / 2).astype(np.float64)
    assert mean_is_off(rare, shares) and mean_is_off(1 - rare, 1 - shares)
    truth = np.array([1.0, math.nan, 0.0])
    assert not mean_is_off(truth, np.array([1.0, 0.5, 0.0]))


@pytest.mark.parametrize(
    ("expected", "images"), [(0.02, 200), (0.3, 400), (2.5, 1000), (12.0, 500)]
)
@pytest.mark.parametrize("tests", [1, 1000])
def test_a_few_rare_images_more_than_expected_are_chance(
    expected: float, images: int, tests: int
) -> None:
    """A number of rare events is not as the normal law has it; its own law is binomial."""
    share = expected / images
    counts = np.arange(images + 1)
    off = [
        mean_is_off((np.arange(images) < count).astype(np.float64), np.full(images, share), tests)
        for count in counts.tolist()
    ]
    chance = binom.pmf(counts, images, share)[off].sum()
    assert chance <= 0.001 / tests
    assert off[round(expected + 10 + 6 * math.sqrt(expected))]
