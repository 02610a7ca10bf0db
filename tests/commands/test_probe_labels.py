"""probe for several labels per image: one logistic regression of scikit-learn's for each label."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from densenet121.checkpoint.load import read_weights
from densenet121.cli import main
from densenet121.engine.heads import STRENGTHS, choose_strength, fit_labels

from helpers.weights import write_weights

LABELS = ("red", "green", "blue")


def write_table(folder: Path, count: int, seed: int) -> Path:
    """Images whose channels are bright where they have the label; a tenth of the cells is blank."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    lines = [["path", *LABELS]]
    for i in range(count):
        truth = generator.integers(0, 2, 3)
        pixels = generator.integers(0, 90, (20, 20, 3), dtype=np.uint8)
        pixels += (truth[::-1] * 60).astype(np.uint8)  # OpenCV writes BGR
        cv2.imwrite(str(folder / f"{i}.png"), pixels)
        lines.append([f"{i}.png", *("" if generator.random() < 0.1 else str(y) for y in truth)])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("several")
    write_table(root / "train", 40, 1)
    write_table(root / "val", 24, 2)
    return root


def test_each_label_has_the_regression_of_scikit_learn_on_its_known_images() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 8)).astype(np.float32)
    targets = (x[:, :3] + rng.normal(size=(60, 3)) > 0).astype(np.float32)
    targets[rng.random((60, 3)) < 0.2] = np.nan
    head = fit_labels(x, targets, 0.5)
    logits = head.logits(x)
    for k in range(3):
        known = ~np.isnan(targets[:, k])
        reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, tol=1e-8))
        reference.fit(x[known].astype(np.float64), targets[known, k])
        expected = reference.decision_function(x.astype(np.float64))
        assert np.allclose(logits[:, k], expected, atol=1e-4)
    C, folds = choose_strength(x, targets, 1)
    assert C in STRENGTHS and folds == 5


@pytest.mark.parametrize("amp", ["fp32", "bf16"])
def test_eval_finds_the_metrics_that_were_printed(
    amp: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    output = tmp_path / "probe.safetensors"
    common = ["--data_dir", str(images), "--missing", "ignore", "--amp", amp, "--workers", "0"]
    command = ["probe", *common, "--task", "multilabel", "--pretrained", str(weights)]
    assert main([*command, "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    stored = read_weights(output)
    assert stored.info is not None
    assert (stored.info.task, stored.info.class_names) == ("multilabel", LABELS)
    folder = ["--output_dir", str(tmp_path / "eval")]
    assert main(["eval", *common, "--pretrained", str(output), *folder]) == 0
    found = json.loads((tmp_path / "eval" / "eval.json").read_text())
    for name in ("loss", "auroc", "average_precision", "total"):
        assert found[name] == stored.origin[name], name
    assert found["auroc"] > 0.9
    assert f"val: auroc={found['auroc']:.4f}" in printed
    assert torch.equal(
        stored.state_dict["features.conv0.weight"],
        read_weights(weights).state_dict["features.conv0.weight"],
    )


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--task", "multilabel"], 1, "--missing"),
        (["--task", "multilabel", "--method", "knn"], 2, "--method knn needs one class per image"),
        (["--missing", "ignore"], 2, "need --task multilabel"),
    ],
)
def test_a_wrong_setting_is_one_line(
    flags: list[str],
    status: int,
    message: str,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    command = ["probe", "--data_dir", str(images), "--pretrained", str(weights), *flags]
    assert main(command) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


def test_a_label_that_is_never_positive_is_refused(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    rows = [f"{images}/train/{i}.png,{i % 2},0" for i in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,some,never", *rows]) + "\n")
    command = ["probe", "--data_dir", str(tmp_path), "--val_dir", str(tmp_path)]
    command += ["--task", "multilabel", "--pretrained", str(weights)]
    assert main([*command, "--labels", "some,never"]) == 1
    assert "no training image of label never, positive" in capsys.readouterr().err
    rows = [f"{images}/train/{i}.png,{i % 2},{int(i == 0)}" for i in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,some,once", *rows]) + "\n")
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "a single training image of label once, positive, so --C cannot be chosen" in error
    assert main([*command, "--C", "0.1", "--output", str(tmp_path / "o.safetensors")]) == 0


def test_a_table_without_the_task_is_named(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    assert main(["probe", "--data_dir", str(images), "--pretrained", str(weights)]) == 2
    assert "is a table of labels; pass --task multilabel" in capsys.readouterr().err
