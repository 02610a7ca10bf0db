"""Model cards: their numbers are those of the run, and what a run says is only text in them."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from sklearn.metrics import f1_score

from densenet121.card import run as about_run
from densenet121.card import run_card
from densenet121.card import weights as about_weights
from densenet121.card.markdown import escape
from densenet121.card.run import data, data_of, reproduce
from densenet121.checkpoint.native import ModelInfo
from densenet121.cli import parse
from densenet121.commands.calibrate import calibrate
from densenet121.commands.card import command_of
from densenet121.config import (
    CalibrateConfig,
    CardConfig,
    EvalConfig,
    TrainConfig,
    effective,
    settings_of,
)
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.engine.evaluate import evaluate
from densenet121.engine.start import effective_settings
from densenet121.engine.train import train
from densenet121.runs.checkpoints import Start
from densenet121.runs.evaluated import fitted_on
from densenet121.runs.layout import read_record
from densenet121.runs.read import read_run
from densenet121.runtime import joined
from densenet121.tasks import MultiLabel, SingleLabel, Task
from densenet121.tasks.single_label.predictions import Row
from densenet121.tasks.values import CheckpointScore, Results
from densenet121.utils.errors import InputError

from helpers.commands import run_command
from helpers.images import write_classes
from helpers.training import train_config
from helpers.weights import eval_config, write_weights

HOSTILE = "a|b<script>`[x](y)`"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Images and a run on them."""
    place = tmp_path_factory.mktemp("card")
    for split, count in (("train", 8), ("val", 4)):
        write_classes(place / "data" / split, ["ant", "bee", HOSTILE.replace("/", "")], count)
    train(train_config(place / "data", place / "run", amp="fp32"))
    return place / "data", place / "run"


def parts_of(page: str) -> tuple[dict[str, Any], str]:
    _, block, text = page.split("---\n", 2)
    return yaml.safe_load(block), text


def rows_of(text: str, title: str) -> dict[str, list[str]]:
    """The rows of the first table under a title, by their first cell."""
    part = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in rows[2:]}


def test_the_numbers_are_those_of_the_run(trained: tuple[Path, Path]) -> None:
    _, run = trained
    metadata, text = parts_of(run_card(run))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = [row for row in rows if row["kind"] == "eval"]
    best = max(evaluations, key=lambda row: (row["top1_correct"], -row["epoch"]))
    shown = rows_of(text, "Metrics")["top-1 accuracy"][0]
    assert f"({best['top1_correct']} of 12)" in shown
    (result,) = metadata["model-index"][0]["results"]
    assert result["metrics"][0]["type"] == "accuracy"
    assert result["metrics"][0]["value"] == pytest.approx(best["top1_correct"] / 12, abs=1e-6)
    record = json.loads((run / "run.json").read_text())
    for split in ("train", "val"):
        assert record["data"][split]["fingerprint"] in text
    assert "best of 2 validations on these same images" in text
    assert record["versions"]["torch"] in text
    assert str(run.parent) not in text  # a card is passed on, paths are not


def test_epochs_that_a_run_ended_before_are_said_beside_those_it_was_given(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    run = shutil.copytree(trained[1], tmp_path / "run")
    title, until = "How it was made", "epochs until the run ended"
    assert until not in rows_of(run_card(run), title)
    record = json.loads((run / "run.json").read_text())
    record["settings"]["max_epoch"] = 9
    (run / "run.json").write_text(json.dumps(record))
    rows = rows_of(run_card(run), title)
    assert (rows["epochs"], rows[until]) == (["`9`"], ["`2`"])


def test_an_evaluation_adds_predictions_and_is_of_these_weights(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    data, run = trained
    evaluate(eval_config(data / "val", run / "best.safetensors", tmp_path / "best"))
    _, text = parts_of(run_card(run, evaluation=tmp_path / "best"))
    import csv

    with (tmp_path / "best" / "predictions.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    labels, predicted = ([row[name] for row in found] for name in ("label", "predicted"))
    mean = f1_score(labels, predicted, average="macro", zero_division=0)
    assert rows_of(text, "Metrics")["F1, mean over classes"][0] == f"{100 * mean:.2f} %"
    assert "expected calibration error" in text
    assert "## Confusions" in text
    assert "best of 2 validations" not in text
    other = tmp_path / "other.safetensors"
    other.write_bytes((run / "last.safetensors").read_bytes())
    evaluate(eval_config(data / "val", other, tmp_path / "other"))
    if other.read_bytes() != (run / "best.safetensors").read_bytes():
        with pytest.raises(InputError, match=r"other: is of .*other\.safetensors, but the card is"):
            run_card(run, evaluation=tmp_path / "other")


def test_an_evaluation_of_weights_that_have_been_replaced_is_refused(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    """As by a run that was resumed for more epochs: its new weights had the old ones' numbers."""
    data, run = trained
    shutil.copytree(run, tmp_path / "run")
    best, moved = tmp_path / "run" / "best.safetensors", tmp_path / "moved"
    evaluate(eval_config(data / "val", best, tmp_path / "eval"))
    shutil.copytree(tmp_path / "run", moved)
    write_weights(best, seed=1)
    with pytest.raises(InputError, match="as it was before other weights were written there"):
        run_card(tmp_path / "run", evaluation=tmp_path / "eval")
    shutil.rmtree(tmp_path / "run")
    run_card(moved, evaluation=tmp_path / "eval")  # the same weights in another place
    write_weights(moved / "best.safetensors", seed=1)
    with pytest.raises(InputError, match=r"eval: is of .*best\.safetensors, but the card is"):
        run_card(moved, evaluation=tmp_path / "eval")


def test_a_card_says_of_which_images_its_numbers_are(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    """They were those of a test set beside the fingerprint of the validation images only."""
    data, run = trained
    write_classes(tmp_path / "test", sorted(path.name for path in (data / "val").iterdir()), 3)
    (tmp_path / "test" / "ant" / "bad.png").write_bytes(b"no image")
    for name, images, more in (
        ("val", data / "val", {}),
        ("train", data / "train", {}),
        ("test", tmp_path / "test", {"tta": "flip", "on_bad_image": "skip"}),
    ):
        evaluate(eval_config(images, run / "best.safetensors", tmp_path / f"of_{name}", **more))
    cards = {
        name: run_card(run, evaluation=tmp_path / f"of_{name}") for name in ("val", "train", "test")
    }
    of = {
        name: parts_of(page)[0]["model-index"][0]["results"][0]["dataset"]["name"]
        for name, page in cards.items()
    }
    assert of == {
        "val": "validation images",
        "train": "training images",
        "test": "evaluated images",
    }
    assert "Of 2 validations, that of these weights was the best" in cards["val"]
    assert list(rows_of(cards["val"], "Data")) == ["training", "validation"]
    assert "the images that the weights were trained on" in cards["train"]
    found = json.loads((tmp_path / "of_test" / "eval.json").read_text())
    assert rows_of(cards["test"], "Data")["evaluated"] == [f"`{found['data_fingerprint']}`", "10"]
    for said in (
        "these are not the images and labels that the run was validated on",
        "mean of 2 views of each image",
        "1 image could not be read and is not counted",
    ):
        assert said in cards["test"] and said not in cards["val"] + cards["train"]
    _, own = parts_of(run_card(tmp_path / "of_test"))  # the card of the evaluation itself
    assert list(rows_of(own, "Data")) == ["training", "validation", "evaluated"]


def test_an_evaluation_in_the_folder_of_the_run_is_not_taken_for_its_validation(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    data, run = trained
    shutil.copytree(run, tmp_path / "run")
    weights = tmp_path / "run" / "best.safetensors"
    evaluate(eval_config(data / "train", weights, tmp_path / "run"))
    _, text = parts_of(run_card(tmp_path / "run"))
    assert "(24 images)" not in text and "On 24 images." in text
    assert "the images that the weights were trained on" in text
    assert "on these same images" not in text
    assert read_run(tmp_path / "run").notes == [
        "These are the images that the weights were trained on."
    ]
    assert not read_run(run).notes


@pytest.mark.parametrize(
    ("name", "chosen"), [("last_calibrated", False), ("last_ema", False), ("best_calibrated", True)]
)
def test_weights_of_the_last_epoch_are_not_called_the_best_by_another_name(
    name: str, chosen: bool, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    data, run = trained
    weights = tmp_path / f"{name}.safetensors"
    shutil.copy(run / "last.safetensors", weights)
    evaluate(eval_config(data, weights, tmp_path / "eval"))
    _, text = parts_of(run_card(run, weights=weights, evaluation=tmp_path / "eval"))
    assert ("that of these weights was the best" in text) == chosen


def test_the_errors_before_and_after_the_temperature_are_told_apart(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    data, run = trained
    calibrated = tmp_path / "calibrated.safetensors"
    held = tmp_path / "held"
    write_classes(held, sorted(path.name for path in (data / "val").iterdir()), 8)
    learnt = calibrate(
        CalibrateConfig(
            data_dir=str(held), pretrained=str(run / "best.safetensors"), output=str(calibrated)
        )
    ).calibration
    evaluate(eval_config(data / "val", calibrated, tmp_path / "eval"))
    _, text = parts_of(run_card(run, weights=calibrated, evaluation=tmp_path / "eval"))
    shown = rows_of(text, "Metrics")
    name, after = "expected calibration error", learnt.note["expected_calibration_error"]
    assert f"{name} before the temperature {learnt.temperature:.4g}" in shown and name not in shown
    value = f"{100 * after['after']:.2f} % (12 held-out images of calibrate)"
    assert shown[f"{name} with it"][0] == value
    found = json.loads((tmp_path / "eval" / "eval.json").read_text())
    assert found["calibration"]["temperature"] == learnt.temperature


def test_a_folder_of_an_evaluation_has_a_card_too(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    data, run = trained
    evaluate(eval_config(data / "val", run / "best.safetensors", tmp_path / "eval"))
    command = command_of(read_record(tmp_path / "eval"))
    _, text = parts_of(run_card(tmp_path / "eval", command=command))
    assert "top-1 accuracy" in rows_of(text, "Metrics")
    assert re.search(r"densenet121 eval .*--data_dir DATA .*--pretrained best\.safetensors", text)
    assert "## Preprocessing" in text


def test_names_are_only_text(trained: tuple[Path, Path]) -> None:
    _, text = parts_of(run_card(trained[1], title="<b>t</b>"))
    assert "<script>" not in text
    assert r"a\|b\<script\>\`\[x\](y)\`" in text
    assert text.startswith("\n# \\<b\\>t\\</b\\>\n")


def test_the_command_gives_the_settings_of_the_run(trained: tuple[Path, Path]) -> None:
    made = settings_of(train_config(Path("DATA"), Path("x"), amp="fp32"))
    words = shlex.split(command_of(read_record(trained[1])))
    assert words[0] == "densenet121"
    name, config = parse(words[1:])
    assert name == "train"
    again = settings_of(config)
    for setting in ("image_size", "lr", "max_epoch", "net", "per_batch_size", "amp", "augment"):
        assert again[setting] == made[setting], setting
    assert "--flip_prob" not in words  # what `augment` stands for is not repeated


@pytest.mark.parametrize(
    "flags",
    [
        {"optimizer": "adamw", "lr": 1e-4, "rotate": 10.0, "clip_grad": 1.0},
        {"augment": "light", "crop_scale": "0.5,1.0", "label_smooth": 1},
        {"task": "multilabel", "labels": "A b,C", "uncertain": "ignore", "missing": "0"},
        {"pretrained": "/home/me/x y.safetensors", "freeze": "all_but_head"},
    ],
)
def test_each_setting_of_a_command_line_is_read_back(flags: dict[str, Any]) -> None:
    config = TrainConfig(data_dir="/home/me/images", **flags)
    words = shlex.split(command_of({"command": "train", "settings": settings_of(config)}))
    again = parse(words[1:])[1]
    changed = {"data_dir": "DATA"}
    if config.pretrained:
        changed["pretrained"] = "x y.safetensors"
    assert effective(settings_of(again)) == effective(settings_of(config) | changed)


def test_the_command_of_a_run_with_a_recipe_is_accepted() -> None:
    """Their schedule refuses T_max, which run.json has for every schedule."""
    config = TrainConfig.from_recipe("scratch_small", data_dir="images", max_epoch=7, device="cpu")
    seen = Preprocessing((224, 224), "256")
    info = ModelInfo("densenet121", "paper", ("a", "b"), seen, "single_label")
    with joined(config) as runtime:
        recorded = effective_settings(config, runtime, info, Start(None, None))
    assert recorded["T_max"] == 7
    words = shlex.split(command_of({"command": "train", "settings": recorded}))
    again = parse(words[1:])[1]
    for setting in ("lr_scheduler", "max_epoch", "lr", "optimizer", "T_max", "warmup_epochs"):
        assert getattr(again, setting) == getattr(config, setting), setting


def test_a_t_max_of_its_own_stays_in_the_command() -> None:
    settings = settings_of(TrainConfig(data_dir="images", T_max=60))
    assert "--T_max 60" in command_of({"command": "train", "settings": settings})


def label(count: int, auroc: float | None) -> dict[str, Any]:
    return {
        "n_positive": count, "n_negative": 10, "n_unknown": 1, "auroc": auroc,
        "auroc_ci": None if auroc is None else [0.5, 0.9], "average_precision": auroc,
        "brier": 0.1, "ece": 0.05, "threshold": 0.3, "sensitivity": 0.8,
        "sensitivity_ci": [0.6, 0.9], "specificity": 0.7, "specificity_ci": [0.6, 0.8],
        "ppv": None, "npv": 0.9,
    }  # fmt: skip


def test_several_labels_have_a_row_each_with_intervals_and_thresholds() -> None:
    metrics = {
        "total": 21, "auroc": 0.75, "average_precision": 0.75, "n_groups": 7,
        "labels": {"Edema": label(10, 0.75), "Hernia": label(0, None)},
        "macro": {"left_out": ["Hernia"], "auroc_ci": [0.6, 0.9]},
    }  # fmt: skip
    part = MultiLabel().card(
        Results(
            validations=[],
            scores=[CheckpointScore("best.safetensors", "", 0.4, metrics)],
            predictions=[],
            class_names=["Edema", "Hernia"],
        )
    )
    assert part.metrics["roc_auc"] == ("AUROC, mean over labels", 0.75)
    main, labels, points = part.tables
    assert main.rows[0] == ["AUROC, mean over labels", "0.7500", "0.6000 to 0.9000"]
    assert "7 groups" in main.text
    assert "Hernia" in main.text
    assert [row[:6] for row in labels.rows] == [
        ["Edema", "10", "10", "1", "0.7500", "0.5000 to 0.9000"],
        ["Hernia", "0", "10", "1", "undefined", ""],
    ]
    assert points.rows[0][1:3] == ["0.3", "0.8000 0.6000 to 0.9000"]


def test_intervals_over_few_groups_are_called_too_narrow_where_they_are_shown() -> None:
    """The log of eval said so, but neither the card nor the report of labels with few positives."""
    labels = {"Edema": label(10, 0.75), "Hernia": label(3, 0.6) | {"threshold": 0.0000123}}
    said = "positives, or negatives, of fewer than 20 groups: Hernia."
    content: dict[str, Any] = {
        "total": 60, "auroc": 0.7, "average_precision": 0.7, "n_groups": 30,
        "few_groups": ["Hernia"], "labels": labels, "macro": {"left_out": [], "auroc_ci": None},
    }  # fmt: skip
    several = Results(
        validations=[],
        scores=[CheckpointScore("best", "", 0.4, MultiLabel().check_metrics(content))],
        predictions=[],
        class_names=list(labels),
    )
    shown = MultiLabel().card(several)
    page = "".join(MultiLabel().report(several).sections)
    assert said in shown.tables[0].text and said in page
    del content["n_groups"]  # over images, where those of the means are bootstrapped too
    content["macro"] |= {"auroc_ci": [0.6, 0.8]}
    alone = replace(several, scores=[CheckpointScore("best", "", 0.4, content)])
    said = "positives, or negatives, of fewer than 20 images: Edema, Hernia."
    assert said in MultiLabel().card(alone).tables[0].text
    assert said in "".join(MultiLabel().report(alone).sections)
    # The same digits in both: a small threshold is not 0.
    assert shown.tables[2].rows[1][1:3] == ["1.23e-05", "0.8000 0.6000 to 0.9000"]
    assert "1.23e-05" in page and "0.8000 (0.6000 to 0.9000)" in page
    assert "0.5000 to 0.9000" in page
    one = {"top1_correct": 4, "top5_correct": 6, "total": 6, "n_groups": 3}
    results = Results(
        validations=[],
        scores=[CheckpointScore("best", "", 0.4, one | {"top1_ci": [0, 1], "top5_ci": None})],
        predictions=[Row(str(i), "a", "a" if i < 4 else "b", 0.9, 1) for i in range(6)],
        class_names=["a", "b"],
    )
    few = "ith fewer than 20 groups such intervals are too narrow"
    main, classes = SingleLabel().card(results).tables[:2]
    assert few in main.text and few in "".join(SingleLabel().report(results).cards)
    assert classes.text == "1 of 2 classes has no images here and is not in the means."


def test_a_card_says_how_many_temperatures_and_offsets_it_does_not_show() -> None:
    content = {"temperatures": [1.5] * 23, "note": {"offsets": [0.5] * 21}}
    text = about_run.calibration(content, {})
    assert f"| temperatures | {', '.join(['1.5'] * 20)} and 3 more |" in text
    assert f"{', '.join(['+0.5'] * 20)} and 1 more |" in text


def test_a_card_says_on_which_images_the_weights_were_calibrated() -> None:
    """Those of the training were called held-out."""
    known = {"train": {"fingerprint": "aa"}, "val": {"fingerprint": "bb"}}
    for fingerprint, kind in (("aa", "training"), ("bb", "validation"), ("cc", "held-out")):
        content = {"temperature": 1.5, "note": {"fingerprint": fingerprint}}
        text = about_run.calibration(content, known)
        assert re.search(rf"\| {kind} images.* \| `{fingerprint}` \|", text)
        assert "| held-out images | `cc` |" in text or fingerprint != "cc"
        assert fitted_on(content, {"data_fingerprint": fingerprint})
        assert not fitted_on(content, {"data_fingerprint": "dd"})
    assert not fitted_on(None, {}) and not fitted_on({"note": {}}, {})


def test_a_task_of_ones_own_shows_its_numbers() -> None:
    score = CheckpointScore("best.safetensors", "", 0.25, {"rank_error": 1.5, "labels": {}})
    results = Results(validations=[], scores=[score], predictions=[], class_names=[])
    part = Task.card(SingleLabel(), results)
    assert part.tables[0].rows == [["loss", "0.25"], ["rank error", "1.5"]]


@pytest.fixture
def cut_files(trained: tuple[Path, Path], tmp_path: Path) -> Iterator[Path]:
    for file in trained[1].iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    yield tmp_path


def test_a_run_without_some_of_its_files_has_a_card_without_them(cut_files: Path) -> None:
    (cut_files / "best.safetensors").unlink()
    (cut_files / "last.safetensors").unlink()
    (cut_files / "run.json").unlink()
    _, text = parts_of(run_card(cut_files))
    assert "The run does not record its data." in text
    assert "top-1 accuracy" in text
    (cut_files / "eval.json").write_text("{")
    with pytest.raises(InputError, match=r"eval\.json: not readable as JSON"):
        run_card(cut_files)


def test_the_command_writes_the_card_and_refuses_what_is_no_run(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    done = run_command("card", trained[1], "--output", tmp_path / "card.md")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'card.md'}\n")
    assert (tmp_path / "card.md").read_text().startswith("---\nlibrary_name: densenet121\n")
    assert CardConfig(run="x").output is None
    refused = run_command("card", tmp_path)
    assert refused.returncode == 1
    assert "has neither metrics.jsonl nor eval.json" in refused.stderr


def test_a_hugging_face_folder_of_a_run_has_its_card(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        write_classes(tmp_path / "data" / split, ["ant", "bee"], count)
    train(
        train_config(
            tmp_path / "data",
            tmp_path / "run",
            amp="fp32",
            net="densenet121",
            image_size=32,
            max_epoch=1,
        )
    )
    source, target = tmp_path / "run" / "best.safetensors", tmp_path / "model"
    done = run_command("convert", source, target, "--to", "huggingface")
    assert done.returncode == 0, done.stderr
    metadata, text = parts_of((target / "README.md").read_text())
    assert (metadata["library_name"], metadata["model-index"][0]["name"]) == ("timm", "model")
    for part in ("## Use", "## Metrics", "## Confusions", "densenet121 train --data_dir DATA"):
        assert part in text
    (tmp_path / "run" / "eval.json").write_text("{")
    refused = run_command("convert", source, tmp_path / "again", "--to", "huggingface")
    assert refused.returncode == 1
    assert "eval.json: not readable as JSON" in refused.stderr
    assert "README.md is the card of this run" in refused.stderr
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("net", ["densenet121", None])  # older evaluations recorded their default
def test_the_command_of_an_evaluation_asks_for_nothing_that_the_weights_would_refuse(
    net: str | None,
) -> None:
    config = EvalConfig(data_dir="images", pretrained="int8.safetensors")
    settings = settings_of(config) | {"net": net, "amp": "int8"}
    words = shlex.split(command_of({"command": "eval", "settings": settings}))
    assert words[:2] == ["densenet121", "eval"] and not {"--net", "--amp"} & set(words)


def test_a_name_in_a_card_is_no_command_to_the_terminal() -> None:
    assert escape("a\n# b\x1b[2J\x9b|") == r"a \# b\\x1b\[2J\\x9b\|"


def test_what_a_run_records_ends_no_cell_and_no_block() -> None:
    """Written by anybody who passes a run on."""
    bad = "x|<script>|[a](b)\x1b[2J\n```\n# Title\udcfc"
    record = {
        "platform": bad,
        "git_commit": bad,
        "settings": {"loss": bad},
        "data": {"train": {"fingerprint": bad, "pictures": 1}},
    }
    text = "\n".join(
        [data(data_of(record, {}), {}), reproduce(record, f"densenet121 train --labels {bad}")]
    )
    assert text.encode() and "\x1b" not in text and "\n# Title" not in text
    assert text.count("\n```\n") == 2  # of the one block
    rows = [line for line in text.splitlines() if line.startswith("| ") and "script" in line]
    assert len(rows) == 4
    for row in rows:
        head = 3 if row.startswith("| training") else 2
        assert len(re.split(r"(?<!\\)\|", row)) == head + 2, row


def test_the_card_of_a_network_of_one_channel_says_so_and_whose_mean_it_is() -> None:
    of_one = Preprocessing((32, 32), "32", (114.5,), (57.6,), "opencv_bilinear")
    shown = about_weights.preprocessing(ModelInfo("densenet40", "paper", (), of_one))
    assert "| mean of the one channel (0 to 255) | 114.5 |" in shown
    assert "| channels | one grey channel; colours become L" in shown
    of_three = replace(of_one, mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0))
    shown = about_weights.preprocessing(ModelInfo("densenet40", "paper", (), of_three))
    assert "| mean of R, G, B (0 to 255) | 1, 2, 3 |" in shown and "one grey" not in shown
