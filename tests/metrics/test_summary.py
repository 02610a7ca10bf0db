"""The summary of a table: what is undefined is None, what is left out is named."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from densenet121.metrics.decisions import wilson_interval
from densenet121.metrics.ranking import auroc, delong_interval
from densenet121.metrics.summary import summarise
from densenet121.metrics.tables import tables

NAMES = ["a", "b", "c", "d"]


def table(seed: int = 1, images: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Four labels: with unknown cells, complete, without positives, with 3 positives."""
    rng = np.random.default_rng(seed)
    probability = rng.random((images, 4))
    truth = (rng.random((images, 4)) < probability**2).astype(np.float64)
    truth[::5, 0] = math.nan
    truth[:, 2] = 0
    truth[:, 3] = 0
    truth[:3, 3] = 1
    return truth, probability


def test_unknown_cells_are_left_out_for_their_label_and_counted() -> None:
    truth, probability = table()
    found = summarise(truth, probability, NAMES, resamples=0)["labels"]
    keep = ~np.isnan(truth[:, 0])
    assert found["a"]["auroc"] == auroc(truth[keep, 0], probability[keep, 0])
    assert found["a"]["n_unknown"] == 40 and found["b"]["n_unknown"] == 0
    assert found["a"]["n_positive"] + found["a"]["n_negative"] == 160


def test_what_is_undefined_is_none_and_not_in_the_macro_mean() -> None:
    truth, probability = table()
    found = summarise(truth, probability, NAMES, resamples=100)
    labels, macro = found["labels"], found["macro"]
    assert (
        labels["c"]["auroc"] is labels["c"]["auroc_ci"] is labels["c"]["average_precision"] is None
    )
    assert macro["left_out"] == ["c"] and macro["n_labels"] == 3
    assert macro["auroc"] == pytest.approx(np.mean([labels[name]["auroc"] for name in "abd"]))
    assert macro["brier"] == pytest.approx(np.mean([labels[name]["brier"] for name in "abd"]))
    json.dumps(found, allow_nan=False)


def test_labels_with_few_positives_can_be_left_out_of_the_macro_mean() -> None:
    found = summarise(*table(), NAMES, resamples=0, least_positives=4)
    assert found["macro"]["left_out"] == ["c", "d"]
    assert found["labels"]["d"]["auroc"] is not None


def test_no_label_is_defined_no_macro_mean() -> None:
    macro = summarise(np.zeros((5, 2)), np.full((5, 2), 0.5), ["a", "b"], resamples=100)["macro"]
    assert macro["auroc"] is macro["auroc_ci"] is macro["average_precision"] is None
    assert macro["left_out"] == ["a", "b"] and macro["n_labels"] == 0


def test_intervals_without_groups_are_delongs_and_wilsons() -> None:
    truth, probability = table()
    found = summarise(truth, probability, NAMES, thresholds={"b": 0.5}, resamples=100)["labels"]
    assert found["b"]["auroc_ci"] == list(delong_interval(truth[:, 1], probability[:, 1]) or ())
    calls = found["b"]
    interval = wilson_interval(calls["tp"], calls["tp"] + calls["fn"])
    assert calls["sensitivity_ci"] == list(interval or ())
    assert calls["threshold"] == 0.5 and "threshold" not in found["a"]


def test_a_share_of_one_counts_each_group_once() -> None:
    """40 positives of 8 patients, all found: Wilson's interval of 8 of 8, not of 40 of 40."""
    truth = np.repeat([1.0, 0.0], 40)[:, None]
    group = np.arange(80) // 5
    probability = np.where(truth == 1, 0.9, 0.1)
    probability[79] = 0.8
    found = summarise(truth, probability, ["a"], group=group, thresholds={"a": 0.5}, resamples=100)
    calls = found["labels"]["a"]
    assert calls["sensitivity_ci"] == list(wilson_interval(8, 8) or ())
    low, high = calls["specificity_ci"]
    assert low < 39 / 40 < high and calls["auroc_ci"] is None  # 1 in every resample
    assert (found["n_images"], found["n_groups"]) == (80, 16)


def test_a_metric_that_one_label_lacks_says_so() -> None:
    truth, probability = table()
    probability[:, 1] = np.minimum(probability[:, 1], 0.4)
    found = summarise(
        truth, probability, NAMES, thresholds=dict.fromkeys(NAMES, 0.5), resamples=100
    )
    assert found["labels"]["b"]["ppv"] is found["labels"]["b"]["ppv_ci"] is None
    macro = found["macro"]
    assert macro["also_left_out"] == {"ppv": ["b"]}
    assert macro["ppv"] == pytest.approx(
        (found["labels"]["a"]["ppv"] + found["labels"]["d"]["ppv"]) / 2
    )
    assert macro["sensitivity"] is not None
    partly = summarise(truth, probability, NAMES, thresholds={"a": 0.5}, resamples=0)["macro"]
    assert "sensitivity" not in partly


def test_without_resamples_only_formulas_give_intervals() -> None:
    found = summarise(*table(), NAMES, resamples=0)
    assert found["labels"]["b"]["auroc_ci"] is not None
    assert found["labels"]["b"]["brier_ci"] is found["macro"]["auroc_ci"] is None


def test_the_macro_interval_is_narrower_than_that_of_a_label() -> None:
    found = summarise(*table(), NAMES, resamples=500, least_positives=4)
    low, high = found["macro"]["auroc_ci"]
    assert low < found["macro"]["auroc"] < high
    for name in "ab":
        one = found["labels"][name]["auroc_ci"]
        assert high - low < one[1] - one[0]


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(4)), st.integers(0, 2**32))
def test_permuted_labels_and_images_permute_the_results(order: list[int], seed: int) -> None:
    truth, probability = table(seed, images=60)
    found = summarise(truth, probability, NAMES, resamples=0)
    names = [NAMES[label] for label in order]
    rows = np.random.default_rng(seed).permutation(60)
    again = summarise(truth[rows][:, order], probability[rows][:, order], names, resamples=0)
    assert list(again["labels"]) == names
    for name, values in found["labels"].items():
        for metric, value in values.items():
            assert again["labels"][name][metric] == pytest.approx(value, abs=1e-12), metric
    assert set(again["macro"]["left_out"]) == set(found["macro"]["left_out"])


def test_an_interval_that_does_not_hold_its_value_is_left_out() -> None:
    """Of 100 rare labels by chance: resamples have positives twice, which raises the mean AP."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 100, 1000)
    truth, probability = np.eye(100)[labels], rng.random((1000, 100))
    macro = summarise(truth, probability, [str(k) for k in range(100)], resamples=200)["macro"]
    areas = [average_precision_score(truth[:, k], probability[:, k]) for k in range(100)]
    assert macro["average_precision"] == pytest.approx(np.mean(areas), abs=1e-12)
    assert macro["average_precision_ci"] is None
    for metric in ("auroc", "brier", "log_loss"):
        low, high = macro[f"{metric}_ci"]
        assert low < macro[metric] < high


def test_no_images_have_no_metrics() -> None:
    found = summarise(np.empty((0, 1)), np.empty((0, 1)), ["a"], resamples=100)
    assert found["labels"]["a"]["brier"] is found["macro"]["auroc"] is None


def test_labels_of_few_groups_are_named_as_too_sure() -> None:
    """Percentile intervals over 10 groups cover 86 to 90 of 100 true values, over 5 fewer."""
    truth, probability = table()
    group = np.arange(200) // 2
    found = summarise(truth, probability, NAMES, group=group, resamples=100)
    assert found["few_groups"] == ["d"]  # 3 positives; c has none, and no AUROC
    said = "positives, or negatives, of fewer than 20 groups: "
    assert any(line.endswith(f"{said}d") for line in tables(found))
    few = summarise(truth, probability, NAMES, group=np.arange(200) // 20, resamples=100)
    assert few["few_groups"] == NAMES
    assert any(line.endswith(f"{said}a, b, c, d") for line in tables(few))
    alone = summarise(truth, probability, NAMES, resamples=100)
    assert "few_groups" not in alone and not any(said in line for line in tables(alone))


def test_intervals_of_means_are_called_too_narrow_of_few_positive_images_too() -> None:
    """With 5 positives the interval of the mean had the true AUROC in 75 of 100 files, unsaid."""
    truth, probability = table()
    said = "with positives, or negatives, of fewer than 20 images: "
    found = summarise(truth, probability, NAMES, resamples=100)
    assert any(line.endswith(f"{said}d") for line in tables(found))  # c is in no mean
    plain = summarise(truth, probability, NAMES, resamples=0)
    enough = summarise(truth[:, :2], probability[:, :2], NAMES[:2], resamples=100)
    assert not any(said in line for one in (plain, enough) for line in tables(one))
    names = [f"d{number}" for number in range(22)]
    many = summarise(truth[:, [3] * 22], probability[:, [3] * 22], names, resamples=50)
    assert any(line.endswith("d18, d19 and 2 more") for line in tables(many))


def test_the_notes_below_the_tables_can_be_read_with_200_labels() -> None:
    """On a page they were 40 lines of names before the first number."""
    truth, probability = table()
    names = [f"label {number}" for number in range(200)]
    kinds = [2, 3] * 100  # no positives; positives of few groups
    group = np.arange(200) // 2
    found = summarise(truth[:, kinds], probability[:, kinds], names, group=group, resamples=2)
    assert len(found["few_groups"]) == len(found["macro"]["left_out"]) == 100
    notes = [line for line in tables(found) if line.endswith(" and 80 more")]
    assert [line.partition(":")[0] for line in notes][1:] == ["not in the macro means"]
    assert all(len(line) < 400 for line in notes)


@pytest.mark.parametrize("grouped", [False, True])
def test_calls_have_the_metrics_that_a_threshold_with_the_same_calls_has(grouped: bool) -> None:
    """The answers, of images with one class each, are calls that no threshold makes."""
    truth, probability = table()
    group = np.arange(len(truth)) // 5 if grouped else None
    at = dict.fromkeys(NAMES, 0.3)
    expected = summarise(truth, probability, NAMES, group=group, thresholds=at, resamples=100)
    called = probability >= 0.3
    found = summarise(truth, probability, NAMES, group=group, called=called, resamples=100)
    for label in expected["labels"].values():
        assert label.pop("threshold") == 0.3
    assert found == expected
