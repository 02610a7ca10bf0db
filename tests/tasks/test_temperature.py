"""A temperature keeps the order of the images, and none is used where none is the best."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from densenet121.tasks import MultiLabel, SingleLabel
from densenet121.tasks.multi_label.calibration import fit_temperature as fit_label
from densenet121.tasks.multi_label.calibration import probabilities
from densenet121.tasks.single_label.calibration import fit_temperature as fit_classes


def labels_told_apart(count: int, error: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits of one label, on the right side but for one positive image that is far off."""
    generator = np.random.default_rng(1)
    truth = (np.arange(count) % 3 == 0).astype(np.float64)
    logits = (truth * 2 - 1) * generator.uniform(0.5, 9, count)
    if error:
        logits[0] = -1.0
    return logits.astype(np.float32), truth


@pytest.mark.parametrize("error", [False, True])
def test_calibration_of_a_label_changes_no_auroc_and_no_average_precision(error: bool) -> None:
    held, truth = labels_told_apart(60, error)
    generator = np.random.default_rng(2)
    fresh_truth = (generator.random(500) < 0.3).astype(np.float64)
    fresh = (fresh_truth * 6 - 3 + generator.normal(0, 4, 500)).astype(np.float32)
    task = MultiLabel()
    targets = torch.from_numpy(truth[:, None])
    found, lines = task.calibrate(
        held[:, None],
        targets,
        seed=1,
        target_accuracy=None,
        note={},
        operating_point="youden",
        class_names=("mass",),
    )
    shares = task.probabilities(fresh[:, None], found)[:, 0]
    assert roc_auc_score(fresh_truth, shares) == roc_auc_score(fresh_truth, fresh)
    expected = average_precision_score(fresh_truth, fresh)
    assert average_precision_score(fresh_truth, shares) == pytest.approx(expected, rel=1e-12)
    assert 0 < found.thresholds[0] < 1
    if error:
        assert found.temperatures[0] != 1.0 and not lines[0].startswith("warning")
    else:
        assert found.temperatures == (1.0,)
        assert lines[0].startswith("warning: the temperature of the label mass stays 1: these")
        assert lines[0].endswith(
            "told apart without error, so that no temperature is the best; "
            "pass more held-out images"
        )


def test_one_class_that_is_told_apart_without_error_keeps_its_probabilities() -> None:
    labels = np.arange(60) % 3
    logits = np.random.default_rng(1).normal(0, 0.4, (60, 3)) + 5 * np.eye(3)[labels]
    found, lines = SingleLabel().calibrate(
        logits.astype(np.float32),
        torch.from_numpy(labels),
        seed=1,
        target_accuracy=None,
        note={},
    )
    assert found.temperature == 1.0
    assert "told apart without error" in found.note["no_temperature"]
    assert lines[0] == f"warning: the temperature stays 1: {found.note['no_temperature']}"
    assert SingleLabel().read_calibration(found.to_json()) == found


@pytest.mark.parametrize("sign", [-1.0, 0.0])
def test_logits_worse_than_equal_probabilities_have_no_temperature(sign: float) -> None:
    """At 100, the end of the search, all probabilities would be alike."""
    logits, truth = labels_told_apart(60, True)
    value, problem = fit_label(sign * logits.astype(np.float64), truth)
    assert value == 1.0 and problem.startswith("no temperature makes its probabilities better")
    both = np.stack([-logits, logits], axis=1)
    value, problem = fit_classes(sign * both, truth.astype(np.int64))
    assert value == 1.0 and problem.startswith("no temperature makes its probabilities better")


@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_a_temperature_at_the_end_of_the_search_is_not_used(factor: float) -> None:
    generator = np.random.default_rng(3)
    logits = generator.normal(0, 2, 400)
    truth = (generator.random(400) < 1 / (1 + np.exp(-logits))).astype(np.float64)
    value, problem = fit_label(logits * factor, truth)
    assert value == 1.0 and "is not between 0.01 and 100" in problem
    both = np.stack([0 * logits, logits * factor], axis=1)
    value, problem = fit_classes(both, truth.astype(np.int64))
    assert value == 1.0 and "is not between 0.01 and 100" in problem


def test_a_temperature_that_makes_probabilities_exactly_one_is_not_used() -> None:
    logits = np.concatenate([np.linspace(1, 9, 500), -np.linspace(1, 9, 500), [0.01]])
    truth = np.concatenate([np.ones(500), np.zeros(501)])
    losses = {
        value: np.logaddexp(0, np.where(truth == 1, -logits, logits) / value).sum()
        for value in np.geomspace(0.01, 100, 2001)
    }
    best = min(losses, key=lambda value: losses[value])
    assert (probabilities(logits, best) == 1).any()
    value, problem = fit_label(logits, truth)
    assert value == 1.0
    assert problem.startswith(f"the best temperature, {best:.2f}")
    assert "makes probabilities exactly 0 or 1; pass more held-out images" in problem


def test_the_threshold_of_a_rare_finding_is_not_printed_as_zero() -> None:
    generator = np.random.default_rng(5)
    logits = generator.normal(-14, 1, (2000, 1)).astype(np.float32)
    targets = torch.zeros(2000, 1)
    targets[np.argsort(logits[:, 0])[-1:]] = 1
    targets[np.argsort(logits[:, 0])[:5]] = 1
    found, lines = MultiLabel().calibrate(
        logits,
        targets,
        seed=1,
        target_accuracy=None,
        note={},
        operating_point="sensitivity=0.5",
        class_names=("rare",),
    )
    shown = float(lines[-2].partition("threshold ")[2].split()[0])
    assert shown == pytest.approx(found.thresholds[0], rel=0.5)


def test_the_loss_of_calibrated_weights_is_the_log_loss_of_their_probabilities() -> None:
    generator = np.random.default_rng(6)
    logits = torch.from_numpy(generator.normal(0, 3, (40, 2)).astype(np.float32))
    targets = torch.from_numpy((generator.random((40, 2)) < 0.4).astype(np.float32))
    targets[::7, 0] = math.nan
    task = MultiLabel()
    found = task.read_calibration({"temperatures": [0.5, 4], "points": [], "rule": "", "note": {}})
    scores = task.calibrated(task.score(logits, targets), targets, found)
    known = ~targets.isnan().numpy()
    shares = 1 / (1 + np.exp(-logits.double().numpy() / [0.5, 4]))
    metrics = task.metrics(scores, targets, ("a", "b"))
    assert metrics["loss"] == pytest.approx(log_loss(targets.numpy()[known], shares[known]))
