"""One run: what it learns, what it writes, and what it refuses."""

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import read, save
from densenet121.config import EvalConfig
from densenet121.engine.evaluate import evaluate
from densenet121.engine.train import train
from densenet121.report import write_report
from densenet121.runs.layout import checkpoints_in
from densenet121.runs.metrics import read_rows
from densenet121.utils.errors import InputError, UsageError

from helpers.images import draw, write_classes
from helpers.training import train_config


@pytest.fixture(scope="module")
def finished(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that went through; not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    result = train(train_config(image_folder, folder))
    assert not result.stopped
    return folder


def test_a_run_folder_holds_what_the_interface_promises(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    promised = {"run.json", "metrics.jsonl", "best.safetensors", "last.safetensors", "eval.json"}
    assert promised | {"predictions.csv", "0-1_3.ckpt", "0-2_3.ckpt"} < names
    (log,) = finished.glob("*.log")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_time_\d\d_\d\d_\d\d_rank_0\.log", log.name)
    assert len(names - {"error_maps"}) == 9  # nothing temporary is left
    run = json.loads((finished / "run.json").read_text())
    assert run["class_names"] == ["ant", "bee", "cat"]
    assert run["settings"]["lr"] == 0.05
    assert run["data"]["train"]["pictures"] == 45
    assert run["versions"]["torch"] == torch.__version__


def test_the_log_has_the_originals_lines(finished: Path) -> None:
    (log,) = finished.glob("*.log")
    lines = log.read_text().splitlines()
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}:INFO:"
    step = rf"{time}epoch\[(\d)\], iter\[(\d)\], loss:\d+\.\d+, mean_fps:\d+\.\d\d imgs/sec"
    assert [m.groups() for line in lines if (m := re.fullmatch(step, line))] == [
        ("0", "1"),
        ("0", "2"),
        ("1", "3"),
        ("1", "5"),
    ]
    assert sum(bool(re.fullmatch(rf"{time}local passed", line)) for line in lines) == 2
    counted = rf"{time}after allreduce eval: top1_correct=\d+, tot=21, acc=\d+\.\d\d%"
    assert sum(bool(re.fullmatch(counted, line)) for line in lines) == 2
    assert any(line.endswith("INFO:--> lr: 0.05") for line in lines)


def test_metrics_count_epochs_and_steps_from_nought(finished: Path) -> None:
    rows = read_rows(finished / "metrics.jsonl")
    trained = [(row["epoch"], row["step"]) for row in rows if row["kind"] == "train"]
    evaluated = [(row["epoch"], row["step"]) for row in rows if row["kind"] == "eval"]
    assert trained == [(0, 1), (0, 2), (1, 3), (1, 5)]
    assert evaluated == [(0, 2), (1, 5)]
    for row in rows:
        if row["kind"] == "eval":
            assert row["total"] == 21
            assert row["top1"] == row["top1_correct"] / 21


def test_loss_starts_near_the_logarithm_of_the_number_of_classes(finished: Path) -> None:
    assert abs(read_rows(finished / "metrics.jsonl")[0]["loss"] - math.log(3)) < 0.5


def test_eval_repeats_the_last_validation_exactly(
    finished: Path, image_folder: Path, tmp_path: Path
) -> None:
    result = evaluate(
        EvalConfig(
            data_dir=str(image_folder),
            pretrained=str(finished / "last.safetensors"),
            output_dir=str(tmp_path / "eval"),
            per_batch_size=15,
            workers=2,
        )
    )
    assert result.complete
    own = json.loads((tmp_path / "eval" / "eval.json").read_text())
    of_run = json.loads((finished / "eval.json").read_text())
    for name in ("digest", "top1_correct", "top5_correct", "total", "loss"):
        assert own[name] == of_run[name]
    predictions = (tmp_path / "eval" / "predictions.csv").read_text()
    assert predictions == (finished / "predictions.csv").read_text()
    assert len(predictions.splitlines()) == 1 + 21


def test_the_best_weights_are_those_of_the_best_epoch(finished: Path) -> None:
    rows = [row for row in read_rows(finished / "metrics.jsonl") if row["kind"] == "eval"]
    best = max(rows, key=lambda row: (row["top1_correct"], -row["epoch"]))
    assert read_weights(finished / "best.safetensors").origin["epoch"] == best["epoch"]
    assert read_weights(finished / "last.safetensors").origin["epoch"] == 1


def test_the_number_of_workers_does_not_change_a_bit(
    image_folder: Path, finished: Path, tmp_path: Path
) -> None:
    train(train_config(image_folder, tmp_path / "run", workers=3))
    _, ours, _ = read(tmp_path / "run" / "0-2_3.ckpt")
    _, theirs, _ = read(finished / "0-2_3.ckpt")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_another_seed_is_another_run(image_folder: Path, finished: Path, tmp_path: Path) -> None:
    train(train_config(image_folder, tmp_path / "run", seed=2, max_epoch=1, T_max=2))
    _, ours, _ = read(tmp_path / "run" / "0-1_3.ckpt")
    _, theirs, _ = read(finished / "0-1_3.ckpt")
    name = "model.features.conv0.weight"
    assert not torch.equal(ours[name], theirs[name])


@pytest.mark.parametrize("amp", ["O2", pytest.param("O3", marks=pytest.mark.slow)])
def test_mixed_precision_trains_with_float32_weights(
    image_folder: Path, tmp_path: Path, amp: Any
) -> None:
    train(train_config(image_folder, tmp_path / "run", amp=amp, max_epoch=1))
    _, tensors, content = read(tmp_path / "run" / "0-1_3.ckpt")
    floats = [t for name, t in tensors.items() if t.is_floating_point() and "model." in name]
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in floats)
    assert bool(content["scaler"]) == (amp == "O3")


def test_separable_classes_are_learnt(image_folder: Path, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"color_jitter": "0,0,0", "max_epoch": 6, "per_batch_size": 9}
    result = train(train_config(image_folder, tmp_path / "run", **flags))
    assert result.evaluation is not None
    assert result.evaluation.metrics["top1_correct"] == 21


def test_only_the_newest_checkpoints_are_kept(image_folder: Path, tmp_path: Path) -> None:
    train(train_config(image_folder, tmp_path / "run", ckpt_interval=1, keep_checkpoint_max=2))
    names = [path.name for path in checkpoints_in(tmp_path / "run")]
    assert names == ["0-2_3.ckpt", "0-2_2.ckpt"]


def test_other_classes_get_a_new_head_and_keep_the_features(finished: Path, tmp_path: Path) -> None:
    data_dir = write_classes(tmp_path / "data", ["x", "y"], 8)
    source = str(finished / "last.safetensors")
    config = train_config(data_dir, tmp_path / "run", per_batch_size=8, lr=0, max_epoch=1)
    train(replace(config, pretrained=source))
    ours = read_weights(tmp_path / "run" / "last.safetensors")
    theirs = read_weights(Path(source))
    assert ours.num_classes == 2
    name = "features.denseblock1.denselayer1.conv1.weight"
    assert torch.equal(ours.state_dict[name], theirs.state_dict[name])
    (log,) = (tmp_path / "run").glob("*.log")
    assert "its 3 classes differ from the 2 of the data, so the head is new" in log.read_text()


def test_fewer_images_than_a_batch_still_train(tmp_path: Path) -> None:
    data_dir = write_classes(tmp_path / "data", ["x", "y"], 3)
    result = train(train_config(data_dir, tmp_path / "run", max_epoch=1))
    assert result.evaluation is None
    assert (tmp_path / "run" / "0-1_1.ckpt").exists()


def test_an_infinite_loss_stops_the_run_and_names_the_step(
    image_folder: Path, tmp_path: Path
) -> None:
    # After the first step the weights are near 1e30: finite, but their products are not.
    config = train_config(image_folder, tmp_path / "run", lr=1e30, log_interval=3)
    told = (
        r"loss is nan or infinite at epoch 0, step 1 .* this run has not written a checkpoint yet"
    )
    with pytest.raises(InputError, match=told):
        train(config)
    assert not checkpoints_in(tmp_path / "run")
    (log,) = (tmp_path / "run").glob("*.log")
    assert re.search(rf"ERROR:{told}", log.read_text().splitlines()[-1])


def test_infinite_weights_are_never_saved(image_folder: Path, tmp_path: Path) -> None:
    # 1e39 is beyond float32: the first step's loss is fine, and the weights after it are not.
    config = train_config(image_folder, tmp_path / "run", lr=1e39, ckpt_interval=1)
    with pytest.raises(InputError, match=r"weights are nan or infinite after step 0"):
        train(config)
    assert not checkpoints_in(tmp_path / "run")


def test_infinite_running_statistics_end_the_run_and_no_weights_have_them(tmp_path: Path) -> None:
    # Outputs above 1e19 have an infinite variance in float32, and are 0: the loss stays finite.
    data_dir = write_classes(tmp_path / "data", ["x", "y"], 6)
    config = train_config(data_dir, tmp_path / "run", per_batch_size=6)
    before = train(replace(config, max_epoch=1, T_max=2)).folder / "0-1_2.ckpt"
    _, tensors, content = read(before)
    tensors["model.features.denseblock1.denselayer1.norm2.running_var"][3] = math.inf
    save(tmp_path / before.name, "checkpoint", tensors, content)
    told = r"running statistics of batch norm are nan or infinite after step 3; .*; a lower `lr` or"
    with pytest.raises(InputError, match=told):
        train(replace(config, T_max=2, resume=str(tmp_path / before.name), output_dir=None))
    assert {file.name for file in tmp_path.glob("*.*t*")} == {before.name}  # no weights


@pytest.mark.parametrize("several", [False, True], ids=["single_label", "multilabel"])
def test_infinite_logits_of_a_validation_are_a_training_that_diverged(
    image_folder: Path, tmp_path: Path, several: bool
) -> None:
    # One step, after which the weights are large, and nothing normalises what they give.
    flags: dict[str, Any] = {"lr": 1e6, "freeze_bn": "1", "per_batch_size": 100, "max_epoch": 1}
    config = train_config(image_folder, tmp_path / "run", **flags)
    if several:
        for side in ("train", "val"):
            paths = sorted((image_folder / side).rglob("*.png"))
            cells = "".join(f"{path},{number % 2}\n" for number, path in enumerate(paths))
            (tmp_path / f"{side}.csv").write_text(f"path,ant\n{cells}")
        table, val = str(tmp_path / "train.csv"), str(tmp_path / "val.csv")
        config = replace(config, task="multilabel", data_dir=table, val_dir=val)
    told = (
        r"^the weights give nan or infinite logits for \d+ of \d+ images in the validation after "
        r"step 0: the training diverged; the last good checkpoint is .*0-1_1.ckpt; a lower `lr` or "
    )
    with pytest.raises(InputError, match=told):
        train(config)


def test_an_image_that_cannot_be_read_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    data_dir = write_classes(tmp_path / "data", ["x", "y"], 8)
    (data_dir / "x" / "004.png").write_bytes(b"\x89PNG\r\n\x1a\n but not really")
    config = train_config(data_dir, tmp_path / "run", per_batch_size=4, max_epoch=1)
    with pytest.raises(InputError, match=r"x/004\.png.*saved .*ckpt.*`resume` auto"):
        train(config)
    assert checkpoints_in(tmp_path / "run")
    result = train(replace(config, resume="auto", on_bad_image="skip"))
    assert list(result.bad_images) == ["x/004.png"]


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_a_validation_image_that_cannot_be_read_is_named_with_how_to_go_on(
    ema_decay: float | None, tmp_path: Path
) -> None:
    write_classes(tmp_path / "data" / "train", ["x", "y"], 8)
    bad = write_classes(tmp_path / "data" / "val", ["x", "y"], 4) / "y" / "001.png"
    image = bad.read_bytes()
    bad.write_bytes(image[:40])
    config = train_config(tmp_path / "data", tmp_path / "run", max_epoch=1, ema_decay=ema_decay)
    told = r"y/001\.png: not a readable .*; the last good checkpoint is .*ckpt; .*`resume` auto"
    with pytest.raises(InputError, match=told):
        train(config)
    bad.write_bytes(image)
    assert train(replace(config, resume="auto")).evaluation is not None


def test_unreadable_training_images_are_told_from_validation_images_of_the_same_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folders often have the same names; two bad images were counted as one."""
    for split in ("train", "val"):
        folder = write_classes(tmp_path / "data" / split, ["x", "y"], 8)
        (folder / "x" / "004.png").write_bytes(b"not an image")
    config = train_config(tmp_path / "data", tmp_path / "run", on_bad_image="skip", max_epoch=1)
    result = train(config)
    assert list(result.bad_images) == list(result.bad_val_images) == ["x/004.png"]
    assert "2 images could not be read and were skipped:" in capsys.readouterr().out
    content = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert content["bad_training_images"] == len(content["bad_images"]) == 1
    page = write_report(tmp_path / "run").read_text()
    assert "16 training images, 1 of which could not be read" in page
    assert "The training left out 1 image that could not be read." in page


def test_a_run_whose_images_are_all_skipped_ends_after_the_first_epoch(tmp_path: Path) -> None:
    """It had gone on to its last epoch, with the weights that it began with."""
    data_dir = write_classes(tmp_path / "data", ["x", "y"], 4)
    for image in data_dir.glob("*/*.png"):
        image.write_bytes(b"not an image")
    config = train_config(data_dir, tmp_path / "run", on_bad_image="skip", max_epoch=3)
    told = r"too few of the 8 images can be read for one step; .*first fault: .*/[xy]/00\d\.png: "
    with pytest.raises(InputError, match=told):
        train(config)
    assert not checkpoints_in(tmp_path / "run")


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_single_readable_image_that_batch_norm_cannot_train_on_is_left_out(
    tmp_path: Path, accumulation: int
) -> None:
    data_dir = write_classes(tmp_path / "data", ["x", "y"], 4)
    (data_dir / "x" / "002.png").write_bytes(b"not an image")
    # The last features of 32 x 32 pixels are 1 x 1.
    flags: dict[str, Any] = {"net": "densenet121", "image_size": 32, "per_batch_size": 2}
    flags |= {"gradient_accumulation": accumulation, "log_interval": 1, "max_epoch": 1}
    result = train(train_config(data_dir, tmp_path / "run", on_bad_image="skip", **flags))
    assert list(result.bad_images) == ["x/002.png"]
    losses = [row["loss"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")]
    assert [loss is None for loss in losses].count(True) == (1 if accumulation == 1 else 0)


def test_a_run_is_not_written_among_the_class_folders(image_folder: Path, tmp_path: Path) -> None:
    """The next run would have trained on its curves, as images of a further class."""
    for split in ("train", "val"):
        shutil.copytree(image_folder / split, tmp_path / split)
    for folder in (tmp_path / "train" / "output", tmp_path / "val" / "ant" / "run"):
        with pytest.raises(UsageError, match=r"`output_dir` .* is among the class folders of"):
            train(train_config(tmp_path, folder))
        assert not folder.exists()
    flat = train_config(tmp_path / "train", tmp_path / "run", output_dir=None, max_epoch=1)
    with pytest.raises(UsageError, match=r"`ckpt_path` .* is among the class folders of"):
        train(replace(flat, ckpt_path=str(tmp_path / "train" / "output")))
    # Beside train/, and hidden, it is read by nobody.
    run = train(train_config(tmp_path, tmp_path / "output" / "run", max_epoch=1)).folder
    weights, val = str(run / "last.safetensors"), str(tmp_path / "val")
    with pytest.raises(UsageError, match=r"`log_path` .* is among the class folders of"):
        evaluate(EvalConfig(data_dir=val, pretrained=weights, log_path=f"{val}/output"))
    train(replace(flat, ckpt_path=str(tmp_path / "train" / ".runs")))


def test_a_folder_that_holds_a_run_is_not_written_over(image_folder: Path, finished: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}
    with pytest.raises(UsageError, match=r"already has a run .*`resume` auto"):
        train(train_config(image_folder, finished))
    assert before == {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"num_classes": 5}, "`num_classes` is 5, but .* has 3"),
        ({"pretrained": "/nowhere/w.ckpt"}, "/nowhere/w.ckpt: there is no such weights file"),
        ({"resume": "/nowhere/0-1_3.ckpt"}, "must be auto or a checkpoint; there is no file /now"),
        (
            {"resume": "."},
            "is a folder; pass `resume` auto `output_dir` /.* to go on from its newest",
        ),
        ({"device": "abacus"}, "`device` must be one of cpu"),
        ({"group_size": 2}, "no launcher started 2 processes; start them with: torchrun"),
        ({"eval_resize": "8"}, "`eval_resize`"),
        ({"net": "densenet121"}, "`image_size` must be at least 29"),
        (
            {"net": "densenet121", "image_size": 60, "per_batch_size": 1},
            "batch norm needs more than one value per channel: with `image_size` 60,60 pass `per_b",
        ),
        ({"variant": "model_zoo"}, "pass `variant` paper"),
    ],
)
def test_what_cannot_be_used_is_refused_before_a_folder_is_made(
    image_folder: Path, tmp_path: Path, flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(train_config(image_folder, tmp_path / "run", **flags))
    assert not (tmp_path / "run").exists()


def test_validation_images_of_other_classes_are_refused(image_folder: Path, tmp_path: Path) -> None:
    other = write_classes(tmp_path / "other", ["ant", "bee", "dog"], 2)
    with pytest.raises(InputError, match=r"missing: cat; unknown: dog"):
        train(train_config(image_folder, tmp_path / "run", val_dir=str(other)))


def test_sixteen_bit_grey_images_train(tmp_path: Path) -> None:
    for name, level in (("dark", 5_000), ("light", 50_000)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(4):
            grey = draw(0, index)[..., 0].astype(np.uint16) * 20 + level
            cv2.imwrite(str(tmp_path / "data" / name / f"{index}.png"), grey)
    assert not train(train_config(tmp_path / "data", tmp_path / "run", max_epoch=1)).stopped
