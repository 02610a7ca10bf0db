"""Several labels per image, in whole runs: trained, evaluated, calibrated, answered, reported."""

import csv
import json
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import log_loss

from densenet121.checkpoint.load import read_weights
from densenet121.cli import main
from densenet121.config import EvalConfig, TrainConfig
from densenet121.config.loss import ASL_SETTINGS
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.engine.evaluate import evaluate
from densenet121.engine.images import check_columns
from densenet121.engine.messages import log_data
from densenet121.engine.step import TrainingBatch, train_step
from densenet121.engine.train import train
from densenet121.inference.predictor import Predictor
from densenet121.losses import Asymmetry
from densenet121.network import DenseNet
from densenet121.optimizers import get_param_groups, momentum_sgd
from densenet121.report import write_report
from densenet121.runs.layout import checkpoints_in
from densenet121.tasks import AnswerOptions, MultiLabel, Scores
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.var_init import initialise

from helpers.ranks import result
from helpers.ranks import run as run_ranks
from helpers.tables import COLOURS as LABELS
from helpers.tables import write_label_table
from helpers.training import train_config


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("several")
    write_label_table(root / "train", 45, 1)
    write_label_table(root / "val", 32, 2)
    return root


def settings(images: Path, folder: Path, **more: Any) -> TrainConfig:
    given: dict[str, Any] = {
        "task": "multilabel",
        "missing": "ignore",
        "optimizer": "adamw",
        "lr": 0.003,
        "crop_scale": "0.9,1.0",
        "color_jitter": "0,0,0",
    }
    return train_config(images, folder, **(given | more))


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    config = settings(images, folder, max_epoch=6, ckpt_interval=1, keep_checkpoint_max=0)
    train(config)
    return folder


def rows_of(folder: Path) -> Iterator[dict[str, Any]]:
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        yield {
            name: value
            for name, value in json.loads(line).items()
            if name not in ("images_per_second", "data_wait")
        }


def test_a_network_learns_labels_of_which_some_are_unknown(trained: Path) -> None:
    found = json.loads((trained / "eval.json").read_text())
    assert found["task"] == "multilabel"
    assert list(found["labels"]) == list(LABELS)
    assert found["macro"]["auroc"] > 0.9
    for label in found["labels"].values():
        assert label["n_positive"] + label["n_negative"] + label["n_unknown"] == 32
        assert label["n_unknown"] > 0
        low, high = label["auroc_ci"] or (label["auroc"], label["auroc"])
        assert low <= label["auroc"] <= high


def test_a_killed_run_ends_as_the_uninterrupted_one(
    images: Path, trained: Path, tmp_path: Path
) -> None:
    config = settings(images, trained, max_epoch=6, ckpt_interval=1, keep_checkpoint_max=0)
    for steps in (1, 8):
        part = tmp_path / f"part{steps}"
        shutil.copytree(trained, part)
        for path in checkpoints_in(part)[::-1][steps:]:
            path.unlink()
        train(replace(config, output_dir=str(part), resume="auto"))
        for name in ("last.safetensors", "best.safetensors", "predictions.csv"):
            assert (part / name).read_bytes() == (trained / name).read_bytes()
        assert list(rows_of(part)) == list(rows_of(trained))


def test_a_resumed_run_with_the_asymmetric_loss_is_exact_and_keeps_its_settings(
    images: Path, trained: Path, tmp_path: Path
) -> None:
    whole = settings(
        images, tmp_path / "whole", max_epoch=2, loss="asl", asl_clip=0.1, ckpt_interval=1
    )
    train(replace(whole, keep_checkpoint_max=0))
    run = json.loads((tmp_path / "whole" / "run.json").read_text())["settings"]
    assert [run[name] for name in ASL_SETTINGS] == [4.0, 1.0, 0.1]
    middle = checkpoints_in(tmp_path / "whole")[-1]
    again = replace(whole, resume=str(middle), output_dir=str(tmp_path / "again"))
    train(replace(again, asl_gamma_neg=4.0))
    for name in ("last.safetensors", "predictions.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(UsageError, match=r"--asl_clip was 0.1, is now 0.05"):
        train(replace(again, asl_clip=None, output_dir=str(tmp_path / "other")))
    assert next(rows_of(tmp_path / "whole"))["loss"] != next(rows_of(trained))["loss"]


def test_two_ranks_see_every_image_once_and_log_the_loss_of_all(
    images: Path, tmp_path: Path
) -> None:
    """Of unequal numbers of known labels the mean is not that of the ranks' means."""
    flags = ["--task", "multilabel", "--missing", "ignore", "--net", "densenet40"]
    flags += ["--image_size", "16", "--max_epoch", "1", "--log_interval", "1", "--device", "cpu"]
    flags += ["--amp", "fp32", "--data_dir", str(images)]
    ranks: list[object] = ["--per_batch_size", 5, "--sync_batch_norm", 1]
    run_ranks(2, "-m", "densenet121", "train", *flags, *ranks, "--output_dir", tmp_path / "run")
    _, rows, predictions = result(tmp_path / "run")
    assert rows[-1]["total"] == 32
    assert len(predictions.splitlines()) == 33
    (log,) = (tmp_path / "run").glob("*_rank_0.log")
    assert "an epoch has 4 steps of 10 images, 5 on each of 2 ranks" in log.read_text()
    one = tmp_path / "one"
    assert main(["train", *flags, "--per_batch_size", "10", "--output_dir", str(one)]) == 0
    expected = [row["loss"] for row in rows_of(one) if row["kind"] == "train"]
    found = [row["loss"] for row in rows if row["kind"] == "train"]
    assert len(found) == 4 and found[0] == pytest.approx(expected[0], rel=1e-5)


def test_a_step_without_a_known_cell_has_no_loss_and_no_part_in_the_mean(
    images: Path, tmp_path: Path
) -> None:
    shutil.copytree(images, tmp_path / "data")
    table = tmp_path / "data" / "train" / "labels.csv"
    head, first, *others = table.read_text().splitlines()
    unknown = [re.sub(r"(?<=png),.*,", ",,,,", line) for line in others]
    table.write_text("\n".join([head, re.sub(r"(?<=png),.*,", ",1,0,1,", first), *unknown]))
    config = settings(tmp_path / "data", tmp_path / "each", max_epoch=1, log_interval=1)
    train(config)
    train(replace(config, output_dir=str(tmp_path / "all"), log_interval=3))
    each, whole = (
        [row["loss"] for row in rows_of(tmp_path / name) if row["kind"] == "train"]
        for name in ("each", "all")
    )
    (loss,) = [found for found in each if found is not None]
    assert len(each) == 3 and loss > 0
    assert whole == [pytest.approx(loss, rel=1e-6)]


@pytest.mark.parametrize("task", [MultiLabel(), MultiLabel(asymmetry=Asymmetry())], ids=str)
@pytest.mark.parametrize("parts", [1, 3])
def test_accumulated_batches_are_one_batch_whatever_is_unknown(
    parts: int, task: MultiLabel
) -> None:
    """The denominator is the number of known cells of the whole step, not of each part."""
    generator = torch.Generator().manual_seed(3)
    targets = (torch.rand(12, 4, generator=generator) < 0.4).double()
    targets[torch.rand(12, 4, generator=generator) < 0.5] = math.nan
    x = torch.randn(12, 3, 16, 16, generator=generator, dtype=torch.float64)
    model = DenseNet(
        growth_rate=4, block_config=(2,), num_init_features=6, num_classes=4, stem="cifar"
    )
    initialise(model, torch.Generator().manual_seed(1))
    model.double().eval()  # batch statistics of parts would differ
    expected = task.loss(model(x), targets)
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    pieces = list(zip(x.chunk(parts), targets.chunk(parts), strict=True))
    weights = [task.weight(target) for _, target in pieces]
    batches = [
        TrainingBatch(part, target, weight / sum(weights))
        for (part, target), weight in zip(pieces, weights, strict=True)
    ]
    optimizer = momentum_sgd(get_param_groups(model, 0.0), lr=0.0, momentum=0.0)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    loss = train_step(
        model,
        optimizer,
        scaler,
        batches,
        task.loss,
        micro_batches=parts,
        lr=0.0,
        precision=torch.float32,  # no autocast: the network is float64
    )
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=1e-12)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-12)


def test_permuted_labels_have_permuted_results() -> None:
    task, generator = MultiLabel(), np.random.default_rng(1)
    logits = generator.normal(size=(50, 3)).astype(np.float32)
    targets = torch.from_numpy(generator.integers(0, 2, (50, 3)).astype(np.float32))
    order = [2, 0, 1]
    names = ("a", "b", "c")
    scores = task.score(torch.from_numpy(logits), targets)
    swapped = task.score(torch.from_numpy(logits[:, order]), targets[:, order])
    first = task.metrics(scores, targets, names)
    second = task.metrics(swapped, targets[:, order], tuple(names[k] for k in order))
    assert first["labels"] == second["labels"]
    assert first["auroc"] == pytest.approx(second["auroc"], abs=1e-15)


def test_a_label_without_both_kinds_is_left_out_of_the_means_and_named() -> None:
    task = MultiLabel()
    logits = torch.tensor([[2.0, 1.0], [1.0, 0.0], [0.0, 3.0]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, math.nan]])
    found = task.metrics(task.score(logits, targets), targets, ("seen", "never"))
    assert found["macro"]["left_out"] == ["never"]
    assert found["labels"]["never"]["auroc"] is None
    assert found["auroc"] == 1.0
    nothing = Scores({"logits": np.zeros((1, 2), np.float32)}, 0.0, 0.0)
    empty = task.metrics(nothing, torch.full((1, 2), math.nan), ("seen", "never"))
    assert empty["auroc"] is None
    assert task.is_better(found, empty)
    assert not task.is_better(empty, found)


def test_images_without_a_known_cell_have_no_loss() -> None:
    """It was 0, as if every answer were right."""
    task, unknown = MultiLabel(), torch.full((2, 2), math.nan)
    metrics = task.metrics(task.score(torch.randn(2, 2), unknown), unknown, ("a", "b"))
    assert metrics["loss"] is None
    assert task.table_row(metrics)["loss"] == "undefined"


def test_labels_without_one_kind_of_images_are_named_when_training_begins(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cells = np.array([[1, 0, math.nan], [0, 0, 1]], np.float32)
    paths, sizes = ("a.png", "b.png"), np.ones(2, np.int64)
    dataset = ImageDataset(Path("table.csv"), ("both", "never", "always"), paths, cells, sizes)
    log_data(dataset, dataset, batch_size=2, epoch_steps=1)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "no training image is positive for never: nothing can be learned about it",
        "no training image is negative for always: nothing can be learned about it",
        "no validation image is positive for never: it has no AUROC and is not in the means",
        "no validation image is negative for always: it has no AUROC and is not in the means",
    ]


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"patience": 2}, "`patience`"),
        ({"lr_scheduler": "plateau"}, "`lr_scheduler` plateau"),
        ({"best_metric": "average_precision"}, "`best_metric`"),
    ],
)
def test_what_follows_a_metric_that_no_validation_can_have_is_refused(
    images: Path, tmp_path: Path, more: dict[str, Any], name: str
) -> None:
    """It would never improve: the run would end after `patience` epochs, and the first be best."""
    image, val = next((images / "val").rglob("*.png")), tmp_path / "val.csv"
    val.write_text(f"path,{','.join(LABELS)}\n{image},1,0,1\n")
    metric = more.get("best_metric", "auroc")
    problem = rf"{name} follows {metric}, but no label has both .* `best_metric` loss"
    config = settings(images / "train", tmp_path / "run", val_dir=str(val), **more)
    with pytest.raises(UsageError, match=problem):
        train(config)
    assert not (tmp_path / "run").exists()


def test_validation_images_on_which_no_epoch_can_be_the_best_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cells, sizes = np.array([[1, 0, math.nan]], np.float32), np.ones(1, np.int64)
    dataset = ImageDataset(Path("table.csv"), ("a", "b", "c"), ("a.png",), cells, sizes)
    log_data(dataset, dataset, batch_size=1, epoch_steps=1)
    assert (
        "no label has both positive and negative validation images: the weights of the first "
        "validation stay the best, unless `best_metric` is loss"
    ) in [record.message for record in caplog.records if record.levelname == "WARNING"]


def test_logits_that_are_nan_are_refused() -> None:
    with pytest.raises(InputError, match="nan or infinite logits for 1 of 2 images"):
        MultiLabel().score(torch.tensor([[0.0], [math.nan]]), torch.zeros(2, 1))


def test_evaluation_prediction_calibration_and_report_agree(
    images: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = trained / "best.safetensors"
    flags = ["--data_dir", str(images), "--pretrained", str(best), "--missing", "ignore"]
    output = tmp_path / "calibrated.safetensors"
    assert main(["calibrate", *flags, "--operating_point", "youden", "--output", str(output)]) == 0
    assert "operating point youden" in capsys.readouterr().out
    found = evaluate(
        EvalConfig(
            data_dir=str(images),
            pretrained=str(best),
            missing="ignore",
            output_dir=str(tmp_path / "eval"),
        )
    )
    (evaluation,) = found.evaluations.values()
    assert evaluation is not None
    predictor = Predictor(output)
    paths = [images / "val" / path for path in evaluation.paths]
    answers = predictor.predict(paths)
    calibration = predictor.classifier.calibration
    logits = evaluation.scores.columns["logits"] / np.array(calibration.temperatures)
    expected = expit(logits.astype(np.float64))
    np.testing.assert_allclose([a.probabilities for a in answers], expected, atol=1e-5)
    truth = evaluation.targets.numpy()
    for k, (label, point) in enumerate(zip(LABELS, calibration.points, strict=True)):
        called = np.array([label in a.positive for a in answers])
        assert int((called & (truth[:, k] == 1)).sum()) == point.true_positives
        assert int((called & (truth[:, k] == 0)).sum()) == point.false_positives
    text = write_report(tmp_path / "eval").read_text()
    assert "ROC and precision-recall curves" in text
    assert all(label in text for label in LABELS)


def test_without_an_operating_point_nothing_is_decided(images: Path, trained: Path) -> None:
    (answer,) = Predictor(trained / "last.safetensors").predict([images / "val" / "0.png"])
    assert answer.positive is None
    assert all(one["positive"] is None for one in answer.to_json()["labels"])


@pytest.mark.parametrize("options", [{"top_k": 2}, {"coverage": 0.9}, {"abstain_below": 0.5}])
def test_options_of_one_class_per_image_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="is for one class per image, not for multilabel"):
        MultiLabel().answers(
            np.zeros((1, 2), np.float32), ("a", "b"), None, AnswerOptions(**options)
        )


def test_weights_and_settings_of_different_tasks_are_refused(
    images: Path, trained: Path, image_folder: Path, tmp_path: Path
) -> None:
    best = str(trained / "best.safetensors")
    with pytest.raises(InputError, match="needs a table of labels"):
        evaluate(EvalConfig(data_dir=str(image_folder), pretrained=best))
    with pytest.raises(UsageError, match="differ from those of the weights: red,green,blue"):
        evaluate(EvalConfig(data_dir=str(images), pretrained=best, labels="red,blue"))
    with pytest.raises(UsageError, match="need --task multilabel"):
        TrainConfig(data_dir=str(images), label_column="x", negative_label="y")


def test_a_test_set_without_one_of_the_labels_is_evaluated(
    images: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its column is blank: the label is unknown for every image, and its metrics are null."""
    shutil.copytree(images / "val", tmp_path / "test")
    table = tmp_path / "test" / "labels.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"green": ""} for row in rows)
    weights, folder = str(trained / "best.safetensors"), tmp_path / "eval"
    flags = ["--data_dir", str(tmp_path / "test"), "--pretrained", weights]
    assert main(["eval", *flags, "--output_dir", str(folder)]) == 1
    assert "green are blank; pass --missing ignore" in capsys.readouterr().err
    flags += ["--missing", "ignore"]
    assert main(["eval", *flags, "--output_dir", str(folder)]) == 0
    assert "no image has a known value of green, so that" in capsys.readouterr().out
    found = json.loads((folder / "eval.json").read_text())
    assert found["labels"]["green"]["n_unknown"] == len(rows)
    assert found["labels"]["green"]["auroc"] is found["labels"]["green"]["brier"] is None
    assert found["macro"]["left_out"] == ["green"]
    assert found["labels"]["red"]["n_positive"] == sum(row["red"] == "1" for row in rows)
    write_report(folder)
    prefix = ["--probability_prefix", "probability_", "--missing", "ignore"]
    assert main(["metrics", str(folder / "predictions.csv"), *prefix]) == 0
    assert main(["calibrate", *flags, "--output", str(tmp_path / "c.safetensors")]) == 1
    message = f"the label green is not known for any of these {len(rows)} images: it cannot be"
    assert message in capsys.readouterr().err
    # Training still needs every label.
    training = ["--data_dir", str(images), "--val_dir", str(tmp_path / "test")]
    training += ["--task", "multilabel", "--missing", "ignore", "--ckpt_path", str(tmp_path)]
    assert main(["train", *training]) == 1
    assert "all 32 cells of green are blank; leave it out" in capsys.readouterr().err


def test_weights_of_one_class_per_image_give_a_new_head(
    images: Path, image_folder: Path, tmp_path: Path
) -> None:
    train(train_config(image_folder, tmp_path / "single", max_epoch=1))
    weights = str(tmp_path / "single" / "last.safetensors")
    train(settings(images, tmp_path / "several", pretrained=weights, max_epoch=1, lr=0.0))
    before, after = (
        read_weights(Path(file)).state_dict["classifier.weight"]
        for file in (weights, tmp_path / "several" / "last.safetensors")
    )
    assert before.shape == after.shape
    assert not torch.equal(before, after)


def test_evaluation_has_intervals_over_groups_thresholds_and_subgroups(
    images: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "calibrated.safetensors"
    flags = ["--data_dir", str(images), "--missing", "ignore"]
    best = str(trained / "best.safetensors")
    wanted = ["--operating_point", "f1", "--output", str(weights)]
    assert main(["calibrate", *flags, "--pretrained", best, *wanted]) == 0
    folder = tmp_path / "eval"
    more = ["--group", "patient", "--by", "patient", "--output_dir", str(folder)]
    assert main(["eval", *flags, "--pretrained", str(weights), *more]) == 0
    found = json.loads((folder / "eval.json").read_text())
    assert found["n_groups"] == 11
    assert set(found["by"]["patient"]) == {str(i) for i in range(11)}
    assert all(
        "threshold" in label and "sensitivity_ci" in label for label in found["labels"].values()
    )
    log = capsys.readouterr().out
    assert "32 images of 11 groups" in log and "patient = 10" in log
    for name, label in found["labels"].items():
        assert re.search(rf"INFO:{name} .* {label['auroc']:.4f}.* {label['brier']:.4f} ", log)
    page = write_report(folder).read_text()
    assert "Operating points" in page
    assert "over 11 groups" in page
    assert "calibrated on these same images" in page
    stored = read_weights(weights).calibration
    assert stored is not None
    assert found["calibration"]["temperatures"] == stored["temperatures"]
    assert found["calibration"]["rule"] == "f1"
    assert "The thresholds were chosen by f1 on 32 images of calibrate." in page
    # The same from predictions.csv, which has the groups and the calibrated probabilities.
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    cells = [(row[k], float(row[f"probability_{k}"])) for row in rows for k in LABELS if row[k]]
    truth, shares = zip(*((int(cell), share) for cell, share in cells), strict=True)
    assert found["loss"] == pytest.approx(log_loss(truth, shares), rel=1e-9)
    output = tmp_path / "metrics.json"
    prefix = ["--probability_prefix", "probability_", "--missing", "ignore"]
    command = ["metrics", str(folder / "predictions.csv"), *prefix, "--group", "patient"]
    assert main([*command, "--output", str(output)]) == 0
    again = json.loads(output.read_text())
    for name in LABELS:
        for metric in ("auroc", "average_precision", "brier"):
            assert again["labels"][name][metric] == pytest.approx(found["labels"][name][metric])
            assert again["labels"][name][f"{metric}_ci"] == pytest.approx(
                found["labels"][name][f"{metric}_ci"]
            )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--group", "ward"], "labels.csv: no column named ward (--group); it has red, green"),
        (["--by", "patient,ward"], "labels.csv: no column named ward (--by); it has red, green"),
        (["--group", "bed"], "labels.csv: column bed (--group) is blank for 1.png and 15 more of"),
    ],
)
def test_columns_that_cannot_be_used_are_named_before_anything_is_evaluated(
    images: Path,
    trained: Path,
    tmp_path: Path,
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(images / "val", tmp_path / "val")
    header, *rows = (images / "val" / "labels.csv").read_text().splitlines()
    more = [f"{row},{'' if i % 2 else i}" for i, row in enumerate(rows)]
    (tmp_path / "val" / "labels.csv").write_text("\n".join([f"{header},bed", *more]))
    command = ["eval", "--data_dir", str(tmp_path), "--missing", "ignore", *flags]
    command += ["--pretrained", str(trained / "best.safetensors")]
    assert main([*command, "--output_dir", str(tmp_path / "eval")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "eval").exists()


def test_a_column_of_ids_is_not_one_of_subgroups() -> None:
    rows = [str(number) for number in range(51)]
    dataset = ImageDataset(
        Path("table.csv"), ("a",), rows, np.zeros((51, 1), np.float32), np.ones(51, np.int64),
        columns={"id": rows},
    )  # fmt: skip
    with pytest.raises(InputError, match=r"column id \(`by`\) has 51 values; at most 50 subgroups"):
        check_columns(dataset, None, ["id"])


def test_a_column_is_not_overwritten_by_the_labels_or_probabilities() -> None:
    cells = {"red": ["1", "0"], "blue": ["mild", "none"], "probability_red": ["x", "y"]}
    dataset = ImageDataset(
        Path("table.csv"), ("red", "blue"), ["a.png", "b.png"], np.eye(2, dtype=np.float32),
        np.ones(2, np.int64), columns=cells | {"id": ["1", "2"]},
    )  # fmt: skip
    check_columns(dataset, "id", ["red"], MultiLabel())  # the label itself loses nothing
    for column in ("blue", "probability_red"):
        with pytest.raises(InputError, match=rf"the column {column} \(`by`\) is called like"):
            check_columns(dataset, None, ["id", column], MultiLabel())


def test_groups_of_one_class_per_image_are_refused(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(train_config(image_folder, tmp_path / "run", max_epoch=1))
    command = ["eval", "--data_dir", str(image_folder), "--group", "patient"]
    command += ["--pretrained", str(tmp_path / "run" / "last.safetensors")]
    assert main([*command, "--output_dir", str(tmp_path / "eval")]) == 1
    assert "is no table of labels, so --group patient is not there" in capsys.readouterr().err


def test_two_evaluations_are_compared_label_by_label(
    images: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = trained / "0-1_3.ckpt"
    for name, weights in (("a", trained / "best.safetensors"), ("b", first)):
        flags = ["--data_dir", str(images), "--missing", "ignore", "--pretrained", str(weights)]
        assert main(["eval", *flags, "--output_dir", str(tmp_path / name)]) == 0
    capsys.readouterr()
    command = ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--fail_if_worse_by", "1"]
    status = main([*command, "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    means = [json.loads((tmp_path / name / "eval.json").read_text())["auroc"] for name in "ab"]
    assert (found["auroc_a"], found["auroc_b"]) == pytest.approx(means)
    assert found["low"] <= found["difference"] <= found["high"]
    assert status == int(means[0] - means[1] > 0.01)
    assert [one["label"] for one in found["labels"]]
    same = main(["compare", str(tmp_path / "a"), str(tmp_path / "a"), "--fail_if_worse_by", "0"])
    assert same == 0


def test_a_table_of_labels_is_not_taken_for_class_folders(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data_dir", str(images), "--output_dir", str(tmp_path / "run")]) == 2
    assert "is a table of labels; pass --task multilabel" in capsys.readouterr().err


def test_it_learns_from_a_teacher_and_resumes_exactly(
    trained: Path, images: Path, tmp_path: Path
) -> None:
    teacher = str(trained / "best.safetensors")
    whole = settings(
        images, tmp_path / "whole", teacher=teacher, ckpt_interval=1, keep_checkpoint_max=0
    )
    train(whole)
    middle = str(tmp_path / "whole" / "0-2_2.ckpt")
    train(replace(whole, output_dir=str(tmp_path / "again"), resume=middle))
    names = ("last.safetensors", "predictions.csv")
    for name in names:
        found = (tmp_path / "again" / name).read_bytes()
        assert found == (tmp_path / "whole" / name).read_bytes()


def test_several_weights_are_averaged_and_chosen_by_auroc(
    trained: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = [str(trained / f"0-{epoch}_3.ckpt") for epoch in (4, 5, 6)]
    command = ["average", *members, "--output", str(tmp_path / "soup.safetensors")]
    command += ["--method", "greedy", "--data_dir", str(images), "--workers", "0"]
    assert main(command) == 1
    assert "--missing" in capsys.readouterr().err
    assert main([*command, "--missing", "ignore"]) == 0
    assert "val: auroc=" in capsys.readouterr().out
    soup = read_weights(tmp_path / "soup.safetensors")
    assert soup.info is not None and soup.info.task == "multilabel"
    config = EvalConfig(
        data_dir=str(images),
        pretrained=str(tmp_path / "soup.safetensors"),
        output_dir=str(tmp_path / "eval"),
        missing="ignore",
    )
    (evaluation,) = evaluate(config).evaluations.values()
    assert evaluation is not None
    assert evaluation.metrics["auroc"] == pytest.approx(soup.origin["auroc"], abs=1e-12)


def test_a_table_is_refused_for_weights_of_one_class_per_image(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from helpers.weights import write_weights

    files = [str(write_weights(tmp_path / f"{seed}.safetensors", seed)) for seed in (1, 2)]
    command = ["average", *files, "--output", str(tmp_path / "o"), "--missing", "ignore"]
    assert main(command) == 2
    assert "the settings of a table of labels need --data_dir" in capsys.readouterr().err
    assert main([*command, "--data_dir", str(images)]) == 2
    assert "but the weights are of single_label" in capsys.readouterr().err
