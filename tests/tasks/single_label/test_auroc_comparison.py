"""The AUROCs of two evaluations of one class per image: scikit-learn's, and DeLong's test."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from densenet121.metrics.ranking import delong_test
from densenet121.tasks.single_label.comparison import difference

Rows = dict[str, dict[str, str]]


def evaluated(labels: NDArray[np.int64], shares: NDArray[np.float64], names: Sequence[str]) -> Rows:
    """The rows of predictions.csv."""
    rows: Rows = {}
    for at, (label, row) in enumerate(zip(labels, shares, strict=True)):
        name, best = f"{at}.png", int(row.argmax())
        rows[name] = {"path": name, "label": names[label], "predicted": names[best]}
        rows[name] |= {"probability": repr(float(row[best])), "rank": "1"}
        rows[name] |= {f"probability_{n}": repr(float(p)) for n, p in zip(names, row, strict=True)}
    return rows


def two(
    names: Sequence[str], images: int = 90, twins: int = 1
) -> tuple[Rows, Rows, NDArray[np.int64], list[NDArray[np.float64]]]:
    """A and B of the same images, each ``twins`` times, and what they are made of."""
    random = np.random.default_rng(4)
    labels = random.integers(0, len(names), images)
    both = []
    for skill in (1.0, 1.4):
        logits = random.normal(size=(images, len(names)))
        logits[np.arange(images), labels] += skill
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        both.append(np.repeat(shares, twins, axis=0))
    labels = np.repeat(labels, twins)
    a, b = (evaluated(labels, shares, names) for shares in both)
    return a, b, labels, both


def test_two_classes_have_the_areas_of_scikit_learn_and_delongs_test() -> None:
    a, b, labels, (one, other) = two(["normal", "ill"])
    found = difference(a, b).auroc
    truth = (labels == 1).astype(np.float64)
    test = delong_test(truth, one[:, 1], other[:, 1])
    assert found is not None and test is not None and test.interval is not None
    assert found.auroc_a == pytest.approx(roc_auc_score(truth, one[:, 1]), abs=1e-12)
    assert found.auroc_b == pytest.approx(roc_auc_score(truth, other[:, 1]), abs=1e-12)
    assert found.difference == pytest.approx(found.auroc_b - found.auroc_a, abs=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(test.interval), abs=1e-12)
    (ill,) = found.classes
    assert ill.label == "ill" and ill.p_value == pytest.approx(test.p_value, abs=1e-12)
    (line,) = found.lines(5)
    assert line in difference(a, b).text(5)
    assert line.startswith(f"AUROC: A {found.auroc_a:.4f}, B {found.auroc_b:.4f}, B - A: ")
    assert line.endswith(f"(DeLong); DeLong's test: p = {test.p_value:.4g}")


@pytest.mark.parametrize("names", [["normal", "ill"], ["ill", "normal"]])
def test_sure_answers_are_compared_by_the_order_of_their_logits(names: Sequence[str]) -> None:
    random = np.random.default_rng(4)
    ill = random.integers(0, 2, 90)
    above = [40 * (random.normal(size=90) + skill * (2 * ill - 1)) for skill in (0.7, 1.0)]
    sides = [
        {"normal": np.exp(-np.logaddexp(0, z)), "ill": np.exp(-np.logaddexp(0, -z))} for z in above
    ]
    labels = ill if names[1] == "ill" else 1 - ill
    a, b = (evaluated(labels, np.stack([s[n] for n in names], axis=1), names) for s in sides)
    found, test = difference(a, b).auroc, delong_test(ill.astype(np.float64), above[0], above[1])
    assert found is not None and test is not None and test.interval is not None
    assert (found.auroc_a, found.auroc_b) == pytest.approx((test.auroc_a, test.auroc_b), abs=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(test.interval), abs=1e-12)


def test_the_interval_over_patients_is_wider_than_over_their_alike_images() -> None:
    a, b, *_ = two(["normal", "ill"], twins=6)
    groups = {path: str(at // 6) for at, path in enumerate(a)}
    alone, found = difference(a, b).auroc, difference(a, b, groups=groups).auroc
    assert alone is not None and found is not None and found.n_groups == 90
    assert found.low is not None and alone.low is not None
    assert found.high is not None and alone.high is not None
    assert found.high - found.low > 1.8 * (alone.high - alone.low)  # the square root of 6 is 2.4
    assert "(over 90 groups); DeLong's test: p = " in found.lines(5)[0]
    assert found.lines(5)[0].endswith("which takes images for independent")


def test_each_of_several_classes_is_tested_and_their_mean_has_no_interval() -> None:
    names = ["a", "b", "c"]
    a, b, labels, (one, other) = two(names)
    found = difference(a, b).auroc
    assert found is not None and (found.low, found.high) == (None, None)
    assert found.auroc_a == pytest.approx(roc_auc_score(labels, one, multi_class="ovr"), abs=1e-12)
    assert found.auroc_b == pytest.approx(
        roc_auc_score(labels, other, multi_class="ovr"), abs=1e-12
    )
    assert sorted(c.label for c in found.classes) == names
    lines = found.lines(2)
    assert lines[0].startswith("mean AUROC of 3 classes: A ") and len(lines) == 3
    assert all("Holm's" in line for line in lines[1:])


def test_files_without_the_probabilities_are_compared_by_their_answers_alone() -> None:
    a, b, *_ = two(["normal", "ill"])
    for row in b.values():
        del row["probability_ill"]
    found = difference(a, b)
    assert found.auroc is None and "AUROC" not in found.text(5) and "McNemar" in found.text(5)
    a, b, *_ = two(["normal", "ill"], images=1)
    assert difference(a, b).auroc is None  # of one class
