"""Labels in doubt: a calculation by hand, the definition as a loop, planted errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densenet121.metrics.label_errors import class_thresholds, doubtful_cells, doubtful_labels


def test_a_calculation_by_hand() -> None:
    # Thresholds: class 0 (0.9 + 0.2 + 0.7) / 3 = 0.6, class 1 (0.8 + 0.4) / 2 = 0.6.
    labels = np.array([0, 0, 0, 1, 1])
    first = np.array([0.9, 0.2, 0.7, 0.2, 0.6])
    probability = np.stack([first, 1 - first], axis=1)
    assert class_thresholds(labels, probability) == pytest.approx([0.6, 0.6])
    found = doubtful_labels(labels, probability)
    # Image 1 has label 0 and 0.8 of class 1; image 4 has label 1 and 0.6 of class 0.
    assert found.image.tolist() == [1, 4]
    assert found.suggested.tolist() == [1, 0]
    assert found.score == pytest.approx([(0.8 - 0.6) - (0.2 - 0.6), (0.6 - 0.6) - (0.4 - 0.6)])


def test_of_a_rare_label_both_kinds_of_error_are_found() -> None:
    # Positives have 0.3 on average, so 0.35 is high for an image without the label.
    truth = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0, np.nan])
    share = np.array([0.45, 0.44, 0.01, 0.35, 0.02, 0.05, 0.04, 0.03, 0.05, 0.06, 0.99])
    found = doubtful_cells(truth, share)
    assert dict(zip(found.image.tolist(), found.suggested.tolist(), strict=True)) == {3: 1, 2: 0}
    # By half as much again: (0.35 - 0.3) + (0.914 - 0.65) against (0.99 - 0.914) + (0.3 - 0.01).
    assert found.image.tolist() == [2, 3]


@given(st.data())
def test_it_is_the_definition(data: st.DataObject) -> None:
    count, classes = data.draw(st.integers(1, 12)), data.draw(st.integers(2, 4))
    labels = np.array(
        data.draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    )
    parts = st.lists(st.integers(1, 9), min_size=classes, max_size=classes)
    raw = np.array(data.draw(st.lists(parts, min_size=count, max_size=count)), dtype=np.float64)
    probability = raw / raw.sum(axis=1, keepdims=True)
    found = doubtful_labels(labels, probability)
    expected = {}
    for image in range(count):
        confident = {}
        for k in range(classes):
            own = [probability[i, k] for i in range(count) if labels[i] == k]
            if own and probability[image, k] >= class_thresholds(labels, probability)[k]:
                confident[k] = probability[image, k]
        if confident and (best := max(confident, key=lambda k: confident[k])) != labels[image]:
            expected[image] = best
    assert dict(zip(found.image.tolist(), found.suggested.tolist(), strict=True)) == expected
    assert (np.diff(found.score) <= 0).all()


def test_planted_errors_are_most_of_what_is_found() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 5, 2000)
    logits = rng.normal(0, 1, (2000, 5)) + 5 * np.eye(5)[truth]
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = truth.copy()
    wrong = rng.choice(2000, 100, replace=False)
    labels[wrong] = (labels[wrong] + rng.integers(1, 5, 100)) % 5
    found = doubtful_labels(labels, probability)
    planted = np.isin(found.image, wrong)
    assert planted.mean() > 0.95 and planted.sum() >= 75
    assert (found.suggested[planted] == truth[found.image[planted]]).mean() > 0.95


def test_a_class_without_images_is_never_suggested() -> None:
    labels = np.array([0, 1, 0])
    probability = np.array([[0.1, 0.1, 0.8], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])
    assert 2 not in doubtful_labels(labels, probability).suggested
