"""Offsets in the bias of the classifier: means that are shares, in all that takes the weights."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from densenet121.checkpoint.load import read_weights
from densenet121.cli import main
from densenet121.commands.calibrate import calibrate
from densenet121.config import CalibrateConfig
from densenet121.inference.predictor import Predictor
from densenet121.tasks import SingleLabel
from densenet121.tasks.single_label.calibrate import halves
from densenet121.utils.errors import InputError

from helpers.tables import COLOURS, write_label_table
from helpers.weights import write_weights


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of 90 images, a fifth of them wrong, so that no network tells them apart."""
    path = write_label_table(tmp_path_factory.mktemp("labels") / "images", 90, 2)
    rows, generator = rows_of(path), np.random.default_rng(3)
    for row in rows:
        for name in COLOURS:
            if row[name] and generator.random() < 0.2:
                row[name] = str(1 - int(row[name]))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def shifted(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that know the labels of the table, with 1.5 added to each logit."""
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder / "random.safetensors", class_names=COLOURS, task="multilabel")
    command = [
        "probe",
        "--data_dir",
        str(table),
        "--val_dir",
        str(table),
        "--missing",
        "ignore",
        "--workers",
        "1",
    ]
    command += ["--pretrained", str(folder / "random.safetensors"), "--image_size", "16"]
    fitted = folder / "probe.safetensors"
    command += ["--task", "multilabel", "--output", str(fitted), "--labels", ",".join(COLOURS)]
    assert main(command) == 0
    state = read_weights(fitted).state_dict
    state["classifier.bias"] += 1.5
    info: dict[str, Any] = {"class_names": COLOURS, "task": "multilabel"}
    return write_weights(folder / "shifted.safetensors", state=state, **info)


def calibrated(weights: Path, images: Path, output: Path, **more: Any) -> Path:
    settings: dict[str, Any] = {"workers": 1, "amp": "fp32", "fit_bias": 1} | more
    settings |= {"data_dir": str(images), "pretrained": str(weights), "output": str(output)}
    calibrate(CalibrateConfig(**settings))
    return output


def evaluated(weights: Path, images: Path, folder: Path, *more: str) -> list[dict[str, str]]:
    command = ["eval", "--data_dir", str(images), "--pretrained", str(weights), "--amp", "fp32"]
    assert main([*command, "--output_dir", str(folder), "--workers", "1", *more]) == 0
    return rows_of(folder / "predictions.csv")


def of(rows: Sequence[Mapping[str, str]], name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    known = [row for row in rows if row[name]]
    truth = np.array([int(row[name]) for row in known])
    return truth, np.array([float(row[f"probability_{name}"]) for row in known])


def test_the_mean_probability_of_each_label_is_its_share_and_its_auroc_stays(
    table: Path, shifted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = calibrated(shifted, table, tmp_path / "new.safetensors", missing="ignore")
    printed = capsys.readouterr().out
    before = evaluated(shifted, table, tmp_path / "a", "--missing", "ignore")
    after = evaluated(new, table, tmp_path / "b", "--missing", "ignore")
    old, found = read_weights(shifted).state_dict, read_weights(new).state_dict
    for k, name in enumerate(COLOURS):
        truth, shares = of(after, name)
        raw = of(before, name)[1]
        assert raw.mean() > truth.mean() + 0.1  # before
        assert shares.mean() == pytest.approx(truth.mean(), abs=1e-5)
        assert roc_auc_score(truth, shares) == roc_auc_score(truth, raw)
        offset = float(found["classifier.bias"][k] - old["classifier.bias"][k])
        assert -4 < offset < -0.5
        (line,) = (
            line
            for line in printed.splitlines()
            if line.startswith(f"{name} ".ljust(7)) and "offset" in line
        )
        assert f"offset {offset:+.4f}" in line
        assert f"mean probability {raw.mean():.4f} before, {truth.mean():.4f} with offset" in line
    changed = [name for name in old if not torch.equal(old[name], found[name])]
    assert changed == ["classifier.bias"]


def test_what_was_added_to_the_bias_stays_recorded_when_the_weights_are_calibrated_again(
    table: Path, shifted: Path, tmp_path: Path
) -> None:
    first = calibrated(shifted, table, tmp_path / "first.safetensors", missing="ignore")
    again, plain = (
        calibrated(first, table, tmp_path / f"{bias}.safetensors", missing="ignore", fit_bias=bias)
        for bias in (1, 0)
    )
    before = read_weights(shifted).state_dict["classifier.bias"].double().numpy()
    for file in (first, again, plain):
        weights = read_weights(file)
        assert weights.calibration is not None
        added = weights.state_dict["classifier.bias"].double().numpy() - before
        assert weights.calibration["note"]["offsets"] == pytest.approx(added, abs=1e-6)


def test_without_offsets_wrong_means_are_named_with_what_to_pass(
    table: Path, shifted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrated(shifted, table, tmp_path / "n.safetensors", missing="ignore", fit_bias=0)
    printed = capsys.readouterr().out
    assert "the mean probability of a label is not its share of these images" in printed
    assert "by more than chance if each is of another patient or place: " in printed
    assert "pass --fit_bias 1" in printed and all(f"{name} (0." in printed for name in COLOURS)
    calibrated(shifted, table, tmp_path / "o.safetensors", missing="ignore")
    assert "fit_bias" not in capsys.readouterr().out


def test_views_are_averaged_with_the_new_bias(
    table: Path, shifted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The offset of an average of probabilities is not the average of offsets.

    And the means that are printed are those of the temperatures that are stored.
    """
    new = calibrated(shifted, table, tmp_path / "n.safetensors", missing="ignore", tta="flip")
    lines = capsys.readouterr().out
    rows = evaluated(new, table, tmp_path / "b", "--missing", "ignore")
    for name in COLOURS:
        truth, shares = of(rows, name)
        assert shares.mean() == pytest.approx(truth.mean(), abs=0.01)
        (printed,) = re.findall(rf"{name} .* before, ([.0-9]+) with offset and temp", lines)
        assert float(printed) == pytest.approx(shares.mean(), abs=0.6e-4)
    stored = read_weights(new).calibration
    assert stored is not None and len(stored["note"]["offsets"]) == 3


def test_operating_points_are_chosen_on_the_new_probabilities(
    table: Path, shifted: Path, tmp_path: Path
) -> None:
    rule = {"missing": "ignore", "operating_point": "sensitivity=0.8"}
    new = calibrated(shifted, table, tmp_path / "n.safetensors", **rule)
    rows = evaluated(new, table, tmp_path / "b", "--missing", "ignore")
    stored = read_weights(new).calibration
    assert stored is not None
    for name, point in zip(COLOURS, stored["points"], strict=True):
        truth, shares = of(rows, name)
        hits = int((shares[truth == 1] >= point["threshold"]).sum())
        assert hits == point["true_positives"] >= 0.8 * truth.sum()


def fit_of_classes(counts: tuple[int, int, int], shift: float, seed: int) -> Any:
    """Logits and classes of so many images each, the last class ``shift`` too high."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat([0, 1, 2], counts))
    logits = generator.normal(0, 1, (len(labels), 3)) + np.eye(3)[labels]
    logits[:, 2] += shift
    return logits.astype(np.float32), labels


def test_the_mean_probability_of_each_class_is_its_share_of_the_fitted_half() -> None:
    logits, labels = fit_of_classes((300, 200, 40), 3.0, 1)
    names, task = ("ant", "bee", "cat"), SingleLabel()
    targets = torch.from_numpy(labels)
    found = task.offsets(logits, targets, seed=4, class_names=names)
    after = (logits + found.values).astype(np.float32)
    lines = found.effect(logits, after, None)
    calibration, _ = task.calibrate(
        after, targets, seed=4, target_accuracy=None, note={"offsets": []}, class_names=names
    )
    fitted, kept = halves(540, 4)
    shares = task.probabilities(after[fitted], calibration).mean(axis=0)
    assert shares == pytest.approx(np.bincount(labels[fitted]) / 270, abs=1e-5)
    answers = [part[kept].argmax(axis=1) for part in (logits, after)]
    right = [int((a == labels[kept]).sum()) for a in answers]
    assert right[1] > right[0] + 50
    assert f"accuracy {100 * right[0] / 270:.2f} %, balanced" in lines[-1]
    assert f"{100 * right[1] / 270:.2f} %, balanced" in lines[-1]
    cats = [(a == 2).sum() for a in answers]
    assert f"{(labels[kept] == 2).sum()} images, the answer {cats[0]} times before, " in lines[-2]
    assert f"{cats[1]} times with it" in lines[-2] and lines[-2].startswith("cat  offset -")


def test_the_error_before_the_temperature_is_not_called_that_of_the_network_before() -> None:
    logits, labels = fit_of_classes((300, 200, 40), 0.0, 1)
    for note, said in (
        ({"offsets": [1.0, 0.0, -1.0]}, "% with the offsets alone, "),
        ({}, "% before, "),
    ):
        _, lines = SingleLabel().calibrate(
            logits,
            torch.from_numpy(labels),
            seed=4,
            target_accuracy=None,
            note=note,
            class_names=("ant", "bee", "cat"),
        )
        assert said in lines[0]


def test_without_offsets_a_class_with_a_wrong_mean_is_named() -> None:
    names, task = ("ant", "bee", "cat"), SingleLabel()
    for shift, expected in ((3.0, True), (0.0, False)):
        generator = np.random.default_rng(1)
        logits = generator.normal(0, 2, (800, 3))
        labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
        logits[:, 2] += shift
        _, lines = task.calibrate(
            logits.astype(np.float32),
            torch.from_numpy(labels),
            seed=1,
            target_accuracy=None,
            note={},
            class_names=names,
        )
        assert any("pass `fit_bias` 1" in line for line in lines) == expected


def test_a_class_without_an_image_to_fit_on_is_named() -> None:
    logits, labels = fit_of_classes((20, 20, 1), 0.0, 1)
    seed = next(s for s in range(9) if 2 not in labels[halves(41, s)[0]])
    with pytest.raises(InputError, match="no image of cat in the half of these 41 images"):
        SingleLabel().offsets(
            logits, torch.from_numpy(labels), seed=seed, class_names=("ant", "bee", "cat")
        )


def test_offsets_that_rest_on_few_images_are_called_rough() -> None:
    logits, labels = fit_of_classes((100, 100, 8), 1.0, 1)
    found = SingleLabel().offsets(
        logits, torch.from_numpy(labels), seed=1, class_names=("ant", "bee", "cat")
    )
    few = (labels[halves(208, 1)[0]] == 2).sum()
    assert f"rough: cat ({few}); pass more" in found.effect(logits, logits, None)[0]


def test_classes_end_to_end_and_no_score_of_the_bias_before_stays(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_weights(tmp_path / "w.safetensors")
    command = ["calibrate", "--data_dir", str(image_folder), "--pretrained", str(source)]
    assert main([*command, "--fit_bias", "1", "--workers", "1", "--amp", "fp32"]) == 0
    printed = capsys.readouterr().out
    new = tmp_path / "w_calibrated.safetensors"
    weights = read_weights(new)
    assert weights.origin == {} and weights.calibration is not None
    offsets = weights.calibration["note"]["offsets"]
    before = read_weights(source).state_dict["classifier.bias"]
    assert weights.state_dict["classifier.bias"].numpy() == pytest.approx(
        before.numpy() + np.array(offsets), abs=1e-6
    )
    assert "offset" in printed
    paths = sorted((image_folder / "val").rglob("*.png"))
    plain, shifted = (Predictor(w, amp="fp32") for w in (source, new))
    logits = [np.concatenate([x for _, x in p.batches(paths)]) for p in (plain, shifted)]
    assert logits[1] == pytest.approx(logits[0] + np.array(offsets), abs=1e-4)
    assert main(["inspect", str(new)]) == 0
    assert "offsets in the classifier's bias" in capsys.readouterr().out
