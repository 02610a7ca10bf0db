"""AUROC, average precision and DeLong: scikit-learn, hand calculations, coverage by simulation."""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from densenet121.metrics.ranking import (
    auroc,
    average_precision,
    delong_interval,
    delong_test,
    midranks,
    placements,
    quantile,
)
from densenet121.metrics.values import Floats

CASES = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, math.nan]), st.integers(0, 6)), min_size=0, max_size=40
)


def columns(rows: list[tuple[float, int]]) -> tuple[Floats, Floats]:
    """Truth and score; few distinct scores, so there are many ties."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1] / 7


def normal(
    rng: np.random.Generator, positives: int, negatives: int, area: float
) -> tuple[Floats, Floats]:
    """Normal scores whose true AUROC is ``area``."""
    truth = np.repeat([1.0, 0.0], [positives, negatives])
    return truth, rng.normal(math.sqrt(2) * NormalDist().inv_cdf(area) * truth)


@settings(deadline=None)
@given(CASES)
def test_ties_missing_cells_and_one_class_as_scikit_learn(rows: list[tuple[float, int]]) -> None:
    truth, score = columns(rows)
    keep = ~np.isnan(truth)
    positives, negatives = int((truth == 1).sum()), int((truth == 0).sum())
    if positives and negatives:
        expected = roc_auc_score(truth[keep], score[keep])
        assert auroc(truth, score) == pytest.approx(expected, abs=1e-14)
    else:
        assert auroc(truth, score) is None
    if positives:
        expected = average_precision_score(truth[keep], score[keep])
        assert average_precision(truth, score) == pytest.approx(expected, abs=1e-14)
    else:
        assert average_precision(truth, score) is None


@settings(deadline=None)
@given(CASES)
def test_auroc_is_the_share_of_pairs_in_order(rows: list[tuple[float, int]]) -> None:
    truth, score = columns(rows)
    pairs = list(itertools.product(score[truth == 1], score[truth == 0]))
    if pairs:
        wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs)
        assert auroc(truth, score) == wins / len(pairs)


def test_by_hand() -> None:
    truth = np.array([1, 0, 1, 0, math.nan, 0])
    score = np.array([0.9, 0.8, 0.5, 0.5, 0.99, 0.1])
    assert auroc(truth, score) == (3 + 1.5) / 6
    # Called in the order 0.9 (hit), 0.8, then both of 0.5 together: 1/2 * 1 + 1/2 * 2/4.
    assert average_precision(truth, score) == 0.75


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=30))
def test_midranks_are_scipys(values: list[int]) -> None:
    column = np.array(values, dtype=np.float64)
    assert midranks(column).tolist() == rankdata(column).tolist()


@settings(deadline=None)
@given(CASES)
def test_placements_are_delongs_definition(rows: list[tuple[float, int]]) -> None:
    truth, score = columns(rows)
    keep = ~np.isnan(truth)
    truth, score = truth[keep], score[keep]
    positive, negative = score[truth == 1], score[truth == 0]
    if len(positive) and len(negative):
        psi = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
        v10, v01 = placements(truth, score)
        np.testing.assert_allclose(v10, psi.mean(axis=1), rtol=0, atol=1e-14)
        np.testing.assert_allclose(v01, psi.mean(axis=0), rtol=0, atol=1e-14)


def test_the_interval_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(5)
    truth, score = normal(rng, 30, 50, 0.8)
    psi = score[truth == 1][:, None] > score[truth == 0]
    variance = psi.mean(1).var(ddof=1) / 30 + psi.mean(0).var(ddof=1) / 50
    area = psi.mean()
    middle, half = math.log(area / (1 - area)), 1.96 * math.sqrt(variance) / (area * (1 - area))
    ends = [1 / (1 + math.exp(-(middle + side * half))) for side in (-1, 1)]
    assert delong_interval(truth, score) == pytest.approx(ends, abs=1e-5)
    assert quantile(0.95) == pytest.approx(norm.ppf(0.975), abs=1e-12)


@pytest.mark.parametrize(
    ("truth", "score"),
    [
        ([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1]),  # an AUROC of 1: the estimated variance is 0
        ([1, 0, 0], [0.5, 0.7, 0.1]),  # one positive has no variance
        ([1, 1], [0.5, 0.7]),
        ([1, 1, 0, 0], [0.5, 0.5, 0.5, 0.5]),
        ([], []),
    ],
)
def test_an_interval_that_is_not_defined_is_none(truth: list[float], score: list[float]) -> None:
    assert delong_interval(np.array(truth), np.array(score)) is None


@pytest.mark.parametrize(
    ("positives", "negatives", "area", "decimals"),
    [(100, 100, 0.75, 9), (50, 500, 0.75, 9), (100, 200, 0.85, 9), (100, 100, 0.9, 1)],
)
def test_delongs_interval_covers_as_often_as_it_says(
    positives: int, negatives: int, area: float, decimals: int
) -> None:
    """94 to 96 % of 4,000 simulated test sets at nominal 95; the last has rounded, tied scores."""
    rng = np.random.default_rng(positives + negatives)
    true = area
    if decimals == 1:  # of the rounded scores, from ten million pairs
        samples = np.round(rng.normal(size=(2, 10**6)), 1)
        samples[0] = np.round(rng.normal(math.sqrt(2) * norm.ppf(area), size=10**6), 1)
        true = float(auroc(np.repeat([1.0, 0.0], 10**6), samples.ravel()) or 0)
    inside = 0
    for _ in range(4000):
        truth, score = normal(rng, positives, negatives, area)
        interval = delong_interval(truth, np.round(score, decimals))
        assert interval is not None
        inside += interval.low <= true <= interval.high
    assert 0.94 <= inside / 4000 <= 0.96


def test_the_paired_test_agrees_with_a_paired_bootstrap() -> None:
    rng = np.random.default_rng(3)
    truth, a = normal(rng, 80, 160, 0.8)
    b = 0.6 * a + 0.8 * rng.normal(0.9 * truth)
    found = delong_test(truth, a, b)
    assert found is not None
    differences = []
    for _ in range(4000):
        drawn = rng.integers(0, len(truth), len(truth))
        one, two = auroc(truth[drawn], a[drawn]), auroc(truth[drawn], b[drawn])
        assert one is not None and two is not None
        differences.append(two - one)
    assert found.standard_error == pytest.approx(np.std(differences), rel=0.05)
    low, high = np.percentile(differences, [2.5, 97.5])
    width = high - low
    assert found.interval is not None and found.p_value is not None
    assert found.interval.low == pytest.approx(low, abs=0.06 * width)
    assert found.interval.high == pytest.approx(high, abs=0.06 * width)
    z = found.difference / found.standard_error
    assert found.p_value == pytest.approx(2 * norm.sf(abs(z)), rel=1e-12)


def test_two_scores_without_a_difference_are_rarely_called_different() -> None:
    """5 % of 2,000 simulated pairs, with a standard deviation of 0.5."""
    rng = np.random.default_rng(8)
    called = 0
    for _ in range(2000):
        truth, shared = normal(rng, 50, 100, 0.85)
        found = delong_test(truth, shared + rng.normal(size=150), shared + rng.normal(size=150))
        assert found is not None
        assert found.p_value is not None
        called += found.p_value < 0.05
    assert 0.035 <= called / 2000 <= 0.065


def test_the_same_order_is_no_difference() -> None:
    truth, score = normal(np.random.default_rng(1), 10, 20, 0.8)
    found = delong_test(truth, score, 2 * score + 1)
    assert found is not None
    assert (found.difference, found.standard_error, found.p_value) == (0.0, 0.0, 1.0)
    assert found.interval is None  # without width it would say that no other image differs
    assert delong_test(truth[:11], score[:11], score[:11]) is None


@settings(deadline=None)
@given(CASES, st.integers(0, 2**32))
def test_the_difference_changes_sign_when_the_two_change_places(
    rows: list[tuple[float, int]], seed: int
) -> None:
    truth, score = columns(rows)
    other = np.random.default_rng(seed).integers(0, 5, len(score)) / 5
    one, two = delong_test(truth, score, other), delong_test(truth, other, score)
    assert (one is None) == (two is None)
    if one is not None and two is not None:
        assert one.difference == -two.difference
        assert one.p_value == two.p_value
        if one.interval is None:
            assert one.standard_error == 0 and (one.p_value is None) == (one.difference != 0)
        else:
            assert -1 <= one.interval.low <= one.interval.high <= 1


def test_a_difference_without_variance_has_neither_interval_nor_p() -> None:
    """Two positives above three negatives, against one score for all: no certainty of p = 0."""
    truth = np.array([1.0, 1, 0, 0, 0])
    perfect, constant = np.array([0.9, 0.8, 0.3, 0.2, 0.1]), np.full(5, 0.5)
    found = delong_test(truth, perfect, constant)
    assert found is not None
    assert (found.auroc_a, found.auroc_b, found.difference) == (1.0, 0.5, -0.5)
    assert found.interval is None and found.p_value is None
    same = delong_test(truth, perfect, perfect)
    assert same is not None and same.interval is None and same.p_value == 1.0


@pytest.mark.parametrize("images", [2, 3, 5, 7, 10, 100])
def test_rounding_gives_no_difference_a_variance(images: int) -> None:
    """Positives and negatives by turns; B puts each positive above one negative more than A."""
    truth = np.repeat([1.0, 0.0], images)
    negative = 2.0 * np.arange(images) + 1
    a, b = (np.concatenate([negative + step, negative]) for step in (-1, 1))
    found = delong_test(truth, a, b)
    assert found is not None
    assert found.difference == pytest.approx(1 / images)
    assert found.standard_error == 0
    assert found.interval is None and found.p_value is None


@pytest.mark.parametrize(
    ("truth", "score", "message"),
    [
        ([1, 2], [0.5, 0.5], "truth must be 0, 1 or nan"),
        ([1, 0], [0.5, math.nan], "scores must be finite"),
        ([1, 0], [0.5], "of one length"),
    ],
)
def test_values_without_a_meaning_are_refused(
    truth: list[float], score: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        auroc(np.array(truth), np.array(score))
