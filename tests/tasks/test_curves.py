"""The curves of the labels against scikit-learn's, and names that matplotlib would read."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from densenet121.tasks.curves import LabelCurve, curves, figure_of


def label(seed: int, threshold: float | None = None) -> LabelCurve:
    random = np.random.default_rng(seed)
    truth = (random.random(60) < 0.3).astype(np.float64)
    shares = (0.3 * truth + 0.7 * random.random(60)).round(2)  # some are equal
    return LabelCurve(truth, shares, threshold)


def points(axes: Axes, line: int) -> NDArray[np.float64]:
    return np.asarray(axes.lines[line].get_xydata(), dtype=np.float64)


def test_the_curves_are_those_of_scikit_learn() -> None:
    one = label(1)
    roc, precision = figure_of({"a": one}).axes
    x, y, _ = roc_curve(one.truth, one.shares, drop_intermediate=False)
    np.testing.assert_allclose(points(roc, 0), np.stack([x, y], axis=1))
    found, recall, _ = precision_recall_curve(one.truth, one.shares)
    expected = np.stack([recall, found], axis=1)[::-1]  # from no call to all
    np.testing.assert_allclose(points(precision, 0), expected[: len(x)])


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9])
def test_the_dots_are_at_what_the_threshold_reaches(threshold: float) -> None:
    one = label(2, threshold)
    called = one.shares >= threshold
    hits = float((called & (one.truth == 1)).sum())
    sensitivity, false = hits / one.truth.sum(), float((called & (one.truth == 0)).sum())
    roc, precision = figure_of({"a": one}).axes
    assert points(roc, 1).tolist() == [pytest.approx([false / (one.truth == 0).sum(), sensitivity])]
    assert points(precision, 1).tolist() == [pytest.approx([sensitivity, hits / called.sum()])]


def test_a_threshold_that_nothing_reaches_has_no_precision() -> None:
    roc, precision = figure_of({"a": label(3, 1.0)}).axes
    assert points(roc, 1).tolist() == [[0.0, 0.0]]
    assert points(precision, 1).tolist() == []


def test_any_text_is_a_name_and_all_are_in_the_legend() -> None:
    names = ["_hidden", "$x_", "\u6bdb", "a|b", *map(str, range(6))]
    labels = {name: label(seed) for seed, name in enumerate(names)}
    assert curves(labels).startswith(b"\x89PNG")  # a warning would be an error
    (legend,) = figure_of(labels).legends
    assert [text.get_text().strip() for text in legend.get_texts()] == names
