"""study: to the bit split, train and eval by hand, exact on resuming, one line for faults."""

import csv
import json
import os
import random
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
)

from densenet121.checkpoint.native import read
from densenet121.cli import main, parse
from densenet121.commands.study import study
from densenet121.config import StudyConfig, TrainConfig
from densenet121.engine.evaluate import evaluate
from densenet121.engine.train import train
from densenet121.runs.layout import checkpoints_in

from helpers.commands import environment
from helpers.forking import Forked
from helpers.ranks import start_ranks
from helpers.tables import COLOURS, write_class_table, write_label_table
from helpers.weights import eval_config, write_weights

SMALL: dict[str, Any] = {
    "net": "densenet40",
    "image_size": 16,
    "per_batch_size": 5,
    "max_epoch": 1,
    "lr": 0.02,
    "workers": 1,
    "amp": "fp32",
}
SEVERAL: dict[str, Any] = {"task": "multilabel", "missing": "ignore"}


def config(source: Path, folder: Path, **flags: Any) -> StudyConfig:
    given = SMALL | {"folds": 3, "seeds": 1, "group": "patient", "stratify": True} | flags
    return StudyConfig(data_dir=str(source), run_dir=str(folder), **given)


def flags_of(settings: dict[str, Any]) -> list[str]:
    """The settings as arguments; True is a switch."""
    return [
        word
        for name, value in settings.items()
        for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
    ]


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def outcome(folder: Path) -> dict[str, Any]:
    """All that a study leaves but times, paths and how it was started."""
    found: dict[str, Any] = {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.suffix in (".csv", ".png") or file.name == "label_errors.html"
    }
    content = json.loads((folder / "study.json").read_text())
    found["study.json"] = {name: part for name, part in content.items() if name != "settings"}
    for run in sorted((folder / "runs").iterdir()):
        found[f"{run.name}, held out"] = (run / "held_out.csv").read_bytes()
        # The file also names the folder of the images.
        tensors = read(run / "last.safetensors")[1]
        found[run.name] = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    return found


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 images of 18 patients, three classes."""
    return write_class_table(tmp_path_factory.mktemp("classes") / "data", 18)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """45 images of 15 patients, three labels of which some are unknown."""
    return write_label_table(tmp_path_factory.mktemp("labels") / "data", 45)


@pytest.fixture(scope="module")
def single(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three folds and two seeds; not to be changed."""
    folder = tmp_path_factory.mktemp("single") / "study"
    assert study(config(classes, folder, seeds=2)).content is not None
    return folder


@pytest.fixture(scope="module")
def several(labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of images with several labels, two folds and two seeds; not to be changed."""
    folder = tmp_path_factory.mktemp("several") / "study"
    flags = SEVERAL | {"folds": 2, "seeds": 2, "seed": 7, "max_epoch": 2, "ema_decay": 0.5}
    assert study(config(labels, folder, **flags)).content is not None
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["single", "several"])
def test_a_fold_is_to_the_bit_what_split_train_and_eval_give_by_hand(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder: Path = request.getfixturevalue(kind)
    source: Path = request.getfixturevalue("classes" if kind == "single" else "labels")
    settings = json.loads((folder / "study.json").read_text())["settings"]
    fold, seed = 1, settings["seed"] + 1
    flags = ["--folds", str(settings["folds"]), "--group", "patient", "--stratify"]
    more = SEVERAL | {"labels": ",".join(COLOURS)} if kind == "several" else {}
    named = {name: value for name, value in more.items() if name != "task"}
    lists = tmp_path / "lists"
    assert main(["split", str(source), *flags, *flags_of(named), "--output", str(lists)]) == 0
    where = {"data_dir": f"fold_{fold}/train.csv", "val_dir": f"fold_{fold}/val.csv"}
    by_hand = SMALL | more | {name: str(lists / file) for name, file in where.items()}
    by_hand |= {name: settings[name] for name in ("max_epoch", "ema_decay")} | {"seed": seed}
    run = train(TrainConfig(**by_hand, output_dir=str(tmp_path / "run"))).folder
    weights = run / ("last.safetensors" if kind == "single" else "last_ema.safetensors")
    of_study = folder / "runs" / f"fold_{fold}_seed_{seed}"
    tensors = [read(where / weights.name)[1] for where in (run, of_study)]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    table = {"missing": "ignore"} if kind == "several" else {}
    held_out, size = lists / f"fold_{fold}" / "val.csv", SMALL["per_batch_size"]
    evaluate(eval_config(held_out, weights, tmp_path / "eval", per_batch_size=size, **table))
    names = {Path(row.pop("path")).name: row for row in rows_of(tmp_path / "eval/predictions.csv")}
    rows = [row for row in rows_of(folder / f"predictions_seed_{seed}.csv") if row["fold"] == "1"]
    assert len(rows) == len(names) > 5
    for row in rows:
        expected = names[row["path"]]
        assert {name: row[name] for name in expected} == expected


@pytest.mark.parametrize("kind", ["single", pytest.param("several", marks=pytest.mark.slow)])
def test_each_image_is_predicted_once_by_networks_that_have_not_seen_its_group(
    kind: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(kind)
    source: Path = request.getfixturevalue("classes" if kind == "single" else "labels")
    expected = {row["path"]: row["patient"] for row in rows_of(source)}
    for file in folder.glob("predictions*.csv"):
        rows = rows_of(file)
        assert {row["path"]: row["patient"] for row in rows} == expected
        assert len(rows) == len(expected)
        for fold in {row["fold"] for row in rows}:
            trained = rows_of(folder / "folds" / f"fold_{fold}" / "train.csv")
            held_out = {row["patient"] for row in rows if row["fold"] == fold}
            assert held_out.isdisjoint(row["patient"] for row in trained)
            assert len(trained) + sum(row["fold"] == fold for row in rows) == len(expected)


def shares_of(rows: list[dict[str, str]], names: list[str]) -> "np.ndarray[Any, Any]":
    return np.array([[float(row[f"probability_{name}"]) for name in names] for row in rows])


@pytest.mark.parametrize("kind", ["single", "several"])
def test_the_ensemble_is_the_mean_of_the_probabilities(
    kind: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(kind)
    content = json.loads((folder / "study.json").read_text())
    names = content["class_names"]
    files = [folder / f"predictions_seed_{seed}.csv" for seed in content["seed_numbers"]]
    seeds = [shares_of(rows_of(file), names) for file in files]
    assert len(seeds) == 2 and np.abs(seeds[0] - seeds[1]).max() > 1e-3
    rows = rows_of(folder / "predictions.csv")
    shares = shares_of(rows, names)
    assert shares == pytest.approx(np.mean(seeds, axis=0), abs=1e-6)
    if kind == "single":
        predicted = [names[k] for k in shares.argmax(axis=1)]
        assert [row["predicted"] for row in rows] == predicted


def test_the_numbers_of_classes_are_those_of_scikit_learn(single: Path) -> None:
    content = json.loads((single / "study.json").read_text())
    names, rows = content["class_names"], rows_of(single / "predictions.csv")
    truth = np.array([names.index(row["label"]) for row in rows])
    seeds = [shares_of(rows_of(single / f"predictions_seed_{s}.csv"), names) for s in (1, 2)]
    fold = np.array([int(row["fold"]) for row in rows])

    def measured(shares: "np.ndarray[Any, Any]", inside: Any = slice(None)) -> dict[str, float]:
        own, true = shares[inside], truth[inside]
        one_hot = np.eye(3)[true]
        columns = [(one_hot[:, k], own[:, k]) for k in range(3)]
        return {
            "accuracy": accuracy_score(true, own.argmax(axis=1)),
            "balanced_accuracy": balanced_accuracy_score(true, own.argmax(axis=1)),
            "auroc": float(np.mean([roc_auc_score(*column) for column in columns])),
            "average_precision": np.mean([average_precision_score(*c) for c in columns]),
            "brier": float(np.mean([brier_score_loss(*column) for column in columns])),
            "log_loss": float(np.mean([log_loss(*column) for column in columns])),
        }

    of_seeds = [measured(shares) for shares in seeds]
    ensemble = shares_of(rows, names)
    of_folds = [measured(ensemble, fold == k) for k in range(3)]
    for name, found in content["spread"].items():
        assert found["ensemble"] == pytest.approx(measured(ensemble)[name], rel=1e-9)
        low, high = found["ensemble_ci"]
        assert low < high
        for part, expected in (("seeds", of_seeds), ("folds", of_folds)):
            values = [one[name] for one in expected]
            assert found[part]["values"] == pytest.approx(values, rel=1e-9)
            assert found[part]["mean"] == pytest.approx(np.mean(values), rel=1e-9)
            assert found[part]["sd"] == pytest.approx(np.std(values, ddof=1), rel=1e-6, abs=1e-12)
    own = measured(seeds[1], fold == 2)["auroc"]
    assert content["folds"][2]["seeds"]["2"]["auroc"] == pytest.approx(own, rel=1e-9)
    assert [part["images"] for part in content["folds"]] == np.bincount(fold).tolist()


def test_the_numbers_of_labels_are_those_of_scikit_learn_on_the_known_cells(several: Path) -> None:
    content = json.loads((several / "study.json").read_text())
    rows = rows_of(several / "predictions.csv")
    aurocs = []
    for name in COLOURS:
        known = [row for row in rows if row[name]]
        assert len(known) < len(rows)
        truth = [int(row[name]) for row in known]
        aurocs.append(roc_auc_score(truth, [float(row[f"probability_{name}"]) for row in known]))
        assert content["ensemble"]["labels"][name]["auroc"] == pytest.approx(aurocs[-1], rel=1e-12)
    assert content["spread"]["auroc"]["ensemble"] == pytest.approx(np.mean(aurocs), rel=1e-12)
    assert "accuracy" not in content["spread"]


@pytest.mark.parametrize("kind", ["single", "several"])
def test_metrics_of_the_file_of_predictions_says_the_same(
    kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    folder: Path = request.getfixturevalue(kind)
    content = json.loads((folder / "study.json").read_text())
    flags = ["--probability_prefix", "probability_", "--group", "patient", "--json"]
    flags += ["--label_column", "label"] if kind == "single" else ["--missing", "ignore"]
    seed = content["seed_numbers"][1]
    for file, expected in (
        (folder / "predictions.csv", content["ensemble"]),
        (folder / f"predictions_seed_{seed}.csv", content["seeds"][str(seed)]),
    ):
        capsys.readouterr()
        assert main(["metrics", str(file), *flags]) == 0
        found = json.loads(capsys.readouterr().out)
        assert {name: found[name] for name in expected} == expected
        assert found["n_groups"] == len({row["patient"] for row in rows_of(file)})


@pytest.mark.slow
def test_a_study_killed_at_random_moments_ends_as_if_it_had_not_been(
    classes: Path, tmp_path: Path
) -> None:
    seed = int(time.time())
    print(f"seed {seed}")
    moments = random.Random(seed)
    settings = SMALL | {"folds": 2, "group": "patient", "stratify": True, "ckpt_interval": 1}
    whole = StudyConfig(data_dir=str(classes), run_dir=str(tmp_path / "whole"), **settings)
    study(whole)
    folder = tmp_path / "killed"
    command = ["-m", "densenet121", "study", "--data_dir", str(classes), "--resume", "auto"]
    command += ["--run_dir", str(folder), *flags_of(settings)]
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        process = Forked(command, environment())
        until = time.monotonic() + moments.uniform(0, 6)
        begun = len(list(folder.glob("runs/*/*")))
        # Some time after the first file of a run that this process writes.
        while process.poll() is None and len(list(folder.glob("runs/*/*"))) == begun:
            time.sleep(0.01)
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        with suppress(ProcessLookupError):  # it has ended
            os.kill(process.pid, number)
        done = process.finished(timeout_seconds=120)
        expected = {-9} if number == signal.SIGKILL else {143, -number}
        assert done.returncode in expected | {0}, done.stderr
        assert "Traceback" not in done.stderr
    finished = Forked(command, environment()).finished(240)
    assert finished.returncode == 0, finished.stderr
    assert outcome(folder) == outcome(tmp_path / "whole")
    assert not [file for file in folder.rglob(".*") if file.name.endswith((".tmp", ".partial"))]


@pytest.mark.slow
def test_finished_runs_are_kept_and_more_seeds_are_added(
    single: Path, classes: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    study(config(classes, folder))
    runs = {file: file.stat().st_mtime_ns for file in folder.glob("runs/*/*")}
    assert len(list(folder.glob("runs/*"))) == 3
    assert not checkpoints_in(folder / "runs" / "fold_0_seed_1")
    result = study(config(classes, folder, seeds=2, resume="auto"))
    assert {file: file.stat().st_mtime_ns for file in runs} == runs
    assert result.content is not None and result.content["seed_numbers"] == [1, 2]
    assert outcome(folder) == outcome(single)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 1) -> str:
    assert main(["study", *map(str, arguments)]) == status
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_study_goes_on_only_if_asked_and_only_as_it_was(
    single: Path, classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"folds": 3, "seeds": 2, "group": "patient", "stratify": True} | SMALL
    flags = ["--data_dir", classes, "--run_dir", single, *flags_of(given)]
    before = outcome(single)
    said = refusal(capsys, *flags, status=2)
    assert "--run_dir" in said and "pass --resume auto to go on with it" in said
    for change, text in (
        (["--lr", "0.1"], "--lr was 0.02, is now 0.1"),
        (["--seeds", "1"], "--seeds was 2, is now 1"),
        (["--folds", "2"], "--folds was 3, is now 2"),
        (["--group", r"^(\d+)_"], "--group was patient, is now"),
        (["--seed", "2"], "--seed was 1, is now 2"),
    ):
        said = refusal(capsys, *flags, "--resume", "auto", *change, status=2)
        assert "cannot go on with" in said and text in said
    assert outcome(single) == before
    data = shutil.copytree(classes.parent, tmp_path / "data")
    (data / "list.csv").write_text(classes.read_text() + "more.png,ant,p99\n")
    shutil.copy(data / "00_0.png", data / "more.png")
    flags[1] = data / "list.csv"
    said = refusal(capsys, *flags, "--resume", "auto")
    assert "changed since the study in" in said and "36 images then, 37 now" in said


def test_a_study_does_not_go_on_from_other_weights(
    classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, folder = write_weights(tmp_path / "w.safetensors"), tmp_path / "study"
    flags = ["--data_dir", classes, "--run_dir", folder, "--stratify", *flags_of(SMALL)]
    flags += ["--pretrained", weights, "--folds", 2, "--resume", "auto"]
    # As far as a study that was killed in its first run.
    said = refusal(capsys, *flags, "--num_classes", "4", status=2)
    assert "--num_classes is 4" in said
    (folder / "runs" / "fold_0_seed_1").mkdir(parents=True)
    write_weights(weights, seed=1)
    said = refusal(capsys, *flags, "--num_classes", "4")
    assert "the weights of --pretrained or --teacher changed since the study in" in said


def test_a_study_does_not_go_on_with_other_class_weights(
    classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, folder = tmp_path / "weights.csv", tmp_path / "study"
    weights.write_text("ant,1\nbee,2\ncat,3\n")
    flags = ["--data_dir", classes, "--run_dir", folder, "--stratify", *flags_of(SMALL)]
    flags += ["--class_weights", weights, "--folds", 2, "--resume", "auto", "--num_classes", 4]
    # As far as a study that was killed in its first run.
    assert "--num_classes is 4" in refusal(capsys, *flags, status=2)
    (folder / "runs" / "fold_0_seed_1").mkdir(parents=True)
    assert "--num_classes is 4" in refusal(capsys, *flags, status=2)
    record = json.loads((folder / "run.json").read_text())
    weights.write_text("ant,1\nbee,2\ncat,4\n")
    assert "began, or the file of --class_weights; begin a new study" in refusal(capsys, *flags)
    del record["study"]["digests"]["weights"]["class_weights"]  # of an earlier version
    (folder / "run.json").write_text(json.dumps(record))
    assert "--num_classes is 4" in refusal(capsys, *flags, status=2)


def test_several_ranks_are_refused(classes: Path, tmp_path: Path) -> None:
    command = ["-m", "densenet121", "study", "--data_dir", classes, "--run_dir", tmp_path / "out"]
    processes, output = start_ranks(2, *command, "--stratify", "--device", "cpu", folder=tmp_path)
    assert [process.wait() for process in processes] == [2, 2]
    assert "a study runs in one process" in output.read_text()
    assert not (tmp_path / "out").exists()


def test_images_that_are_split_already_are_refused(
    image_folder: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--run_dir", tmp_path / "out", *flags_of(SMALL)]
    assert "is split already into train" in refusal(capsys, "--data_dir", image_folder, *flags)
    shutil.copytree(labels.parent, tmp_path / "data" / "train")
    flags += ["--data_dir", tmp_path / "data", *flags_of(SEVERAL)]
    assert "is split already into train" in refusal(capsys, *flags)


def test_a_study_is_not_written_among_the_class_folders(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shutil.copytree(image_folder / "train", tmp_path / "images")
    flags = ["--data_dir", source, "--run_dir", source / "study", *flags_of(SMALL)]
    assert "is among the class folders of" in refusal(capsys, *flags, status=2)
    assert not (source / "study").exists()


def test_a_study_may_be_moved_with_its_images(single: Path, classes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(classes.parent, tmp_path / "data")
    moved = shutil.copytree(single, tmp_path / "elsewhere" / "study")
    study(config(data / "list.csv", moved, seeds=2, resume="auto"))
    found, expected = outcome(moved), outcome(single)
    for one in (found, expected):
        one["study.json"].pop("data_dir")
    assert found == expected


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--folds", "1"], 2, "--folds must be at least 2 folds, got 1"),
        (["--folds", "100001"], 2, "--folds must be at least 2 and at most 100000, got 100001"),
        (["--seeds", "100001"], 2, "--seeds must be at least 1 and at most 100000, got 100001"),
        (["--seeds", "0"], 2, "--seeds must be at least 1 seed, got 0"),
        (["--folds", "19"], 1, "--folds 19: there are only 18 groups; pass fewer --folds"),
        (["--folds", "15"], 1, "--folds 15: ant has only 12 images; pass fewer --folds"),
        (["--group", "doctor"], 1, "--group doctor is no column and finds no id in 00_0.png"),
        (["--group", "label"], 1, "--folds 5: there are only 3 groups"),
        (["--group", "label", "--folds", "3"], 1, "would hold out"),
        (["--run_dir", ""], 2, "--run_dir must name a folder"),
        (["--val_dir", "x"], 2, "--val_dir has no place in study: each fold is validated"),
        (["--output_dir", "x"], 2, "--output_dir has no place in study: pass --run_dir"),
        (["--resume", "x.ckpt"], 2, "--resume of study must be auto, got x.ckpt"),
        (["--freeze", "stem", "--resume", "auto"], 2, "--freeze stem needs --pretrained, because"),
        (["--resamples", "5"], 2, "--resamples must be at least 100, got 5"),
        (["--seed", str(2**63 - 1), "--seeds", "2"], 2, "--seed must be at least 0 and at most"),
        (["--data_dir", "nowhere"], 1, "--data_dir"),
        (["--missing", "0"], 2, "need --task multilabel"),
        (["--exclude", "nothing.txt"], 1, "nothing.txt: cannot be read"),
    ],
)
def test_wrong_settings_are_one_line(
    classes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    status: int,
    message: str,
) -> None:
    given = ["--data_dir", classes, "--run_dir", tmp_path / "out", "--group", "patient"]
    assert message in refusal(capsys, *given, *flags_of(SMALL), *flags, status=status)


def test_settings_of_train_are_those_of_every_run(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("lr: 0.003\nrotate: 10\ndata_dir: elsewhere\n")
    flags = ["--recipe", "finetune", "--pretrained", "w", "--config", str(tmp_path / "train.yaml")]
    flags += ["--data_dir", "x", "--max_epoch", "7"]
    _, trained = parse(["train", *flags])
    _, found = parse(["study", *flags, "--run_dir", "y", "--seeds", "2"])
    same = {"data_dir": "x", "keep_checkpoint_max": trained.keep_checkpoint_max}
    assert found.of_run(**same) == trained
    assert found.seed_numbers == [1, 2] and trained.optimizer == "adamw"


@pytest.mark.parametrize(
    ("column", "flags", "message"),
    [
        ("rare", [], "--folds 3: rare has only 2 positive images; pass fewer --folds, or leave it"),
        ("one", [], "would hold out all positive images of one, so that none is left to train on"),
        ("a,b", ["--folds", "2"], 'the label "a,b" has a comma; rename the column'),
    ],
)
def test_labels_that_cannot_be_learnt_in_every_fold_are_refused(
    column: str,
    flags: list[str],
    message: str,
    labels: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = shutil.copytree(labels.parent, tmp_path / "data")
    rows = rows_of(labels)
    for number, row in enumerate(rows):
        positive = {"rare": number in (3, 30), "one": number < 3, "a,b": number % 2}[column]
        row[column] = str(int(positive))
    with (data / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    given = ["--data_dir", data, "--run_dir", tmp_path / "out", "--group", "patient"]
    given += ["--folds", "3", *flags_of(SEVERAL | SMALL), *flags]
    assert message in refusal(capsys, *given)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_is_left_alone(
    classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    flags = ["--data_dir", classes, "--run_dir", tmp_path, "--resume", "auto", *flags_of(SMALL)]
    assert "is not empty and has no study" in refusal(capsys, *flags, status=2)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_a_setting_that_the_first_run_refuses_can_be_corrected(
    classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    flags = ["--data_dir", classes, "--run_dir", folder, "--stratify", *flags_of(SMALL)]
    said = refusal(capsys, *flags, "--folds", 3, "--best_metric", "f1", status=2)
    assert "--best_metric must be one of" in said
    said = refusal(capsys, *flags, "--folds", 2, "--normalisation", "1,", status=2)
    assert "--normalisation" in said
    said = refusal(capsys, *flags, "--folds", 2, "--num_classes", "4", status=2)
    assert "--num_classes is 4, but" in said
    assert len(list((folder / "folds").iterdir())) == 2


def test_one_image_that_cannot_be_read_is_left_out_and_named_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_class_table(tmp_path / "data", 8, each=2, classes=2)
    (source.parent / "03_1.png").write_bytes(b"no image")
    (tmp_path / "exclude.txt").write_text("00_0.png\n")
    settings = SMALL | {"folds": 2, "stratify": True, "group": "patient", "per_batch_size": 3}
    flags = ["study", "--data_dir", str(source), *flags_of(settings)]
    flags += ["--exclude", str(tmp_path / "exclude.txt"), "--run_dir"]
    assert main([*flags, str(tmp_path / "a")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "03_1.png" in said
    assert "--on_bad_image skip and --resume auto" in said and "--output_dir" not in said
    assert main([*flags, str(tmp_path / "a"), "--on_bad_image", "skip", "--resume", "auto"]) == 1
    assert "03_1.png" in (tmp_path / "a" / "study.html").read_text()
    assert main([*flags, str(tmp_path / "b"), "--on_bad_image", "skip"]) == 1
    assert "1 file could not be read; study.json names them" in capsys.readouterr().out
    content = json.loads((tmp_path / "b" / "study.json").read_text())
    assert [one["path"] for one in content["bad_images"]] == ["03_1.png"]
    for number, fold in enumerate(content["folds"]):  # their numbers are without it
        rows = [r for r in rows_of(tmp_path / "b" / "predictions.csv") if r["fold"] == str(number)]
        assert fold["images"] == len(rows) == sum(fold["labels"].values())
        assert fold["groups"] == len({row["patient"] for row in rows})
    assert (content["n_images"], content["complete"]) == (14, False)
    paths = {row["path"] for row in rows_of(tmp_path / "b" / "predictions.csv")}
    assert len(paths) == 14 and not paths & {"03_1.png", "00_0.png"}
    assert "03_1.png" in (tmp_path / "b" / "study.html").read_text()


def test_two_studies_can_be_compared(single: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = str(single / "predictions_seed_1.csv")
    assert main(["compare", str(single), seed, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    content = json.loads((single / "study.json").read_text())
    assert found["pictures"] == 36
    assert found["top1_a"] == pytest.approx(100 * content["spread"]["accuracy"]["ensemble"])
