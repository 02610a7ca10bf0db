"""Thresholds against every threshold there is, and temperatures against a search."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from densenet121.tasks import MultiLabel, SingleLabel
from densenet121.tasks.multi_label.calibrate import learn
from densenet121.tasks.multi_label.calibration import (
    Calibration,
    OperatingPoint,
    choose,
    fit_temperature,
    parse_rule,
    probabilities,
)
from densenet121.utils.errors import InputError, UsageError

RULES = ["youden", "f1", "sensitivity=0.8", "specificity=0.7", "precision=0.6"]


def value(rule: str, truth: NDArray[np.float64], called: NDArray[np.bool_]) -> float:
    hits, false = (called & (truth == 1)).sum(), (called & (truth == 0)).sum()
    sensitivity, specificity = hits / truth.sum(), 1 - false / (truth == 0).sum()
    found = {
        "youden": sensitivity + specificity - 1,
        "f1": 2 * hits / (called.sum() + truth.sum()),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": hits / max(called.sum(), 1),
    }
    return float(found[rule])


@pytest.mark.parametrize("task", [SingleLabel(), MultiLabel()])
@pytest.mark.parametrize("columns", [1, 2, 3, 5, 7, 10, 14, 100])
def test_equal_logits_have_equal_probabilities_wherever_they_stand(
    task: SingleLabel | MultiLabel, columns: int
) -> None:
    """Else images that tie would not, and an answer would depend on its batch."""
    random = np.random.default_rng(columns)
    logits = random.normal(0, 5, (33, columns)).astype(np.float32)
    logits[20:] = logits[:13]
    whole = task.probabilities(logits)
    assert np.array_equal(whole[20:], whole[:13])
    for size in (1, 2, 3, 16):
        parts = [task.probabilities(logits[i : i + size]) for i in range(0, 33, size)]
        assert np.array_equal(np.concatenate(parts), whole)


def test_probabilities_are_the_sigmoid_to_the_last_digit() -> None:
    logits = np.array([[-800.0, -40.0, -1.5], [0.0, 3.0, 800.0]])
    exact = [[0.0, 4.248354255291589e-18, 0.18242552380635635], [0.5, 0.9525741268224334, 1.0]]
    assert probabilities(logits) == pytest.approx(np.array(exact), rel=4e-16, abs=0)
    assert probabilities(logits[:, 2], 2.0)[0] == pytest.approx(1 / (1 + math.exp(0.75)), rel=4e-16)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=30),
    st.sampled_from(RULES),
)
def test_no_other_threshold_is_better(rows: list[tuple[int, bool]], rule: str) -> None:
    shares = np.array([share / 8 for share, _ in rows])
    truth = np.array([float(positive) for _, positive in rows])
    assume(0 < truth.sum() < len(truth))
    name, target = parse_rule(rule)
    cuts = np.unique(shares)
    values = {cut: value(name, truth, shares >= cut) for cut in cuts}
    found = choose(shares, truth, name, target)
    if target is None:
        assert found is not None
        called = shares >= found.threshold
        best = max(values.values())
        assert value(name, truth, called) == pytest.approx(best)
        lower = [cut for cut in cuts if cut < shares[called].min()]
        assert all(values[cut] < best for cut in lower)  # ties go to the more sensitive one
    elif found is None:
        assert all(one < target for one in values.values())
    else:
        called = shares >= found.threshold
        assert value(name, truth, called) >= target
        reaching = [cut for cut in cuts if values[cut] >= target]
        expected = max(reaching) if name == "sensitivity" else min(reaching)
        assert (called == (shares >= expected)).all()
    if found is not None:
        assert found.true_positives == int((called & (truth == 1)).sum())
        assert found.false_positives == int((called & (truth == 0)).sum())
        assert (found.positives, found.negatives) == (truth.sum(), len(truth) - truth.sum())


def test_of_two_cuts_with_the_same_youden_index_the_more_sensitive_one_is_taken() -> None:
    """20 / 25 - 8 / 30 and 25 / 25 - 14 / 30 are both 8 / 15; their sums round otherwise."""
    parts = ((20, 8, 0.9), (5, 6, 0.5), (0, 16, 0.1))
    truth = np.concatenate([[1.0] * hits + [0.0] * false for hits, false, _ in parts])
    shares = np.concatenate([[share] * (hits + false) for hits, false, share in parts])
    found = choose(shares, truth, "youden", None)
    assert found is not None
    assert (found.true_positives, found.false_positives) == (25, 14)


@pytest.mark.parametrize("target", [step / 20 for step in range(1, 20)])
@pytest.mark.parametrize("name", ["sensitivity", "specificity"])
def test_a_target_that_a_cut_reaches_exactly_is_reached(name: str, target: float) -> None:
    """1 - 11 / 20 is below 0.45 in floating point; 9 / 20 is not."""
    shares = np.repeat(np.arange(20) + 1, 2) / 21
    found = choose(shares, np.tile([0.0, 1.0], 20), name, target)
    assert found is not None
    assert getattr(found, name) == target


@pytest.mark.parametrize(
    "text", ["best", "youden=0.5", "sensitivity", "sensitivity=1.5", "precision=x", "f1=", ""]
)
def test_an_unknown_rule_is_refused_with_those_there_are(text: str) -> None:
    if text == "f1=":
        assert parse_rule(text) == ("f1", None)
        return
    with pytest.raises(UsageError, match="must be one of youden, f1, sensitivity=X"):
        parse_rule(text)


def test_the_temperature_has_the_lowest_loss() -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(size=4000) * 2
    truth = (generator.random(4000) < 1 / (1 + np.exp(-logits))).astype(np.float64)
    assert fit_temperature(logits, truth).value == pytest.approx(1.0, abs=0.1)
    assert fit_temperature(logits * 3, truth).value == pytest.approx(3.0, abs=0.3)


def test_a_stored_calibration_is_read_back_and_a_damaged_one_refused() -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(60, 2)).astype(np.float32)
    targets = (generator.random((60, 2)) < 0.4).astype(np.float64)
    targets[::7, 0] = np.nan
    found = learn(logits, targets, ("a", "b"), "youden", {"data_dir": "x"}).calibration
    assert Calibration.from_json(found.to_json()) == found
    for change in ({"temperatures": [0.0, 1.0]}, {"points": [1]}, {"rule": None, "note": 3}):
        with pytest.raises(InputError, match="is damaged"):
            Calibration.from_json(found.to_json() | change)


def test_labels_that_are_told_apart_without_error_get_thresholds_between_them() -> None:
    """No temperature is then the best: the smaller, the lower the loss."""
    logits = np.array([[90.0], [80.0], [-90.0], [-80.0]], np.float32)
    targets = np.array([[1.0], [1.0], [0.0], [0.0]])
    (point,) = learn(logits, targets, ("a",), "youden", {}).calibration.points
    assert (point.sensitivity, point.specificity) == (1.0, 1.0)
    assert point.threshold == 0.5


def calibration(temperatures: tuple[float, ...], thresholds: tuple[float, ...]) -> Calibration:
    points = tuple(OperatingPoint(one, 1, 1, 2, 2) for one in thresholds)
    return Calibration(temperatures, points, "youden" if points else "", {})


@pytest.mark.parametrize(
    ("temperatures", "thresholds", "label"),
    [
        (None, (), 0),  # the highest logit
        ((4.0, 1.0, 1.0), (), 1),  # 3 / 4 is less than 2 / 1
        ((1.0, 1.0, 1.0), (0.99, 0.9, 0.1), 2),  # only the third reaches its threshold
        ((1.0, 1.0, 1.0), (0.99, 0.5, 0.1), 1),  # of those that do, the most probable
        ((1.0, 1.0, 1.0), (0.99, 0.99, 0.99), 0),  # none does: the most probable of all
    ],
)
def test_a_map_explains_the_label_that_the_answer_names_first(
    temperatures: tuple[float, ...] | None, thresholds: tuple[float, ...], label: int
) -> None:
    task, names = MultiLabel(), ("a", "b", "c")
    logits = np.array([[3.0, 2.0, -1.0]], np.float32)
    found = None if temperatures is None else calibration(temperatures, thresholds)
    assert task.explained_output(logits, found).tolist() == [label]
    (answer,) = task.answers(logits, names, found)
    assert answer.text().lstrip("+").startswith(names[label])


@pytest.mark.parametrize(("cell", "kind"), [(0.0, "positive"), (1.0, "negative")])
def test_a_label_of_one_kind_cannot_be_calibrated(cell: float, kind: str) -> None:
    targets = np.array([[1.0, cell], [0.0, cell]])
    with pytest.raises(InputError, match=f"the label b has no {kind} image among these 2"):
        learn(np.zeros((2, 2), np.float32), targets, ("a", "b"), None, {})


def test_a_target_that_no_threshold_reaches_is_refused() -> None:
    logits = np.array([[3.0], [2.0], [1.0]], np.float32)
    message = r"precision=0\.9 is not reached .* label a; the highest precision is 0\.500"
    with pytest.raises(InputError, match=message):
        learn(logits, np.array([[0.0], [1.0], [0.0]]), ("a",), "precision=0.9", {})


def test_the_highest_precision_that_is_named_can_be_asked_for() -> None:
    logits = np.array([[4.0], [3.0], [2.0], [1.0]], np.float32)
    truth = np.array([[0.0], [1.0], [1.0], [0.0]])  # the highest precision is 2 of 3
    with pytest.raises(InputError, match=r"the highest precision is 0\.666,"):
        learn(logits, truth, ("a",), "precision=0.667", {})
    learn(logits, truth, ("a",), "precision=0.666", {})
