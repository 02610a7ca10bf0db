"""Runs with augmentation: killed and resumed exactly, the same with any workers, and refusals."""

import contextlib
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from densenet121.checkpoint.native import read
from densenet121.config import TrainConfig
from densenet121.datasets.sources.folder import scan
from densenet121.engine.augmentation import make_mixing
from densenet121.engine.train import train
from densenet121.runs.layout import checkpoints_in, read_record
from densenet121.runs.metrics import read_rows
from densenet121.utils.errors import UsageError

from helpers.commands import environment
from helpers.forking import Forked
from helpers.ranks import result
from helpers.ranks import train as train_ranks
from helpers.training import train_config

MUCH: dict[str, Any] = {
    "augment": "trivial",
    "mixup": 0.2,
    "cutmix": 1.0,
    "erase_prob": 0.5,
    "rotate": 10.0,
    "turns": 1,
}
STEPS = 6  # two epochs of three


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run leaves but times and paths."""
    _, tensors, content = read(folder / "0-2_3.ckpt")
    timed = ("images_per_second", "data_wait")
    rows = read_rows(folder / "metrics.jsonl")
    return {
        "tensors": {name: tensor.numpy().tobytes() for name, tensor in tensors.items()},
        "state": content["state"],
        "metrics": [{k: v for k, v in row.items() if k not in timed} for row in rows],
        "last": (folder / "last.safetensors").read_bytes(),
        "predictions": (folder / "predictions.csv").read_bytes(),
    }


@pytest.fixture(scope="module")
def config(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("augmented") / "run"
    return train_config(image_folder, folder, ckpt_interval=1, keep_checkpoint_max=0, **MUCH)


@pytest.fixture(scope="module")
def uninterrupted(config: TrainConfig) -> Path:
    """Not to be changed."""
    return train(config).folder


@pytest.mark.parametrize("steps_done", range(1, STEPS + 1))
def test_resumed_run_equals_uninterrupted_run_from_every_step(
    config: TrainConfig, uninterrupted: Path, tmp_path: Path, steps_done: int
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    for path in checkpoints_in(folder)[::-1][steps_done:]:
        path.unlink()
    workers = (0, 1, 2, 5)[steps_done % 4]
    train(replace(config, output_dir=str(folder), resume="auto", workers=workers))
    assert outcome(folder) == outcome(uninterrupted)


@pytest.mark.slow
def test_a_process_killed_at_a_random_moment_ends_as_if_it_had_not_been(
    image_folder: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    seed = int(time.time())
    print(f"seed {seed}")
    folder = tmp_path / "run"
    flags: dict[str, Any] = {
        "data_dir": image_folder,
        "net": "densenet40",
        "image_size": 16,
        "per_batch_size": 15,
        "max_epoch": 2,
        "lr": 0.05,
        "log_interval": 2,
        "ckpt_interval": 1,
        "keep_checkpoint_max": 0,
        "output_dir": folder,
        "resume": "auto",
        "workers": 2,
        **MUCH,
    }
    command = ["-m", "densenet121", "train"]
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    process = Forked(command, environment())
    while process.poll() is None and not checkpoints_in(folder):
        time.sleep(0.01)
    time.sleep(random.Random(seed).uniform(0, 0.5))
    with contextlib.suppress(ProcessLookupError):  # it has ended
        os.kill(process.pid, signal.SIGKILL)
    process.finished(timeout_seconds=60)
    finished = Forked(command, environment()).finished()
    assert finished.returncode == 0, finished.stderr
    assert outcome(folder) == outcome(uninterrupted)


def test_run_json_has_the_values_that_are_used(uninterrupted: Path) -> None:
    settings = read_record(uninterrupted)["settings"]
    assert settings["augment"] == "trivial"
    assert (settings["policy"], settings["color_jitter"]) == ("trivial", "0,0,0")
    assert (settings["crop_scale"], settings["erase_scale"]) == ("0.08,1.0", "0.02,0.33")


def test_another_augmentation_is_another_run(config: TrainConfig, uninterrupted: Path) -> None:
    other = replace(config, resume="auto", augment="rand", cutmix=0.5)
    message = "--policy was trivial, is now rand; --cutmix was 1.0, is now 0.5"
    with pytest.raises(UsageError, match=message):
        train(other)
    # The same values by other settings are the same run.
    same = replace(config, resume="auto", augment="original", policy="trivial")
    train(replace(same, color_jitter="0,0,0"))


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_rows(folder / "metrics.jsonl") if row["kind"] == "train"]


def test_the_last_epochs_are_not_mixed(
    image_folder: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    every_step = {"log_interval": 1, **MUCH}
    train(train_config(image_folder, tmp_path / "mixed", **every_step))
    train(train_config(image_folder, tmp_path / "off", mix_off_epochs=1, **every_step))
    mixed, off = losses(tmp_path / "mixed"), losses(tmp_path / "off")
    assert off[:3] == mixed[:3] and off[3] != mixed[3]
    # From the same weights on, the second epoch is that of a run without mixing.
    folder = tmp_path / "part"
    shutil.copytree(tmp_path / "off", folder)
    checkpoints_in(folder)[0].unlink()
    train(train_config(image_folder, folder, mix_off_epochs=1, resume="auto", **every_step))
    assert losses(folder) == off


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"mixup": 0.2, "per_batch_size": 1, "image_size": 64},
            "`mixup` mixes the images of a batch, but `per_batch_size` is 1; pass 2 or more",
        ),
        (
            {"turns": 1, "image_size": "16,24"},
            "`turns` needs square images, but `image_size` or `small_size` is 16,24",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_step(
    image_folder: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(train_config(image_folder, tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()


def test_one_class_cannot_be_mixed(image_folder: Path) -> None:
    config = TrainConfig(data_dir="data", cutmix=1.0)
    alone = replace(scan(image_folder / "val"), class_names=("ant",))
    with pytest.raises(UsageError, match=r"`cutmix` needs at least 2 classes, but .* has 1"):
        make_mixing(config, alone, batch_size=32)


@pytest.mark.slow
def test_a_teacher_sees_the_mixed_images_and_the_run_resumes_exactly(
    config: TrainConfig, uninterrupted: Path, tmp_path: Path
) -> None:
    teacher = uninterrupted / "last.safetensors"
    taught = replace(config, teacher=str(teacher), output_dir=str(tmp_path / "whole"))
    train(taught)
    assert losses(tmp_path / "whole") != losses(uninterrupted)
    folder = tmp_path / "part"
    shutil.copytree(tmp_path / "whole", folder)
    for path in checkpoints_in(folder)[::-1][4:]:
        path.unlink()
    train(replace(taught, output_dir=str(folder), resume="auto", workers=2))
    assert outcome(folder) == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_ranks_resume_exactly_with_mixed_batches(image_folder: Path, tmp_path: Path) -> None:
    flags = [part for name, value in MUCH.items() for part in (f"--{name}", value)]
    train_ranks(2, image_folder, tmp_path / "whole", *flags)
    again = ("--resume", tmp_path / "whole" / "0-1_3.ckpt", *flags)
    train_ranks(2, image_folder, tmp_path / "again", *again)
    assert result(tmp_path / "again") == result(tmp_path / "whole")


def test_gradient_accumulation_mixes_each_batch_on_its_own(
    image_folder: Path, tmp_path: Path
) -> None:
    more: dict[str, Any] = {"per_batch_size": 7, "gradient_accumulation": 2, "ckpt_interval": 1}
    whole = train_config(image_folder, tmp_path / "whole", keep_checkpoint_max=0, **MUCH, **more)
    train(whole)
    folder = tmp_path / "part"
    shutil.copytree(tmp_path / "whole", folder)
    for path in checkpoints_in(folder)[::-1][2:]:
        path.unlink()
    train(replace(whole, output_dir=str(folder), resume="auto", workers=2))
    assert outcome(folder) == outcome(tmp_path / "whole")
