"""Trackers: what they are given, and what happens without them. tests/system has the real ones."""

import json
import logging
import re
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from densenet121.config import TrainConfig
from densenet121.engine.build import build_training
from densenet121.engine.epoch import load_epoch
from densenet121.engine.first_batch import draw_first_batch
from densenet121.engine.images import find_datasets
from densenet121.engine.loading import LoadingClock
from densenet121.engine.train import train
from densenet121.runs.tracker_libraries import values_of
from densenet121.runs.trackers import Trackers
from densenet121.runtime import joined
from densenet121.tasks import SingleLabel
from densenet121.utils.errors import UsageError

from helpers.training import train_config

TRAIN = {"kind": "train", "epoch": 1, "step": 7, "loss": 0.5, "lr": 0.1, "data_wait": 0.0}
EVAL = {"kind": "eval", "epoch": 1, "step": 7, "loss": 0.7, "top1": 0.5, "labels": {"a": 1},
        "auroc": None, "exact": True}  # fmt: skip


def test_rows_have_the_names_that_trackers_group_by() -> None:
    assert values_of(TRAIN) == {"train/loss": 0.5, "lr": 0.1, "train/data_wait": 0.0}
    assert values_of(EVAL) == {"val/loss": 0.7, "val/top1": 0.5}
    assert values_of(EVAL | {"kind": "eval_ema"}) == {"val_ema/loss": 0.7, "val_ema/top1": 0.5}


@pytest.mark.skipif(find_spec("tensorboard") is not None, reason="it is installed, so it works")
def test_a_tracker_that_fails_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trackers = Trackers(("tensorboard",), tmp_path, {"lr": 0.1})
    with caplog.at_level(logging.WARNING, logger="densenet121"):
        trackers.begin([], None)
        trackers.note(TRAIN)
        trackers.close(failed=False)
    (record,) = caplog.records
    assert record.message.startswith("tensorboard: ModuleNotFoundError: ")
    assert record.message.endswith("; the run goes on")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(find_spec("tensorboard") is not None, reason="it is installed, so it writes")
def test_images_after_the_checkpoint_of_a_resumed_run_are_removed(tmp_path: Path) -> None:
    before, now = tmp_path / "before" / "tracker_images", tmp_path / "now" / "tracker_images"
    for folder in (before, now):
        folder.mkdir(parents=True)
        for name in ("00000000_first_batch", "00000007_confusion", "00000011_confusion"):
            (folder / f"{name}.png").write_bytes(folder.parent.name.encode())
    trackers = Trackers(("tensorboard",), now.parent, {})
    trackers.begin([TRAIN, EVAL], before.parent, lambda: b"drawn")
    files = {file.name: file.read_bytes() for file in now.iterdir()}
    assert files == {"00000000_first_batch.png": b"drawn", "00000007_confusion.png": b"before"}
    assert len(list(before.iterdir())) == 3


def test_the_first_batch_is_drawn_as_the_network_gets_it(image_folder: Path) -> None:
    config = train_config(image_folder, image_folder, per_batch_size=5, seed=4)
    images, _ = find_datasets(config)
    with joined(config) as runtime:
        plan = build_training(config, SingleLabel(), images, runtime, None).plan
        (first, *_) = load_epoch(plan, 0, 0, LoadingClock())
    sheet = cv2.imdecode(np.frombuffer(draw_first_batch(plan), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert sheet is not None
    assert sheet.shape == (2 * 16 + 2, 3 * 16 + 4, 3)
    for place, pixels in enumerate(first.images.numpy()):
        top, left = place // 3 * 18, place % 3 * 18
        assert np.array_equal(sheet[top : top + 16, left : left + 16], pixels)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("tensorbord", "--log_to must be of tensorboard, wandb, mlflow, got tensorbord"),
        ("", None),
        ("mlflow,,wandb", "--log_to must be of"),
    ],
)
def test_an_unknown_tracker_is_refused(given: str, message: str | None) -> None:
    if message is None:
        assert TrainConfig(data_dir="x", log_to=given).trackers == ()
        return
    with pytest.raises(UsageError, match=f"^{message}|not installed"):
        TrainConfig(data_dir="x", log_to=given)


@pytest.mark.skipif(find_spec("wandb") is not None, reason="it is installed")
def test_a_tracker_that_is_not_installed_is_refused_with_its_extra() -> None:
    with pytest.raises(
        UsageError, match=r"wandb is not installed; pip install 'densenet121\[wandb"
    ):
        TrainConfig(data_dir="x", log_to="wandb")


def test_a_run_without_trackers_leaves_nothing_of_them_and_says_when_it_ends(
    image_folder: Path, tmp_path: Path
) -> None:
    done = train(train_config(image_folder, tmp_path / "run", max_epoch=2))
    names = {file.name for file in done.folder.iterdir()}
    assert not names & {"trackers.json", "tensorboard", "tracker_images"}
    (log,) = done.folder.glob("*.log")
    lines = [line for line in log.read_text().splitlines() if "epochs done" in line]
    assert len(lines) == 1
    assert "1 of 2 epochs done, about " in lines[0]
    rows = (done.folder / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(row)["kind"] for row in rows} == {"train", "eval"}


def test_the_time_left_is_told_only_of_epochs_like_those_it_is_measured_on(
    image_folder: Path, tmp_path: Path
) -> None:
    weights = train(train_config(image_folder, tmp_path / "first", max_epoch=1)).folder
    config = train_config(
        image_folder,
        tmp_path / "run",
        max_epoch=5,
        image_size=24,
        small_size=16,
        small_epochs=2,
        pretrained=str(weights / "last.safetensors"),
        freeze="all_but_head",
        freeze_epochs=3,
    )
    (log,) = train(config).folder.glob("*.log")
    found = re.findall(r"\d of 5 epochs done.*", log.read_text())
    assert [re.sub(r"about .* left", "about T left", line) for line in found] == [
        "1 of 5 epochs done, about T left of the first 2; then images are of 24 x 24",
        "2 of 5 epochs done; from here images are of 24 x 24",
        "3 of 5 epochs done; from here frozen layers learn, too",
        "4 of 5 epochs done, about T left",
    ]
