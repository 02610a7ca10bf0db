"""Each class against the others: scikit-learn's figures, in training, eval, metrics and pages."""

import csv
import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    cohen_kappa_score,
    confusion_matrix,
    roc_auc_score,
)

from densenet121.card import run_card
from densenet121.cli import main
from densenet121.metrics.decisions import wilson_interval
from densenet121.metrics.ranking import delong_interval
from densenet121.report import write_report
from densenet121.tasks import Scores, SingleLabel
from densenet121.tasks.single_label.calibration import probabilities
from densenet121.tasks.single_label.each_class import (
    logits_for_each,
    metrics_of_rows,
    metrics_with_intervals,
)
from densenet121.tasks.single_label.predictions import Row, read_row
from densenet121.tasks.values import CheckpointScore, Results
from densenet121.utils.errors import InputError

from helpers.images import write_patient_list
from helpers.weights import write_weights

NAMES = ["ant", "bee", "cat"]


def scored(classes: int, images: int = 60, seed: int = 1) -> tuple[Scores, torch.Tensor]:
    """Scores of random logits in three batches, of which some are equal."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    logits = random.normal(size=(images, classes))
    logits[np.arange(images), labels] += 1
    batches = torch.split(torch.from_numpy(logits.round(1).astype(np.float32)), images // 3)
    targets = torch.from_numpy(labels)
    parts = zip(batches, torch.split(targets, images // 3), strict=True)
    return Scores.joined([SingleLabel().score(*part) for part in parts]), targets


def test_the_kappa_of_grades_takes_ten_for_more_than_six() -> None:
    """Byte order puts 10 first: kappa was that of the grades 10, 6, 7, 8, 9."""
    scores, targets = scored(5)
    names = ["10", "6", "7", "8", "9"]
    number = np.array(list(map(int, names)))
    truth, answers = targets.numpy(), scores.columns["predicted"]
    ids, sex = [str(index // 2) for index in range(60)], ["m", "f"] * 30
    kappa = cohen_kappa_score(number[truth], number[answers], weights="quadratic")
    found = SingleLabel().metrics(scores, targets, names)
    found |= SingleLabel().metrics_with_intervals(
        scores, targets, names, group=ids, by={"sex": sex}
    )
    assert found["quadratic_kappa"] == pytest.approx(kappa, abs=1e-12)
    low, high = found["quadratic_kappa_ci"]
    assert low < kappa < high
    women = cohen_kappa_score(number[truth[1::2]], number[answers[1::2]], weights="quadratic")
    of_women = found["by"]["sex"]["f"]
    assert of_women["quadratic_kappa"] == pytest.approx(women, abs=1e-12)
    assert of_women["quadratic_kappa_ci"][0] < women < of_women["quadratic_kappa_ci"][1]


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_auroc_and_kappa_are_those_of_scikit_learn(classes: int) -> None:
    scores, targets = scored(classes)
    names = [f"c{k}" for k in range(classes)]
    metrics = SingleLabel().metrics(scores, targets, names)
    found = metrics["auroc"]
    answers = scores.columns["predicted"]
    kappa = cohen_kappa_score(targets.numpy(), answers, weights="quadratic")
    assert metrics["quadratic_kappa"] == pytest.approx(kappa, abs=1e-12)
    shares = probabilities(scores.columns["logits"])
    if classes == 2:
        expected = roc_auc_score(targets.numpy(), shares[:, 1])
    else:
        expected = roc_auc_score(targets.numpy(), shares, multi_class="ovr")
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_each_class_has_the_figures_of_scikit_learn_and_their_intervals(classes: int) -> None:
    scores, targets = scored(classes)
    names, labels = NAMES[:classes], targets.numpy()
    found = SingleLabel().metrics_with_intervals(scores, targets, names)
    logits = scores.columns["logits"]
    shares, answers = probabilities(logits), logits.argmax(axis=1)
    for k, name in enumerate(names):
        one, truth = found["labels"][name], (labels == k).astype(np.float64)
        assert one["auroc"] == pytest.approx(roc_auc_score(truth, shares[:, k]), abs=1e-12)
        assert one["auroc_ci"] == list(delong_interval(truth, shares[:, k]) or ())
        precision = average_precision_score(truth, shares[:, k])
        assert one["average_precision"] == pytest.approx(precision, abs=1e-12)
        tn, fp, fn, tp = confusion_matrix(truth, answers == k).ravel().tolist()
        assert [one[cell] for cell in ("tn", "fp", "fn", "tp")] == [tn, fp, fn, tp]
        assert one["sensitivity"] == tp / (tp + fn) and one["specificity"] == tn / (tn + fp)
        assert one["ppv"] == tp / (tp + fp) and one["npv"] == tn / (tn + fn)
        assert one["sensitivity_ci"] == list(wilson_interval(tp, tp + fn) or ())
    means = found["macro"]
    assert means["auroc"] == np.mean([found["labels"][name]["auroc"] for name in names])
    assert (means["auroc_ci"] is None) == (classes == 3)
    if classes == 2:  # of which both have the same AUROC
        assert means["auroc_ci"] == found["labels"]["ant"]["auroc_ci"]
        np.testing.assert_allclose(means["auroc_ci"], found["labels"]["bee"]["auroc_ci"])


def test_a_class_without_images_is_left_out_of_the_mean_and_one_class_has_none() -> None:
    scores, targets = scored(3)
    keep = np.flatnonzero(targets.numpy() != 2)
    few = scores.ordered(keep)
    found = SingleLabel().metrics_with_intervals(few, targets[keep], NAMES)
    assert found["macro"]["left_out"] == ["cat"] and found["labels"]["cat"]["auroc"] is None
    two = [found["labels"][name]["auroc"] for name in NAMES[:2]]
    assert SingleLabel().metrics(few, targets[keep], NAMES)["auroc"] == np.mean(two)
    keep = np.flatnonzero(targets.numpy() == 1)
    assert SingleLabel().metrics(scores.ordered(keep), targets[keep], NAMES)["auroc"] is None


def test_more_than_a_hundred_classes_have_accuracies_alone() -> None:
    scores, targets = scored(101, 9)
    names = [f"c{k}" for k in range(101)]
    assert "auroc" not in SingleLabel().metrics(scores, targets, names)
    found = SingleLabel().metrics_with_intervals(
        scores, targets, names, by={"view": ["PA"] * 5 + ["AP"] * 4}
    )
    assert found.keys() == {"by"}
    assert found["by"]["view"]["PA"]["total"] == 5 and "auroc" not in found["by"]["view"]["PA"]
    columns = SingleLabel().csv_columns(scores, targets, names)
    assert list(columns) == ["label", "predicted", "probability", "rank"]


def test_millions_of_probabilities_are_not_kept_as_text() -> None:
    most = np.broadcast_to(np.float32(0), (50_000, 100))
    assert logits_for_each({"logits": most}) is most
    assert logits_for_each({"logits": np.broadcast_to(np.float32(0), (50_001, 100))}) is None
    assert logits_for_each({"rank": np.ones(3)}) is None


@pytest.mark.parametrize("grouped", [False, True])
def test_a_subgroup_has_the_figures_of_its_images_alone(grouped: bool) -> None:
    scores, targets = scored(3)
    sexes = np.array(["F", "M", ""])[np.arange(60) % 3]
    ids = [str(number // 2) for number in range(60)]
    of = SingleLabel()
    found = of.metrics_with_intervals(
        scores, targets, NAMES, group=ids if grouped else None, by={"Sex": sexes.tolist()}
    )
    assert list(found["by"]["Sex"]) == ["", "F", "M"]
    for sex, part in found["by"]["Sex"].items():
        keep = np.flatnonzero(sexes == sex)
        own, labels = scores.ordered(keep), targets[keep]
        group = [ids[at] for at in keep] if grouped else None
        expected = of.metrics(own, labels, NAMES)
        del expected["loss"]  # which is not known of a part of the images
        expected |= of.metrics_with_intervals(own, labels, NAMES, group=group)
        assert part == expected
        assert ("n_groups" in part) == grouped == (part["macro"]["auroc_ci"] is not None)


@pytest.fixture
def evaluated(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The folder of an evaluation of a list with a patient and a view of each image."""
    images = write_patient_list(image_folder, ["PA", "AP"])
    folder = tmp_path / "eval"
    weights = write_weights(tmp_path / "w.safetensors", seed=3)
    flags = ["--data_dir", str(images), "--pretrained", str(weights)]
    assert main(["eval", *flags, "--by", "view", "--output_dir", str(folder)]) == 0
    (tmp_path / "log").write_text(capsys.readouterr().out)
    return folder


def test_metrics_reads_the_predictions_of_eval_to_the_same_figures(
    evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads((evaluated / "eval.json").read_text())
    flags = ["--probability_prefix", "probability_", "--label_column", "label", "--json"]
    assert main(["metrics", str(evaluated / "predictions.csv"), *flags]) == 0
    other = json.loads(capsys.readouterr().out)
    assert found["auroc"] == other["macro"]["auroc"] is not None
    for name, one in found["labels"].items():
        for metric in ("auroc", "auroc_ci", "average_precision", "brier", "log_loss", "ece"):
            assert one[metric] == other["labels"][name][metric]


def test_eval_logs_each_class_and_the_pages_show_it(evaluated: Path, tmp_path: Path) -> None:
    found = json.loads((evaluated / "eval.json").read_text())
    log = (tmp_path / "log").read_text()
    assert f"after allreduce eval: auroc={found['auroc']:.4f}" in log
    one = found["labels"]["bee"]
    ends = " [{:.4f}, {:.4f}]".format(*one["auroc_ci"]) if one["auroc_ci"] else ""
    page, card = write_report(evaluated).read_text(), run_card(evaluated)
    shown = re.escape(f"{one['auroc']:.4f}{ends}")
    assert re.search(rf"bee +{one['n_positive']} +{shown} ", log)
    assert "view = AP" in log and "view = PA" in log
    for text in (page, card):
        assert "Each class against the others" in text and "Subgroups" in text
        assert f"{one['auroc']:.4f}" in text and "view = PA" in text
        assert "quadratic weights (classes as grades, in their order)" in html.unescape(text)
        assert f"{found['quadratic_kappa']:.4f}" in text
    assert (evaluated / "class_curves.png").stat().st_size > 10_000
    part = found["by"]["view"]["PA"]
    low, high = wilson_interval(part["top1_correct"], part["total"]) or (0, 0)
    share = f"{100 * part['top1']:.2f} % | {100 * low:.2f} to {100 * high:.2f} % |"
    assert f"| view = PA | {part['total']} | {share}" in card
    assert f"top1 {part['top1']:.4f} [{low:.4f}, {high:.4f}] ({part['top1_correct']})" in log


def test_the_report_of_several_weights_has_the_auroc_of_each(
    image_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "weights").mkdir()
    for seed in (1, 2):
        write_weights(tmp_path / "weights" / f"{seed}.safetensors", seed=seed)
    flags = ["--pretrained", str(tmp_path / "weights"), "--output_dir", str(tmp_path / "out")]
    assert main(["eval", "--data_dir", str(image_folder / "val"), *flags]) == 0
    found = json.loads((tmp_path / "out" / "eval.json").read_text())["results"]
    page = write_report(tmp_path / "out").read_text()
    assert ">AUROC, mean</th>" in page and len({one["auroc"] for one in found}) == 2
    for one in found:
        assert f"{one['auroc']:.4f}</td>" in page


def test_rows_without_the_probabilities_have_no_auroc(evaluated: Path) -> None:
    with (evaluated / "predictions.csv").open(newline="") as file:
        rows = [read_row(row) for row in csv.DictReader(file)]
    found = [row for row in rows if row is not None]
    assert len(found) == len(rows) and metrics_of_rows(found, NAMES) is not None
    assert metrics_of_rows(found, ["ant", "bee"]) is None
    old = [Row(*row[:5]) for row in found]
    assert metrics_of_rows(old, NAMES) is None


def test_sure_answers_of_two_classes_have_one_auroc_in_training_and_in_eval() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 200)
    logits = (40 * random.normal(size=(200, 2))).astype(np.float32)
    logits[np.arange(200), labels] += 50
    targets = torch.from_numpy(labels)
    scores = SingleLabel().score(torch.from_numpy(logits), targets)
    above = logits.astype(np.float64)[:, 1] - logits[:, 0]
    expected = roc_auc_score(labels, above)
    found = SingleLabel().metrics(scores, targets, ["ant", "bee"])["auroc"]
    assert found == pytest.approx(expected, abs=1e-12)
    answers, rank = scores.columns["predicted"], scores.columns["rank"]
    each = metrics_with_intervals(labels, answers, rank, logits, ["ant", "bee"], None, {})
    ant, bee = each["labels"]["ant"], each["labels"]["bee"]
    assert ant["auroc"] == pytest.approx(expected, abs=1e-12)
    assert bee["auroc"] == pytest.approx(expected, abs=1e-12)
    assert each["macro"]["auroc_ci"] == pytest.approx(bee["auroc_ci"], abs=1e-12)


@pytest.mark.parametrize("cell", ["", "nan", "1.5", "-0.1", "much"])
def test_a_row_whose_probability_is_none_is_damaged(cell: str) -> None:
    row = {"path": "a.png", "label": "ant", "predicted": "ant", "probability": "1", "rank": "1"}
    assert read_row(row | {"probability_ant": "1"}) is not None
    assert read_row(row | {"probability_ant": cell}) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"auroc": 1.5},
        {"quadratic_kappa": -1.5},
        {"quadratic_kappa_ci": [0.5]},
        {"labels": {"ant": {}}},
        {"labels": []},
        {"macro": {"auroc": 0.5}},
        {"by": {"view": {"PA": {"total": -1}}}},
        {"by": {"view": {"PA": {"total": 4, "top1": 2}}}},
        {"by": {"view": {"PA": 4}}},
        {"by": 7},
    ],
)
def test_a_damaged_eval_json_is_refused(damage: dict[str, Any], evaluated: Path) -> None:
    content = json.loads((evaluated / "eval.json").read_text())
    (evaluated / "eval.json").write_text(json.dumps(content | damage))
    with pytest.raises(InputError, match="not the result of an evaluation"):
        write_report(evaluated)


def test_sure_answers_keep_their_order_in_float64() -> None:
    logits = np.array([[18.0, 0.0], [19.0, 0.0], [0.0, 20.0]], dtype=np.float32)
    shares: NDArray[np.float64] = probabilities(logits)
    assert len(np.unique(shares[:, 0])) == 3


def test_intervals_of_a_subgroup_with_few_positives_are_called_too_narrow() -> None:
    """Enough of all images have the class, but few of the women: nothing said so."""
    of, names, ids = SingleLabel(), NAMES[:2], [str(number) for number in range(200)]
    targets = (torch.arange(200) % 4 == 0).long()
    logits = np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32)
    scores = of.score(torch.from_numpy(logits), targets)
    by = {"Sex": ["F"] * 40 + ["M"] * 160}
    content = of.metrics(scores, targets, names)
    content |= of.metrics_with_intervals(scores, targets, names, group=ids, by=by)
    assert content["few_groups"] == []
    lines = of.table_lines(content)
    said = [at for at, line in enumerate(lines) if "too narrow are the intervals of labels" in line]
    assert len(said) == 1 and lines.index("Sex = F") < said[0] < lines.index("Sex = M")
    score = CheckpointScore("best", "", 0.4, of.check_metrics(content))
    rows = [Row(name, "ant", "ant", 0.9, 1) for name in ids]
    results = Results(validations=[], scores=[score], predictions=rows, class_names=names)
    warning = "with positives, or negatives, of fewer than 20 groups or images: Sex = F."
    assert warning in of.card(results).tables[-1].text
    assert warning in "".join(of.report(results).sections)


def test_the_card_names_classes_whose_intervals_are_over_few_groups() -> None:
    scores, targets = scored(3)
    ids = [str(number // 2) for number in range(60)]
    found = SingleLabel().metrics_with_intervals(scores, targets, NAMES, group=ids)
    content = SingleLabel().metrics(scores, targets, NAMES) | found
    score = CheckpointScore("best", "", 0.4, SingleLabel().check_metrics(content))
    results = Results(validations=[], scores=[score], predictions=[], class_names=NAMES)
    text = SingleLabel().card(results).tables[0].text
    assert found["few_groups"]
    assert f"fewer than 20 groups: {', '.join(found['few_groups'])}." in text
