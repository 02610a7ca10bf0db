"""Decisions, probabilities and classes: scikit-learn, hand calculations."""

import math
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    balanced_accuracy_score,
    brier_score_loss,
    cohen_kappa_score,
    f1_score,
    precision_score,
    recall_score,
)
from sklearn.metrics import log_loss as sklearn_log_loss

from densenet121.metrics.classes import summarise_classes
from densenet121.metrics.decisions import (
    decisions,
    grades,
    quadratic_kappa,
    threshold_text,
    wilson_interval,
)
from densenet121.metrics.probabilities import brier, calibration_error, log_loss
from densenet121.metrics.summary import summarise
from densenet121.metrics.tables import tables
from densenet121.tasks.single_label.calibration import reliability

CASES = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, math.nan]), st.integers(0, 10)), min_size=1, max_size=40
)
GRADES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@settings(deadline=None)
@given(CASES)
def test_decisions_as_scikit_learn(rows: list[tuple[float, int]]) -> None:
    table = np.array(rows)
    truth, probability = table[:, 0], table[:, 1] / 10
    found = decisions(truth, probability, 0.5)
    keep = ~np.isnan(truth)
    true, called = truth[keep] == 1, probability[keep] >= 0.5
    if not keep.any():
        assert set(found.values.values()) == {None}
        return
    assert found.tp + found.fp + found.tn + found.fn == keep.sum()
    expected = {
        "sensitivity": recall_score(true, called, zero_division=np.nan),
        "specificity": recall_score(~true, ~called, zero_division=np.nan),
        "ppv": precision_score(true, called, zero_division=np.nan),
        "npv": precision_score(~true, ~called, zero_division=np.nan),
        "f1": f1_score(true, called, zero_division=np.nan),
    }
    for name, value in expected.items():
        own = found.values[name]
        assert (own is None) if math.isnan(value) else own == pytest.approx(value, abs=1e-14)


@settings(deadline=None)
@given(CASES)
def test_brier_and_log_loss_as_scikit_learn(rows: list[tuple[float, int]]) -> None:
    table = np.array(rows)
    truth, probability = table[:, 0], table[:, 1] / 10  # 0 and 1 are among them
    keep = ~np.isnan(truth)
    if not keep.any():
        assert brier(truth, probability) is None and log_loss(truth, probability) is None
        return
    true, own = truth[keep], probability[keep]
    expected = sklearn_log_loss(true, own, labels=[0, 1])
    assert log_loss(truth, probability) == pytest.approx(expected, rel=1e-12)
    expected = brier_score_loss(true, own, pos_label=1, labels=[0, 1])
    assert brier(truth, probability) == pytest.approx(expected, abs=1e-15)


def test_calibration_error_by_hand_and_as_that_of_the_calibration() -> None:
    truth = np.array([0, 1, 1, 1, math.nan])
    probability = np.array([0.1, 0.1, 0.95, 0.99, 0.5])
    expected = (abs(1 - 0.2) + abs(2 - 1.94)) / 4
    assert calibration_error(truth, probability, bins=10) == pytest.approx(expected, abs=1e-15)
    rng = np.random.default_rng(1)
    probability = np.round(rng.random(500), 2)
    truth = (rng.random(500) < probability**2).astype(np.float64)
    same = reliability(probability, truth == 1).ece
    assert calibration_error(truth, probability) == pytest.approx(same, abs=1e-14)
    assert calibration_error(truth[:0], probability[:0]) is None


def test_no_threshold_between_0_and_1_is_written_as_either() -> None:
    """An image with 0.99997 is positive from 0.99996 on, and from 1, as tables had it, is not."""
    for value in (0.99996, 1 - 1e-9, np.nextafter(1, 0), 1e-9, 5e-324):
        assert 0 < float(threshold_text(value)) < 1
        assert 0 < float(threshold_text(value, "f")) < 1
    assert [threshold_text(value) for value in (0.3, 0.99996, 1.0)] == ["0.3", "0.99996", "1"]
    assert threshold_text(0.99996, "f") == "0.99996"
    assert threshold_text(0.00844, "f") == "0.0084"
    high, truth = 1 - np.geomspace(1e-5, 1e-4, 40), np.repeat([1.0, 0.0], 20)
    found = summarise(truth[:, None], high[:, None], ["a"], thresholds={"a": 0.99996}, resamples=0)
    assert any(line.startswith("a      0.99996 ") for line in tables(found))


@settings(deadline=None)
@given(GRADES)
def test_kappa_and_balanced_accuracy_as_scikit_learn(rows: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(rows).T
    once = np.ones_like(labels)
    found = summarise_classes(labels, np.eye(5)[predicted], resamples=0)
    assert found["n_images"] == len(rows) and found["accuracy"] == (labels == predicted).mean()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are only predicted
        expected = balanced_accuracy_score(labels, predicted)
        assert found["balanced_accuracy"] == pytest.approx(expected, abs=1e-14)
        if len(set(labels) | set(predicted)) == 1:
            assert quadratic_kappa(labels, predicted, once) is found["quadratic_kappa"] is None
            return
        kappa = cohen_kappa_score(labels, predicted, weights="quadratic", labels=range(5))
    assert quadratic_kappa(labels, predicted, once) == pytest.approx(kappa, abs=1e-12)
    assert found["quadratic_kappa"] == pytest.approx(kappa, abs=1e-12)
    twice, again = np.repeat(labels, 2), np.repeat(predicted, 2)
    drawn = quadratic_kappa(labels, predicted, 2 * once)
    assert drawn == quadratic_kappa(twice, again, np.ones_like(twice))


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["10", "6", "7"], [2, 0, 1]),
        (["grade 1", "grade 10", "grade 2"], [0, 2, 1]),
        (["mild", "none", "severe"], [0, 1, 2]),
        (["T10", "T2", "other"], [0, 1, 2]),
        (["10", "6", "T7"], [0, 1, 2]),
        (["1", "01"], [0, 1]),
    ],
)
def test_grades_are_in_the_order_of_their_numbers(names: list[str], places: list[int]) -> None:
    assert grades(names).tolist() == places


def test_many_classes_need_little_time_and_memory() -> None:
    """A table of all pairs of ImageNet's 21841 classes has 3.8 GB, for each resample."""
    labels = np.arange(0, 21841, 1000)
    probability = np.zeros((len(labels), 21841), dtype=np.float32)
    probability[np.arange(len(labels)), np.roll(labels, 1)] = 1
    tracemalloc.start()
    found = summarise_classes(labels, probability.astype(np.float64), resamples=20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["accuracy"] == 0 and peak < 50e6
    kappa = cohen_kappa_score(labels // 1000, np.roll(labels, 1) // 1000, weights="quadratic")
    assert found["quadratic_kappa"] == pytest.approx(kappa, abs=1e-12)


def test_wilson_is_the_formula_of_statsmodels_by_hand() -> None:
    """statsmodels' proportion_confint(method="wilson"), written out for 7 of 20."""
    z = 1.959963984540054
    share, n = 7 / 20, 20
    center = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    distance = z * math.sqrt((share * (1 - share) + z**2 / (4 * n)) / n) / (1 + z**2 / n)
    found = wilson_interval(7, 20)
    assert found == pytest.approx((center - distance, center + distance), abs=1e-15)
    assert found == pytest.approx((0.18119, 0.56714), abs=1e-4)


@given(st.integers(0, 200), st.integers(0, 200))
def test_wilson_contains_the_share_and_stays_inside(part: int, rest: int) -> None:
    found = wilson_interval(part, part + rest)
    if part + rest == 0:
        assert found is None
        return
    assert found is not None
    assert 0 <= found.low <= part / (part + rest) <= found.high <= 1
    mirrored = wilson_interval(rest, part + rest)
    assert mirrored == pytest.approx((1 - found.high, 1 - found.low), abs=1e-14)


def test_classes_have_intervals_that_hold_their_value() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(-1, 4, 300)
    probability = rng.random((300, 4))
    probability[np.arange(300), labels] += 0.6
    found = summarise_classes(labels, probability, resamples=300)
    known = labels >= 0
    assert (found["n_images"], found["n_unknown"]) == (known.sum(), (~known).sum())
    for name in ("accuracy", "balanced_accuracy", "quadratic_kappa"):
        low, high = found[f"{name}_ci"]
        assert low < found[name] < high
    assert found["accuracy_ci"] == pytest.approx(
        wilson_interval(round(found["accuracy"] * known.sum()), int(known.sum())), abs=1e-12
    )
    # At 0 and at 1 no resample of groups differs: Wilson's, as if each group were one image.
    group = np.arange(300) // 5
    groups = len(np.unique(group[known]))
    for predicted, ends in ((labels, wilson_interval(groups, groups)),
                            ((labels + 1) % 4, wilson_interval(0, groups))):  # fmt: skip
        certain = np.eye(4)[predicted]
        whole = summarise_classes(labels, certain, group=group, resamples=100)
        assert whole["accuracy"] == float((predicted == labels).all())
        assert whole["accuracy_ci"] == list(ends or ())
    empty = summarise_classes(np.full(3, -1), np.ones((3, 2)), resamples=100)
    assert empty["accuracy"] is empty["quadratic_kappa"] is empty["balanced_accuracy_ci"] is None
