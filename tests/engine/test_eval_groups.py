"""Evaluation of one class per image by patient: the column of the list, intervals over groups."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from densenet121.card import run_card
from densenet121.cli import main
from densenet121.config import StudyConfig
from densenet121.engine.folds import folds_of, study_images
from densenet121.engine.held_out import Pool
from densenet121.metrics.classes import rank_intervals
from densenet121.report import write_report
from densenet121.runs.study import HeldOut

from helpers.images import write_patient_list
from helpers.weights import write_weights


@pytest.fixture
def evaluated(image_folder: Path, tmp_path: Path) -> list[str]:
    """The words of an evaluation of a list with two images of each patient."""
    images = write_patient_list(image_folder)
    weights = write_weights(tmp_path / "w.safetensors")
    return ["eval", "--data_dir", str(images), "--pretrained", str(weights)]


def test_a_list_of_one_class_each_is_evaluated_by_patient(
    evaluated: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "eval"
    more = ["--group", "Patient ID", "--output_dir", str(folder)]
    assert main([*evaluated, *more]) == 0
    found = json.loads((folder / "eval.json").read_text())
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["Patient ID"] for row in rows] == [f"p{i // 2}" for i in range(len(rows))]
    assert found["n_groups"] == -(-len(rows) // 2)
    low, high = found["top1_ci"]
    assert low <= found["top1"] <= high
    log = capsys.readouterr().out
    assert f"{len(rows)} images of {found['n_groups']} groups" in log
    assert f"top1 {found['top1']:.4f} [{low:.4f}, {high:.4f}]" in log
    shown = f"{100 * low:.2f} to {100 * high:.2f} %"
    assert f"{shown}, over {found['n_groups']} groups" in write_report(folder).read_text()
    card = run_card(folder)
    assert shown in card and f"The intervals are over {found['n_groups']} groups." in card
    assert found["n_groups"] < 20 and "with fewer than 20 groups such intervals are too" in log
    same = ["compare", str(folder), str(folder), "--group", "Patient ID", "--format", "json"]
    assert main(same) == 0
    assert json.loads(capsys.readouterr().out)["n_groups"] == found["n_groups"]


@pytest.mark.parametrize("pattern", [r"(\d+)\.png", r"\d+\."])
def test_patients_are_found_in_the_paths_of_class_folders(
    pattern: str, evaluated: list[str], image_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    evaluated[2] = str(image_folder / "val")
    assert main([*evaluated, "--group", pattern, "--output_dir", str(tmp_path / "eval")]) == 0
    with (tmp_path / "eval" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    ids = [re.findall(pattern, row["path"])[0] for row in rows]
    assert [row[pattern] for row in rows] == ids
    found = json.loads((tmp_path / "eval" / "eval.json").read_text())
    assert found["n_groups"] == len(set(ids)) < len(rows)
    folder = str(tmp_path / "eval")
    capsys.readouterr()
    assert main(["compare", folder, folder, "--group", pattern, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_groups"] == found["n_groups"]
    assert main([*evaluated, "--group", r"scan(\d+)"]) == 1
    assert r"--group scan(\d+) is no column and finds no id in" in capsys.readouterr().err


def test_a_column_that_is_not_there_is_refused(
    evaluated: list[str], image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*evaluated, "--group", "patient"]) == 1
    error = capsys.readouterr().err
    assert "no column named patient (--group); it has Patient ID, view" in error
    assert main([*evaluated, "--by", "sex"]) == 1
    assert "no column named sex (--by); it has Patient ID, view" in capsys.readouterr().err
    evaluated[2] = str(image_folder)
    assert main([*evaluated, "--group", "patient"]) == 1
    assert "pass a .csv or .tsv list of the images that has the column" in capsys.readouterr().err
    # The ids that an expression finds were called its column.
    assert main([*evaluated, "--group", r"(\d+)", "--by", "sex"]) == 1
    error = capsys.readouterr().err
    assert "is no table of labels, so --by sex is not there" in error and "it has" not in error


@pytest.mark.parametrize("column", ["rank", "predicted", "probability"])
def test_a_column_of_groups_is_not_overwritten_by_one_of_the_predictions(
    column: str, evaluated: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = Path(evaluated[2])
    images.write_text(images.read_text().replace("Patient ID", column))
    assert main([*evaluated, "--group", column, "--output_dir", str(tmp_path / "eval")]) == 1
    error = capsys.readouterr().err
    assert f"{images}: the column {column} (--group) is called like a column that" in error
    names = "path, label, predicted, probability, rank, probability_ant, probability_bee"
    assert f"({names}, probability_cat); rename it" in error
    assert not (tmp_path / "eval").exists()


@pytest.mark.parametrize("field", ["--group", "--by"])
def test_a_column_that_predictions_would_take_for_probabilities_is_refused(
    field: str, evaluated: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report could not read a row of such a predictions.csv."""
    images, column = Path(evaluated[2]), "probability_of_reader"
    images.write_text(images.read_text().replace("view", column))
    assert main([*evaluated, field, column, "--output_dir", str(tmp_path / "eval")]) == 1
    error = capsys.readouterr().err
    assert f"{images}: the column {column} ({field}) begins with probability_" in error
    assert not (tmp_path / "eval").exists()


@pytest.mark.parametrize("column", ["rank", "score", "patient"])
def test_a_study_keeps_the_groups_whatever_their_column_is_called(
    column: str, tmp_path: Path
) -> None:
    rows = [f"{i}.png,{'ab'[i % 2]},{i // 2}" for i in range(12)]
    (tmp_path / "list.csv").write_text("\n".join([f"path,label,{column}", *rows]))
    for i in range(12):
        (tmp_path / f"{i}.png").write_bytes(b"x")
    config = StudyConfig(
        data_dir=str(tmp_path / "list.csv"), run_dir="study", group=column, folds=2, stratify=True
    )
    images = study_images(config)
    logits = np.eye(2, dtype=np.float32)[[1, *(i % 2 for i in range(1, 12))]]
    pool = Pool(config, images, folds_of(images, config), {1: HeldOut(3 * logits, {})})
    name = {"patient": ["patient"] * 2, "rank": ["group", "rank"], "score": ["score", "group"]}
    predictions, doubts = pool.columns(pool.ensemble), pool.label_errors()
    assert predictions[name[column][0]] == [str(i // 2) for i in range(12)]
    assert doubts["path"] == ["0.png"] and doubts[name[column][1]] == ["0"]
    assert predictions["rank"] == [2, *[1] * 11] or column == "patient"
    assert float(str(doubts["score"][0])) > 0


def test_images_of_one_group_that_are_alike_widen_the_interval() -> None:
    """200 groups of five copies know as much as 200 images: the standard error of their mean."""
    rng = np.random.default_rng(1)
    labels, rank = rng.integers(0, 3, 200), np.where(rng.random(200) < 0.7, 1, 2)
    answers = (labels + rank - 1) % 3
    one = rank_intervals(labels, answers, rank, np.arange(200))
    group = np.repeat(np.arange(200), 5)
    five = [np.repeat(row, 5) for row in (labels, answers, rank)]
    copies = rank_intervals(five[0], five[1], five[2], group)
    assert copies["top1_ci"] == pytest.approx(one["top1_ci"], abs=1e-12)
    for name in ("balanced_accuracy_ci", "quadratic_kappa_ci"):
        assert copies[name] == pytest.approx(one[name], abs=1e-12)
    share = (rank == 1).mean()
    width = 2 * 1.96 * np.sqrt(share * (1 - share) / 200)
    assert np.diff(one["top1_ci"])[0] == pytest.approx(width, rel=0.1)
    assert one["top5_ci"] == pytest.approx([1 / (1 + 1.96**2 / 200), 1.0], abs=1e-5)  # Wilson's
