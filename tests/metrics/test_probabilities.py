"""Probabilities that float64 rounds to 1 keep their order, by those of the other classes."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import average_precision_score, roc_auc_score

from densenet121.metrics.predictions import summarise_predictions
from densenet121.metrics.probabilities import class_scores


def sure(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and logits of a network that is far too sure."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, 300)
    logits = 30 * random.normal(size=(300, classes))
    logits[np.arange(300), labels] += 40
    return labels, logits


@pytest.mark.parametrize("grouped", [False, True])
def test_sure_answers_of_two_classes_have_one_auroc_that_of_the_logits(grouped: bool) -> None:
    labels, logits = sure(2)
    shares = softmax(logits, axis=1)
    assert (shares == 1).any(axis=1).mean() > 0.3
    ids = np.array([str(k // 2) for k in range(300)]) if grouped else None
    found = summarise_predictions(
        np.eye(2)[labels], shares, ["a", "b"], ids=ids, one_class=True, resamples=200
    )
    above = logits[:, 1] - logits[:, 0]
    a, b = found["labels"]["a"], found["labels"]["b"]
    assert a["auroc"] == pytest.approx(roc_auc_score(labels, above), abs=1e-12)
    assert a["auroc"] == pytest.approx(b["auroc"], abs=1e-12)
    assert a["auroc_ci"] == pytest.approx(b["auroc_ci"], abs=1e-12)
    assert b["average_precision"] == pytest.approx(average_precision_score(labels, above))
    assert a["average_precision"] == pytest.approx(average_precision_score(labels == 0, -above))


def test_several_classes_are_ranked_by_their_log_odds() -> None:
    labels, logits = sure(4)
    scores = class_scores(softmax(logits, axis=1))
    for k in range(4):
        others = np.logaddexp.reduce(np.delete(logits, k, axis=1), axis=1)
        expected = roc_auc_score(labels == k, logits[:, k] - others)
        assert roc_auc_score(labels == k, scores[:, k]) == pytest.approx(expected, abs=1e-12)


def test_probabilities_that_were_rounded_keep_their_ties() -> None:
    rounded = np.array([[1.0, 1e-4, 0.0], [1.0, 2e-4, 0.0], [0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(class_scores(rounded), rounded)
    certain = class_scores(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.3, 0.7]]))
    assert certain[0, 0] == certain[2, 0] == certain[1, 1] > 1
    assert class_scores(np.empty((0, 2))).shape == (0, 2)
