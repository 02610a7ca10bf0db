"""The real trackers: every row of metrics.jsonl once, also after a kill and a resume.

``make test-frameworks`` installs them into an environment of their own, whose packages a run here
also sees; elsewhere this skips.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from densenet121.runs.tracker_libraries import values_of

from helpers.commands import REPOSITORY, environment

pytestmark = pytest.mark.frameworks

HOMES = Path(os.environ.get("FRAMEWORKS", REPOSITORY / ".frameworks"))
SIDE = REPOSITORY / "tests" / "system" / "frameworks" / "trackers_side.py"
# The packages of the trackers come after all of this environment.
COMMAND = (
    "import sys; sys.path.append(sys.argv.pop(1)); from densenet121.cli import main; "
    "sys.exit(main())"
)
# A program that has a run of its own open, as a notebook has.
HOST = """
import json, sys
sys.path.append(sys.argv[1])
import wandb
from densenet121 import TrainConfig, train
own = wandb.init(project="host", dir=sys.argv[2])
for number in range(50):
    own.log({"host": number})
train(TrainConfig(**json.loads(sys.argv[3])))
own.log({"host": 50})
assert wandb.run is own
own.finish()
"""
FLAGS = ["--net", "densenet100", "--image_size", "16", "--per_batch_size", "15", "--lr", "0.05"]
FLAGS += ["--workers", "1", "--log_interval", "1", "--amp", "fp32"]
WHERE = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "MLFLOW_TRACKING_URI": ""}


def home() -> Path:
    python = HOMES / "trackers" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is not there: make test-frameworks installs it")
    return python


def packages() -> Path:
    (found,) = home().parents[1].glob("lib/python*/site-packages")
    return found


def start(data: Path, run: Path, trackers: str, *more: str) -> "subprocess.Popen[str]":
    arguments = ["train", "--data_dir", str(data), "--output_dir", str(run), "--log_to", trackers]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, packages(), *arguments, *FLAGS, *more],
        env=environment(**WHERE), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(process: "subprocess.Popen[str]") -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return output


def told_by(what: str, place: Path) -> dict[str, Any]:
    done = subprocess.run(
        [home(), SIDE, what, place], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def check(points: list[Any], rows: list[dict[str, Any]], timed: bool = True) -> None:
    """Each value of metrics.jsonl once. Speeds of repeated steps are those of the first time."""
    expected = [
        (name, row["step"], value) for row in rows for name, value in values_of(row).items()
    ]
    speeds = ("train/images_per_second", "train/data_wait")
    assert sorted((name, step) for name, step, _ in points) == sorted(
        (name, step) for name, step, _ in expected
    )
    wanted = {(name, step): value for name, step, value in expected}
    for name, step, value in points:
        if timed or name not in speeds:
            assert value == pytest.approx(wanted[name, step], rel=1e-6), (name, step)


def check_images(found: dict[str, Any], run: Path, rows: list[dict[str, Any]]) -> None:
    """The first batch, and the confusion matrix of each validation, once, as in the run folder."""
    steps = [row["step"] for row in rows if row["kind"] == "eval"]
    expected = [("first_batch", 0), *(("confusion", step) for step in steps)]
    assert sorted((name, step) for name, step, *_ in found["images"]) == sorted(expected)
    for name, step, *size in found["images"]:
        file = run / "tracker_images" / f"{step:08d}_{name}.png"
        if len(size) == 1:
            assert size == [file.stat().st_size]
        else:
            with Image.open(file) as image:
                assert tuple(size) == image.size
    assert len(list((run / "tracker_images").iterdir())) == len(expected)


def test_every_row_is_in_each_tracker_once(image_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finished(start(image_folder, run, "tensorboard,wandb,mlflow", "--max_epoch", "2"))
    rows = rows_of(run)
    board = told_by("tensorboard", run / "tensorboard")
    assert board["texts"] == ["settings/text_summary"]
    check(board["points"], rows)
    check_images(board, run, rows)
    wandb = told_by("wandb", run)
    assert len(wandb["ids"]) == 1
    assert json.loads(wandb["config"]["lr"]) == 0.05
    check(wandb["points"], rows)
    check_images(wandb, run, rows)
    mlflow = told_by("mlflow", tmp_path / "mlflow.db")
    assert mlflow["runs"] == [["run", "FINISHED"]]
    assert mlflow["params"]["net"] == "densenet100"
    check(mlflow["points"], rows)
    check_images(mlflow, run, rows)


def test_a_killed_run_goes_on_in_each_tracker_without_doubled_or_missing_steps(
    image_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    flags = ("--max_epoch", "4", "--ckpt_interval", "4")
    process = start(image_folder, run, "tensorboard,wandb,mlflow", *flags)
    for _ in range(3000):
        time.sleep(0.02)
        lines = run / "metrics.jsonl"
        if lines.exists() and lines.read_text().count('"train"') >= 6:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed_at = max(row["step"] for row in rows_of(run))
    output = finished(
        start(image_folder, run, "tensorboard,wandb,mlflow", *flags, "--resume", "auto")
    )
    assert "resumed from" in output
    rows = rows_of(run)
    assert killed_at < rows[-1]["step"]
    board, wandb = told_by("tensorboard", run / "tensorboard"), told_by("wandb", run)
    check(board["points"], rows)
    assert len(wandb["ids"]) == 1
    check(wandb["points"], rows)
    mlflow = told_by("mlflow", tmp_path / "mlflow.db")
    assert mlflow["runs"] == [["run", "FINISHED"]]
    check(mlflow["points"], rows, timed=False)
    for found in (board, wandb, mlflow):
        check_images(found, run, rows)


def test_a_signal_stops_a_run_with_open_trackers_after_saving(
    image_folder: Path, tmp_path: Path
) -> None:
    """Libraries that catch signals would come between."""
    run = tmp_path / "run"
    process = start(image_folder, run, "tensorboard,wandb,mlflow", "--max_epoch", "500")
    for _ in range(3000):
        time.sleep(0.02)
        if (run / "metrics.jsonl").exists() and "eval" in (run / "metrics.jsonl").read_text():
            break
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors[-3000:]
    assert "stopped by a signal after" in output
    rows = rows_of(run)
    check(told_by("tensorboard", run / "tensorboard")["points"], rows)
    check(told_by("wandb", run)["points"], rows)
    check(told_by("mlflow", tmp_path / "mlflow.db")["points"], rows)


def test_trackers_do_not_change_a_bit_and_their_failure_does_not_end_a_run(
    image_folder: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "mlflow.db").write_text("no database")
    (tmp_path / "a" / "tensorboard").write_text("a file where the events should be")
    (tmp_path / "b" / "tracker_images").write_text("a file where the images should be")
    output = finished(start(image_folder, tmp_path / "a", "tensorboard,mlflow", "--max_epoch", "1"))
    for name in ("tensorboard", "mlflow"):
        assert output.count(f"WARNING:{name}: ") == 1
    assert "the run goes on" in output
    output = finished(start(image_folder, tmp_path / "b", "wandb", "--max_epoch", "1"))
    assert output.count("WARNING:images: ") == 1
    last = [(tmp_path / name / "last.safetensors").read_bytes() for name in ("a", "b")]
    assert last[0] == last[1]


def test_a_run_that_the_caller_has_open_goes_on_and_gets_no_rows(
    image_folder: Path, tmp_path: Path
) -> None:
    run, own = tmp_path / "run", tmp_path / "own"
    own.mkdir()
    config: dict[str, Any] = {"data_dir": str(image_folder), "output_dir": str(run)}
    config |= {"net": "densenet100", "image_size": 16, "per_batch_size": 15, "max_epoch": 1}
    config["log_to"] = "wandb"
    process = subprocess.Popen(
        [sys.executable, "-c", HOST, packages(), own, json.dumps(config)],
        env=environment(**WHERE), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    finished(process)
    check(told_by("wandb", run)["points"], rows_of(run))
    host = [["host", number, number] for number in range(51)]
    assert told_by("wandb", own)["points"] == host
