"""The comparison of two evaluations of several labels."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from densenet121.tasks import MultiLabel
from densenet121.utils.errors import InputError

Rows = dict[str, dict[str, str]]


def rows(shares: list[float]) -> dict[str, dict[str, str]]:
    """Five images of one label, the first two positive."""
    return {
        f"{i}.png": {"path": f"{i}.png", "mass": str(int(i < 2)), "probability_mass": str(share)}
        for i, share in enumerate(shares)
    }


def test_a_label_whose_difference_has_no_variance_is_shown_with_dashes() -> None:
    found = MultiLabel().compare(
        rows([0.9, 0.8, 0.3, 0.2, 0.1]), rows([0.5] * 5), resamples=50, seed=1
    )
    assert "mass  A 1.0000  B 0.5000  -0.5000 (-), p = -" in found.text(5)
    (label,) = found.to_json()["labels"]
    assert label["difference"] == -0.5
    assert label["low"] is label["high"] is label["p_value"] is None


def two_labels(order: tuple[str, str], seed: int) -> Rows:
    """Forty images whose labels are the same for each seed; the columns stand in this order."""
    truth = np.random.default_rng(0).integers(0, 2, (40, 2))
    share = np.random.default_rng(seed).random((40, 2))
    places = [("mass", "edema").index(name) for name in order]
    found: Rows = {}
    for i in np.random.default_rng(seed).permutation(40).tolist():
        row = {"path": f"{i}.png"}
        row |= {name: str(truth[i, k]) for name, k in zip(order, places, strict=True)}
        for name, k in zip(order, places, strict=True):
            row[f"probability_{name}"] = repr(float(share[i, k]))
        found[row["path"]] = row
    return found


def test_labels_are_matched_by_name_whatever_their_order() -> None:
    a, b = two_labels(("mass", "edema"), 1), two_labels(("edema", "mass"), 2)
    found = MultiLabel().compare(a, b, resamples=200, seed=1).to_json()
    same = MultiLabel().compare(a, two_labels(("mass", "edema"), 2), resamples=200, seed=1)
    assert found == same.to_json()
    for one in found["labels"]:
        for rows, area in ((a, one["auroc_a"]), (b, one["auroc_b"])):
            truth = [int(row[one["label"]]) for row in rows.values()]
            share = [float(row["probability_" + one["label"]]) for row in rows.values()]
            assert area == pytest.approx(roc_auc_score(truth, share), abs=1e-12)


def test_labels_that_differ_are_named() -> None:
    a, b = two_labels(("mass", "edema"), 1), two_labels(("mass", "edema"), 2)
    b["0.png"]["edema"] = ""
    truth = a["0.png"]["edema"]
    with pytest.raises(InputError, match=f"its label edema is {truth} in A but unknown in B"):
        MultiLabel().compare(a, b, resamples=100, seed=1)
    for row in b.values():
        del row["edema"], row["probability_edema"]
    with pytest.raises(InputError, match="the label edema is only in A"):
        MultiLabel().compare(a, b, resamples=100, seed=1)


def test_what_does_not_vary_has_no_interval_and_the_text_says_why() -> None:
    a, b = two_labels(("mass", "edema"), 1), two_labels(("mass", "edema"), 2)
    same = MultiLabel().compare(a, a, resamples=100, seed=1)
    assert same.to_json()["low"] is same.to_json()["high"] is None
    text = same.text(5)
    assert "+0.0000, no interval, since A and B tell positives from negatives alike, for" in text
    assert text.count("+0.0000 (-), p = 1, Holm's 1") == 2
    one = MultiLabel().compare(a, b, resamples=100, seed=1, groups=dict.fromkeys(a, "7"))
    assert "no interval, since all images are of one group\n" in one.text(5)


def test_labels_with_few_positives_are_named_beside_the_interval_of_the_mean() -> None:
    a, b = two_labels(("mass", "edema"), 1), two_labels(("mass", "edema"), 2)
    said = "may be too narrow, with positives, or negatives, of fewer than 20 "
    found = MultiLabel().compare(a, b, resamples=100, seed=1)
    positives = {name: sum(row[name] == "1" for row in a.values()) for name in ("mass", "edema")}
    few = [name for name, count in positives.items() if count != 20]  # of 40 images
    assert few and set(found.to_json()["few_positives"]) == set(few)
    assert f"{said}images: " in found.text(5)
    groups = {path: str(int(path[:-4]) // 2 * 2) for path in a}
    assert f"{said}groups: " in MultiLabel().compare(
        a, b, resamples=100, seed=1, groups=groups
    ).text(5)
    rare = {path: groups[path] if row["mass"] == "1" else "0" for path, row in a.items()}
    few_groups = MultiLabel().compare(a, b, resamples=100, seed=1, groups=rare).text(5)
    assert "with fewer than 20 groups such" in few_groups and said not in few_groups


def test_a_label_without_p_is_none_of_those_that_were_tested() -> None:
    a, b = two_labels(("mass", "edema"), 1), two_labels(("mass", "edema"), 2)
    for number, path in enumerate(sorted(a)):  # of this one the difference has no variance
        for found, score in ((a, number % 2), (b, 0.5)):
            found[path] |= {"nodule": str(number % 2), "probability_nodule": str(score)}
    result = MultiLabel().compare(a, b, resamples=100, seed=1)
    labels = {one["label"]: one for one in result.to_json()["labels"]}
    assert labels["nodule"]["p_value"] is None
    low = min(labels["mass"]["p_value"], labels["edema"]["p_value"])
    assert any(labels[name]["p_holm"] == min(1.0, 2 * low) for name in ("mass", "edema"))
    assert "Holm's that of the label as one of 2 that were tested" in result.text(5)


def test_each_p_stands_beside_one_that_is_corrected_for_the_number_of_labels() -> None:
    """Holm's of two: the smaller p twice, and the larger one, but not below the other."""
    a, b = two_labels(("mass", "edema"), 1), two_labels(("mass", "edema"), 2)
    found = MultiLabel().compare(a, b, resamples=100, seed=1)
    low, high = sorted(found.to_json()["labels"], key=lambda label: float(label["p_value"]))
    assert low["p_holm"] == min(1, 2 * low["p_value"])
    assert high["p_holm"] == max(low["p_holm"], high["p_value"])
    text = found.text(5)
    assert f"p = {low['p_value']:.4g}, Holm's {low['p_holm']:.4g}" in text
    assert "Holm's that of the label as one of 2 that were tested" in text
    for row in (*a.values(), *b.values()):
        del row["edema"], row["probability_edema"]
    assert "Holm" not in MultiLabel().compare(a, b, resamples=100, seed=1).text(5)
