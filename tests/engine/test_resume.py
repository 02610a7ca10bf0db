"""A run that was stopped anywhere and resumed ends as the one that was not, to the bit."""

import contextlib
import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from densenet121.checkpoint.native import ModelInfo, read, save_weights
from densenet121.commands.card import command_of
from densenet121.config import TrainConfig
from densenet121.datasets.sources.open import open_training
from densenet121.engine.resume import complete_older
from densenet121.engine.state import RunState
from densenet121.engine.train import train
from densenet121.report import write_report
from densenet121.runs.checkpoints import find_start, open_checkpoint
from densenet121.runs.folder import RunFolder
from densenet121.runs.layout import checkpoints_in, dated_runs
from densenet121.runs.metrics import read_rows
from densenet121.runs.read import read_run
from densenet121.tasks import SingleLabel
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.logging import log, run_log

from helpers.commands import environment, no_file_beyond, run_code
from helpers.forking import Forked
from helpers.images import write_classes
from helpers.training import train_config

STEPS = 6  # two epochs of three


def outcome(folder: Path, last: str = "0-2_3.ckpt") -> dict[str, Any]:
    """All that a run leaves but times and paths: weights, momentum, statistics, metrics, rows."""
    _, tensors, content = read(folder / last)
    timed = ("images_per_second", "data_wait")
    rows = read_rows(folder / "metrics.jsonl")
    return {
        "tensors": {name: tensor.numpy().tobytes() for name, tensor in tensors.items()},
        "state": content["state"],
        "scaler": content["scaler"],
        "metrics": [{k: v for k, v in row.items() if k not in timed} for row in rows],
        "best": (folder / "best.safetensors").read_bytes(),
        "last": (folder / "last.safetensors").read_bytes(),
        "predictions": (folder / "predictions.csv").read_bytes(),
    }


@pytest.fixture(scope="module")
def config(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Saves at every step; logs every second, so that half of the checkpoints are between lines."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    return train_config(image_folder, folder, ckpt_interval=1, keep_checkpoint_max=0)


@pytest.fixture(scope="module")
def uninterrupted(config: TrainConfig) -> Path:
    """The folder of the run that nobody stopped; not to be changed."""
    return train(config).folder


def with_checkpoints_until(folder: Path, source: Path, newest: int) -> Path:
    """A copy of a run folder as a SIGKILL after step ``newest`` would leave it."""
    shutil.copytree(source, folder)
    oldest_first = checkpoints_in(folder)[::-1]
    for path in oldest_first[newest:]:
        path.unlink()
    return folder


@pytest.mark.parametrize("steps_done", range(1, STEPS + 1))
def test_resumed_run_equals_uninterrupted_run_from_every_step(
    config: TrainConfig, uninterrupted: Path, tmp_path: Path, steps_done: int
) -> None:
    folder = with_checkpoints_until(tmp_path / "run", uninterrupted, steps_done)
    result = train(replace(config, output_dir=str(folder), resume="auto", workers=steps_done % 3))
    assert not result.stopped
    assert outcome(folder) == outcome(uninterrupted)


def test_a_checkpoint_file_can_be_resumed_into_another_folder(
    config: TrainConfig, uninterrupted: Path, tmp_path: Path
) -> None:
    train(
        replace(
            config, output_dir=str(tmp_path / "other"), resume=str(uninterrupted / "0-1_2.ckpt")
        )
    )
    assert outcome(tmp_path / "other") == outcome(uninterrupted)


def test_results_after_the_checkpoint_are_not_copied(
    config: TrainConfig, uninterrupted: Path, tmp_path: Path
) -> None:
    def resumed(name: str, checkpoint: str) -> Path:
        folder = tmp_path / name
        before = RunFolder(
            folder,
            rank=0,
            keep=0,
            info=open_checkpoint(uninterrupted / checkpoint).info,
            run=json.loads((uninterrupted / "run.json").read_text()),
            resumed_from=uninterrupted / checkpoint,
        )
        folder.mkdir()
        before.begin(1, open_checkpoint(uninterrupted / checkpoint))
        return folder

    folder = resumed("middle of the first epoch", "0-1_2.ckpt")
    assert {file.name for file in folder.iterdir()} == {"run.json", "metrics.jsonl"}
    folder = resumed("end", "0-2_3.ckpt")
    for name in ("best.safetensors", "eval.json", "predictions.csv"):
        assert (folder / name).read_bytes() == (uninterrupted / name).read_bytes()


@pytest.mark.slow
def test_fp16_with_its_loss_scale_resumes_exactly(config: TrainConfig, tmp_path: Path) -> None:
    whole = replace(config, amp="O3", output_dir=str(tmp_path / "whole"))
    train(whole)
    folder = with_checkpoints_until(tmp_path / "part", tmp_path / "whole", 2)
    train(replace(whole, output_dir=str(folder), resume="auto"))
    assert outcome(folder) == outcome(tmp_path / "whole")


class _SignalAt(logging.Handler):
    """Sends this process a signal at the n-th log line with a text."""

    def __init__(self, text: str, count: int, number: signal.Signals) -> None:
        super().__init__()
        self.text, self.count, self.number = text, count, number

    def emit(self, record: logging.LogRecord) -> None:
        if self.text in record.getMessage():
            self.count -= 1
            if self.count == 0:
                os.kill(os.getpid(), self.number)


@pytest.fixture
def send_at() -> Iterator[Any]:
    """``send_at(text, count)``: a signal to this process at that log line, by default SIGTERM."""
    logger = logging.getLogger("densenet121")
    handlers = []

    def install(text: str, count: int, number: signal.Signals = signal.SIGTERM) -> None:
        handlers.append(_SignalAt(text, count, number))
        logger.addHandler(handlers[-1])

    yield install
    for handler in handlers:
        logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("start network train", 1),  # before the first step
        ("iter[1]", 1),  # in the first epoch
        ("local passed", 1),  # in its validation
        ("after allreduce eval: top5", 1),  # between the epochs
        ("local passed", 2),  # in the last validation
    ],
)
def test_sigterm_saves_and_the_resumed_run_equals_the_uninterrupted(
    image_folder: Path, uninterrupted: Path, tmp_path: Path, send_at: Any, text: str, count: int
) -> None:
    # No checkpoints but those that the signal and the epochs' ends make.
    config = train_config(image_folder, tmp_path / "run")
    send_at(text, count)
    assert train(config).stopped
    result = train(replace(config, resume="auto", workers=2))
    assert not result.stopped
    assert outcome(tmp_path / "run") == outcome(uninterrupted)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_a_closed_terminal_and_the_notice_of_a_batch_system_save_the_run(
    image_folder: Path, tmp_path: Path, send_at: Any, name: str
) -> None:
    number = signal.Signals[name]
    before = signal.signal(number, signal.SIG_DFL)  # nohup has SIGHUP ignored
    try:
        send_at("iter[1]", 1, number)
        assert train(train_config(image_folder, tmp_path / "run")).stopped
        assert [file.name for file in checkpoints_in(tmp_path / "run")] == ["0-1_2.ckpt"]
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_process_killed_at_random_moments_ends_as_if_it_had_not_been(
    image_folder: Path, uninterrupted: Path, tmp_path: Path, number: signal.Signals
) -> None:
    seed = int(time.time())
    print(f"seed {seed}")
    moments = random.Random(seed)
    folder = tmp_path / "run"
    command = ["-m", "densenet121", "train", "--data_dir", str(image_folder)]
    command += [
        "--net",
        "densenet40",
        "--image_size",
        "16",
        "--per_batch_size",
        "15",
        "--max_epoch",
        "2",
    ]
    command += [
        "--lr",
        "0.05",
        "--log_interval",
        "2",
        "--ckpt_interval",
        "1",
        "--keep_checkpoint_max",
        "0",
    ]
    command += ["--output_dir", str(folder), "--resume", "auto"]
    for attempt in range(3):
        before = len(checkpoints_in(folder))
        process = Forked([*command, "--workers", str(attempt)], environment())
        # Somewhere within the two steps after the first that this process saves.
        while process.poll() is None and len(checkpoints_in(folder)) == before:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.5))
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(process.pid, number)
        done = process.finished(timeout_seconds=60)
        # A signal after the run's end, while the interpreter shuts down, ends it the system's way.
        expected = {-9} if number == signal.SIGKILL else {143, -number}
        assert done.returncode in expected | {0}, done.stderr
        assert "Traceback" not in done.stderr
    finished = Forked(command, environment()).finished()
    assert finished.returncode == 0, finished.stderr
    assert outcome(folder) == outcome(uninterrupted)
    assert not list(folder.glob(".*.tmp"))


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    config: TrainConfig, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = with_checkpoints_until(tmp_path / "run", uninterrupted, 5)
    newest, before = checkpoints_in(folder)[:2]
    content = bytearray(newest.read_bytes())
    content[-1000] ^= 4
    newest.write_bytes(content)
    train(replace(config, output_dir=str(folder), resume="auto"))
    shown = capsys.readouterr().out
    assert f"{newest}: damaged" in shown
    assert "falling back to the checkpoint before it" in shown
    assert f"resumed from {before}" in shown
    assert outcome(folder) == outcome(uninterrupted)


def spoil(weights: Path, harm: str) -> None:
    """Harm the best weights, as bad disks and runs that went on do."""
    _, tensors, content = read(weights)
    weights.unlink()
    if harm == "empty":
        weights.touch()
    elif harm == "of a later epoch":
        info = ModelInfo.from_json(content["model"])
        save_weights(weights, tensors, info, content["origin"] | {"epoch": 7})


@pytest.fixture(scope="module")
def averaged(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """The settings of a whole run with averaged weights."""
    folder = tmp_path_factory.mktemp("averaged") / "run"
    config = train_config(image_folder, folder, ema_decay=0.5)
    train(config)
    return config


@pytest.mark.parametrize("harm", ["lost", "empty", "of a later epoch"])
@pytest.mark.parametrize("name", ["best.safetensors", "best_ema.safetensors"])
@pytest.mark.parametrize("place", ["run", "other"])
def test_best_weights_that_were_lost_are_written_again_from_the_checkpoint_of_their_epoch(
    averaged: TrainConfig,
    tmp_path: Path,
    place: str,
    name: str,
    harm: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(str(averaged.output_dir), folder)
    expected = (folder / name).read_bytes()
    spoil(folder / name, harm)
    newest = checkpoints_in(folder)[0]
    train(replace(averaged, output_dir=str(tmp_path / place), resume=str(newest)))
    assert (tmp_path / place / name).read_bytes() == expected
    assert "has its weights: written again" in capsys.readouterr().out


@pytest.mark.parametrize("harm", ["lost", "empty", "of a later epoch"])
def test_best_weights_that_are_lost_for_good_give_way_to_the_next_and_that_is_said(
    config: TrainConfig,
    uninterrupted: Path,
    tmp_path: Path,
    harm: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = with_checkpoints_until(tmp_path / "run", uninterrupted, 4)
    for path in checkpoints_in(folder)[1:]:  # those of the first epoch, the best until here
        path.unlink()
    spoil(folder / "best.safetensors", harm)
    train(replace(config, output_dir=str(folder), resume="auto"))
    shown = capsys.readouterr().out
    assert "no checkpoint of its end is left: the best from here on is kept" in shown
    assert "INFO:best: epoch[1]" in shown
    _, tensors, content = read(folder / "best.safetensors")
    assert content["origin"]["epoch"] == 1
    last = read(folder / "last.safetensors")[1]
    assert all(torch.equal(tensor, last[name]) for name, tensor in tensors.items())


def test_a_run_without_an_intact_checkpoint_is_an_error_and_not_a_fresh_start(
    config: TrainConfig, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = with_checkpoints_until(tmp_path / "run", uninterrupted, 1)
    (folder / "0-1_1.ckpt").write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match=r"no checkpoint in .* is intact"):
        train(replace(config, output_dir=str(folder), resume="auto"))


def test_a_finished_run_resumed_does_nothing_and_says_so(
    config: TrainConfig, uninterrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = outcome(uninterrupted)
    assert not train(replace(config, resume="auto")).stopped
    assert outcome(uninterrupted) == before
    said = "nothing is left to do: the run has ended after 2 of 2 epochs"
    assert said in capsys.readouterr().out


def test_the_checkpoint_of_a_whole_run_gives_its_weights_in_a_new_folder(
    config: TrainConfig, uninterrupted: Path, tmp_path: Path
) -> None:
    last = checkpoints_in(uninterrupted)[0]
    train(replace(config, resume=str(last), output_dir=str(tmp_path / "new")))
    for name in ("last.safetensors", "best.safetensors"):
        assert (tmp_path / "new" / name).read_bytes() == (uninterrupted / name).read_bytes()


@pytest.mark.parametrize("resume", [None, "auto"])
def test_the_folder_of_an_evaluation_is_not_that_of_a_run(
    resume: str | None, config: TrainConfig, tmp_path: Path
) -> None:
    """Without validation the report of the run had the counts of the other weights."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "eval.json").write_text('{"task": "single_label", "total": 3}')
    with pytest.raises(UsageError, match=r"has the results of an evaluation \(eval\.json\)"):
        train(replace(config, output_dir=str(tmp_path / "run"), resume=resume))
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["eval.json"]


@pytest.mark.parametrize("resume", [None, "auto"])
def test_weights_without_a_checkpoint_are_not_replaced(
    resume: str | None, config: TrainConfig, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = with_checkpoints_until(tmp_path / "run", uninterrupted, 0)
    again = replace(config, output_dir=str(folder), resume=resume, max_epoch=1)
    message = r"has the weights of a run \(best.safetensors\), and no checkpoint to go on from; "
    with pytest.raises(UsageError, match=message):
        train(again)
    (folder / "best.safetensors").unlink()
    with pytest.raises(UsageError, match=r"run \(last\.safetensors\)"):
        train(again)
    assert (folder / "last.safetensors").read_bytes() == (
        (uninterrupted / "last.safetensors").read_bytes()
    )
    (folder / "last.safetensors").unlink()
    without_val = shutil.copytree(Path(config.data_dir) / "train", tmp_path / "alone")
    train(replace(again, data_dir=str(without_val)))  # it has no weights that could be lost
    # The report would show them as those of the new run.
    assert not (folder / "eval.json").exists() and not (folder / "predictions.csv").exists()


def test_a_checkpoint_file_is_not_resumed_into_the_folder_of_another_run(
    config: TrainConfig, uninterrupted: Path, tmp_path: Path
) -> None:
    """It would replace its weights, and `resume` auto would go on from checkpoints of both."""
    folder = with_checkpoints_until(tmp_path / "run", uninterrupted, STEPS)
    again = replace(config, output_dir=str(folder), resume=str(uninterrupted / "0-1_2.ckpt"))
    with pytest.raises(UsageError, match=r"already has a run \(0-2_3.ckpt\); pass `resume` auto"):
        train(again)
    for path in checkpoints_in(folder):
        path.unlink()
    with pytest.raises(UsageError, match=r"has the weights of a run \(last\.safetensors\)"):
        train(again)
    assert (folder / "best.safetensors").read_bytes() == (
        (uninterrupted / "best.safetensors").read_bytes()
    )


def test_a_checkpoint_file_goes_on_in_its_own_folder(
    config: TrainConfig, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = with_checkpoints_until(tmp_path / "run", uninterrupted, STEPS)
    (tmp_path / "link").symlink_to(folder)
    train(replace(config, output_dir=str(tmp_path / "link"), resume=str(folder / "0-1_2.ckpt")))
    assert outcome(folder) == outcome(uninterrupted)


def test_other_settings_are_shown_and_refused(config: TrainConfig, uninterrupted: Path) -> None:
    other = replace(config, resume="auto", lr=0.1, momentum=0.8)
    with pytest.raises(
        UsageError, match=r"--lr was 0.05, is now 0.1; --momentum was 0.9, is now 0.8"
    ):
        train(other)


def test_auto_takes_the_newest_run_under_ckpt_path(
    config: TrainConfig, uninterrupted: Path, tmp_path: Path
) -> None:
    for stamp in ("2026-01-01_time_00_00_00", "2026-01-02_time_00_00_00"):
        with_checkpoints_until(tmp_path / stamp, uninterrupted, 4)
    later = tmp_path / "2026-01-03_time_00_00_00"  # an evaluation's folder is no run to resume
    later.mkdir()
    (later / "run.json").write_text(json.dumps({"command": "eval"}))
    result = train(replace(config, output_dir=None, ckpt_path=str(tmp_path), resume="auto"))
    assert result.folder.name == "2026-01-02_time_00_00_00"


def test_auto_takes_the_run_that_was_started_last_in_any_time_zone(tmp_path: Path) -> None:
    """Hosts and containers may have other zones, and in autumn an hour comes twice."""
    runs = {  # by name, and when they were started
        "2026-10-25_time_02_50_00": "2026-10-25T02:50:00+0200",
        "2026-10-25_time_02_10_00": "2026-10-25T02:10:00+0100",
        "2026-10-25_time_09_00_00": "2026-10-25T09:00:00+0900",
        "2026-10-24_time_12_00_00": "unknown",
    }
    for name, started in runs.items():
        (tmp_path / name).mkdir()
        record = {"command": "train", "started": started}
        (tmp_path / name / "run.json").write_text(json.dumps(record))
    assert [path.name for path in dated_runs(tmp_path)] == [
        "2026-10-25_time_02_10_00",
        "2026-10-25_time_02_50_00",
        "2026-10-25_time_09_00_00",
        "2026-10-24_time_12_00_00",
    ]


@pytest.mark.parametrize("record", [None, "{", "[]"])
def test_auto_takes_the_newest_run_though_its_record_is_lost(
    record: str | None, uninterrupted: Path, tmp_path: Path
) -> None:
    """As restored from a backup without it: an older run, or a new one, was taken in silence."""
    older = with_checkpoints_until(tmp_path / "2026-01-01_time_00_00_00", uninterrupted, 4)
    newest = with_checkpoints_until(tmp_path / "2036-01-02_time_00_00_00", uninterrupted, 4)
    shutil.copyfile(uninterrupted / "run.json", older / "run.json")
    (newest / "run.json").unlink(missing_ok=True)
    if record is not None:
        (newest / "run.json").write_text(record)
    (tmp_path / "2036-01-03_time_00_00_00").mkdir()  # an evaluation's that was killed at once
    start = find_start("auto", None, tmp_path, 0)
    assert start.folder == newest and start.checkpoint is not None


def test_a_pipe_in_place_of_a_checkpoint_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "0-1_2.ckpt"
    os.mkfifo(pipe)
    said = f"{pipe}: is a pipe or a device"
    cases: dict[Path | str, str] = {
        pipe: f"{said}; save the weights in a file",
        "auto": f"no checkpoint in {tmp_path} is intact: {said}",
    }
    for resume, expected in cases.items():
        found: list[str] = []

        def find(resume: Path | str = resume, found: list[str] = found) -> None:
            with pytest.raises(InputError) as refused:
                find_start(resume, tmp_path, tmp_path, 0)
            found.append(str(refused.value))

        reader = threading.Thread(target=find, daemon=True)  # opening it would wait for ever
        reader.start()
        reader.join(20)
        assert found == [expected]


def test_a_folder_that_cannot_be_read_is_not_one_without_a_run(tmp_path: Path) -> None:
    """It was "no checkpoint to go on from; remove this one to train again", or a new run began."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "0-1_2.ckpt").touch()
    (tmp_path / "run").chmod(0o311)
    tmp_path.chmod(0o755)
    code = """
import os, sys
from pathlib import Path
from densenet121.runs.layout import checkpoints_in, dated_runs
from densenet121.utils.errors import InputError
os.chdir(sys.argv[1])
if os.geteuid() == 0:
    os.setuid(65534)
for find in (checkpoints_in, dated_runs):
    try:
        print(list(find(Path("run"))))
    except InputError as error:
        print(error)
    assert list(find(Path("nowhere"))) == []
"""
    said = run_code(code, str(tmp_path))
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.splitlines() == ["run: cannot be read (Permission denied)"] * 2


def test_an_older_run_that_auto_passes_over_is_named(
    config: TrainConfig, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = with_checkpoints_until(tmp_path / "2026-01-01_time_00_00_00", uninterrupted, 4)
    newest = tmp_path / "2026-01-02_time_00_00_00"
    newest.mkdir()
    shutil.copyfile(uninterrupted / "run.json", newest / "run.json")
    again = replace(config, output_dir=None, ckpt_path=str(tmp_path), resume="auto", max_epoch=1)
    assert train(again).folder not in (older, newest)
    said = f"the newest run {newest} has no checkpoint, so a new one begins; the older {older} has"
    assert said in capsys.readouterr().out


def test_auto_starts_afresh_where_there_is_nothing(config: TrainConfig, tmp_path: Path) -> None:
    result = train(
        replace(
            config, output_dir=None, ckpt_path=str(tmp_path / "new"), resume="auto", max_epoch=1
        )
    )
    assert checkpoints_in(result.folder)


@pytest.mark.parametrize(
    ("flags", "steps_done"),
    [
        ({"lr_scheduler": "exponential"}, 4),
        ({"lr_scheduler": "plateau"}, 6),
        *(
            pytest.param(flags, 6, marks=pytest.mark.slow)
            for flags in (
                {"lr_scheduler": "exponential"},
                {"lr_scheduler": "constant", "warmup_epochs": 1},
                {"lr_scheduler": "plateau", "val_interval": 2},
                {"lr_scheduler": "cosine_annealing", "T_max": 5},
                {"lr_scheduler": "cosine", "warmup_epochs": 2},  # all within the warmup
            )
        ),
    ],
)
def test_a_run_that_becomes_longer_equals_one_that_was_long_from_the_start(
    flags: dict[str, Any], steps_done: int, config: TrainConfig, tmp_path: Path
) -> None:
    long = replace(config, max_epoch=3, output_dir=str(tmp_path / "long"), **flags)
    train(long)
    short = train(replace(long, max_epoch=2, output_dir=str(tmp_path / "short"))).folder
    folder = with_checkpoints_until(tmp_path / "run", short, steps_done)
    train(replace(long, output_dir=str(folder), resume="auto"))
    assert outcome(folder, "0-3_3.ckpt") == outcome(tmp_path / "long", "0-3_3.ckpt")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"lr_scheduler": "cosine_annealing"},
            r"with `max_epoch` 3, because it was 2 and a step that is done would change: with "
            r"`lr_scheduler` cosine_annealing the learning rate of step \d was \S+ and would have "
            r"been \S+; start a new run with `pretrained`, or pass `T_max` 2$",
        ),
        ({"lr_scheduler": "one_cycle"}, r"one_cycle .* start a new run with `pretrained`$"),
        ({"lr_scheduler": "polynomial"}, r"polynomial the learning rate of step 1 was"),
        (
            {"lr_scheduler": "constant", "mixup": 0.2, "mix_off_epochs": 1},
            r"epoch 2 was without mixed images, and would have had them; start a new run",
        ),
        (
            {"lr_scheduler": "plateau", "val_interval": 3},
            r"epoch 2 was validated as the last, which `val_interval` 3 would not have done",
        ),
    ],
)
def test_a_run_whose_steps_would_have_been_others_is_not_made_longer(
    flags: dict[str, Any], message: str, config: TrainConfig, tmp_path: Path
) -> None:
    short = replace(config, output_dir=str(tmp_path / "run"), **flags)
    train(short)
    with pytest.raises(UsageError, match=message):
        train(replace(short, max_epoch=3, resume="auto"))
    if "mixup" not in flags:
        shorter = r"settings: --max_epoch was 2, is now 1; a run may become longer, but not shorter"
        with pytest.raises(UsageError, match=rf"{shorter}: pass `max_epoch` 2$"):
            train(replace(short, max_epoch=1, resume="auto"))


def test_a_validation_that_a_longer_run_would_not_have_had_is_named(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    short = replace(config, lr_scheduler="constant", val_interval=3, output_dir=run)
    train(short)
    train(replace(short, max_epoch=3, resume="auto"))
    said = capsys.readouterr().out
    assert "epoch 2 was validated as the last, which `val_interval` 3 would not have done" in said
    train(replace(short, max_epoch=3, output_dir=str(tmp_path / "long")))
    last = [(tmp_path / name / "last.safetensors").read_bytes() for name in ("run", "long")]
    assert last[0] == last[1]


def test_changed_data_is_said(
    config: TrainConfig, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = with_checkpoints_until(tmp_path / "run", uninterrupted, 4)
    data = write_classes(tmp_path / "data" / "train", ["ant", "bee", "cat"], 16).parent
    write_classes(data / "val", ["ant", "bee", "cat"], 7)
    train(replace(config, data_dir=str(data), output_dir=str(folder), resume="auto"))
    assert "the train data changed since 0-2_1.ckpt: 45 images then, 48 now" in (
        capsys.readouterr().out
    )


def test_run_json_is_of_the_resumed_run_and_says_what_changed(
    config: TrainConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    short = replace(config, output_dir=str(folder), lr_scheduler="constant", max_epoch=1)
    train(short)
    before = json.loads((folder / "run.json").read_text())
    train(replace(short, max_epoch=2, workers=2, resume="auto"))
    train(replace(short, max_epoch=2, workers=2, resume="auto"))
    record = json.loads((folder / "run.json").read_text())
    assert (record["started"], record["settings"]["max_epoch"]) == (before["started"], 2)
    first, second = record["resumed"]
    assert (first["step"], first["from"]) == (3, str(folder / "0-1_3.ckpt"))
    assert first["changed"]["settings.max_epoch"] == {"was": 1, "now": 2}
    assert first["changed"]["settings.workers"] == {"was": 1, "now": 2}
    assert second["step"] == 6 and "changed" not in second
    assert "--max_epoch 2" in command_of(record) and "--resume" not in command_of(record)
    assert "of 2" in write_report(folder).read_text()


def test_the_history_stays_where_an_epoch_gets_other_steps(
    config: TrainConfig, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = with_checkpoints_until(tmp_path / "run", uninterrupted, 5)
    data = write_classes(tmp_path / "data" / "train", ["ant", "bee", "cat"], 10).parent
    write_classes(data / "val", ["ant", "bee", "cat"], 7)
    first = [row for row in read_rows(folder / "metrics.jsonl") if row["epoch"] == 0]
    # Epochs of 3 steps become epochs of 2; both of epoch 1 are done.
    train(replace(config, data_dir=str(data), output_dir=str(folder), resume="auto"))
    rows = read_rows(folder / "metrics.jsonl")
    assert [row for row in rows if row["epoch"] == 0] == first
    assert [(row["kind"], row["step"]) for row in rows if row["epoch"] == 1] == [
        ("train", 2),
        ("eval", 3),
    ]
    assert [row.epoch for row in read_run(folder).results.validations] == [0, 1]


@pytest.mark.parametrize("step", [2, 5])
def test_a_checkpoint_of_an_epoch_with_other_steps_does_not_pass_for_newer(
    step: int, uninterrupted: Path, tmp_path: Path
) -> None:
    """Two ranks go on with the run of one: the second step of its epoch is the first of theirs."""
    folder = with_checkpoints_until(tmp_path / "run", uninterrupted, step)
    newest = checkpoints_in(folder)[0]
    checkpoint = open_checkpoint(newest)
    run = json.loads((folder / "run.json").read_text()) | {"steps_per_epoch": 2, "world_size": 2}
    resumed = RunFolder(folder, rank=0, keep=0, info=checkpoint.info, run=run, resumed_from=newest)
    epoch = checkpoint.content["state"]["evaluated_epochs"]
    done = epoch * 2 + 1
    resumed.begin(done, checkpoint)
    assert newest.exists()  # until there is another one
    written = resumed.write_checkpoint(done, checkpoint.tensors, checkpoint.content)
    assert checkpoints_in(folder)[0] == written
    assert len(checkpoints_in(folder)) == step - 1  # those of an earlier epoch stay


@pytest.mark.parametrize("name", ["metrics.jsonl", "x_rank_0.log"])
def test_a_log_or_metrics_that_cannot_be_written_are_named_with_the_good_checkpoint(
    name: str, config: TrainConfig, uninterrupted: Path, tmp_path: Path
) -> None:
    before = uninterrupted / "0-1_2.ckpt"
    folder = RunFolder(
        tmp_path,
        rank=0,
        keep=0,
        info=open_checkpoint(before).info,
        run=json.loads((uninterrupted / "run.json").read_text()),
        resumed_from=before,
    )
    file = tmp_path / name
    message = (
        rf"^{file}: cannot be written \(File too large\); the last good checkpoint is {before}$"
    )
    with (
        pytest.raises(InputError, match=message),
        run_log(tmp_path, "x", 0, lambda: folder.good),
        no_file_beyond(1000),
    ):
        for _ in range(20):
            if name == "metrics.jsonl":
                folder.note({"kind": "train", "text": 100 * "x"})
            else:
                log.info(100 * "x")


@pytest.mark.parametrize("name", ["run.json", "predictions.csv"])
def test_a_result_that_cannot_be_written_is_named_with_the_good_checkpoint(
    name: str, config: TrainConfig, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = with_checkpoints_until(tmp_path / "run", uninterrupted, STEPS - 1)
    (folder / name).unlink()
    (folder / name).mkdir()  # stands for a full disk, which would refuse the checkpoints before
    good = folder / ("0-2_2.ckpt" if name == "run.json" else "0-2_3.ckpt")
    message = f"{folder / name}: cannot be written (Is a directory); the last good checkpoint is"
    with pytest.raises(InputError, match=f"^{re.escape(f'{message} {good}')}$"):
        train(replace(config, output_dir=str(folder), resume="auto"))
    assert checkpoints_in(folder)[0] == good


@pytest.mark.parametrize("resumes", [False, True])
def test_a_run_does_not_begin_over_what_another_wrote_while_it_started(
    resumes: bool, config: TrainConfig, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    if resumes:
        with_checkpoints_until(folder, uninterrupted, 2)

    class Other(SingleLabel):
        """Another process ends a run while this one reads its data."""

        def num_outputs(self, num_classes: int) -> int:
            shutil.copytree(uninterrupted, folder, dirs_exist_ok=True)
            return super().num_outputs(num_classes)

    own = replace(config, output_dir=str(folder), resume="auto" if resumes else None)
    message = f"`output_dir` {folder}: another run has written checkpoints there while this one"
    with pytest.raises(InputError, match=message):
        train(own, Other())
    assert {path.name for path in folder.iterdir() if path.suffix != ".log"} == {
        path.name for path in uninterrupted.iterdir() if path.suffix != ".log"
    }
    assert outcome(folder) == outcome(uninterrupted)


def test_a_checkpoint_that_was_removed_is_not_named_as_good(
    config: TrainConfig, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = with_checkpoints_until(tmp_path / "run", uninterrupted, STEPS - 1)

    class Vandal(SingleLabel):
        """Someone removes the folder while the network is validated."""

        def metrics(self, *arguments: Any, **named: Any) -> Any:
            shutil.rmtree(folder)
            return super().metrics(*arguments, **named)

    gone = f"the checkpoints of this run are gone from {folder}"
    with pytest.raises(InputError, match=f"No such file or directory.*; {gone}$"):
        train(replace(config, output_dir=str(folder), resume="auto"), Vandal())


def test_a_full_disk_is_one_line_and_loses_nothing(image_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = train_config(image_folder, folder, max_epoch=1, T_max=2)
    train(config)
    size = (folder / "0-1_3.ckpt").stat().st_size
    code = (
        "import resource, sys; from densenet121.cli import main; "
        "sys.dont_write_bytecode = True; "  # a module would be stored cut short
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size // 2}, {size // 2})); "
        "sys.exit(main())"
    )
    flags = f"train --data_dir {image_folder} --net densenet40 --image_size 16 --per_batch_size 15"
    command = ["-c", code, *flags.split(), "--output_dir", tmp_path / "full"]
    finished = Forked(command, environment()).finished()
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    assert "cannot be written (File too large)" in line
    assert "this run has not written a checkpoint yet" in line
    assert not list((tmp_path / "full").glob(".*.tmp"))
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert torch.equal(read(folder / "0-1_3.ckpt")[1]["losses"], torch.zeros(1, 4).double())


def test_a_run_that_grows_its_images_resumes_exactly(
    config: TrainConfig, uninterrupted: Path, tmp_path: Path
) -> None:
    growing = replace(config, image_size=24, small_size=16, small_epochs=1)
    train(replace(growing, output_dir=str(tmp_path / "whole")))
    folder = with_checkpoints_until(tmp_path / "part", tmp_path / "whole", 4)
    train(replace(growing, output_dir=str(folder), resume="auto"))
    assert outcome(folder) == outcome(tmp_path / "whole")
    # The first epoch is that of a run on small images throughout, the second is not.
    whole, small_only = (read_rows(f / "metrics.jsonl") for f in (folder, uninterrupted))
    assert whole[0]["loss"] == small_only[0]["loss"]
    assert whole[-2]["loss"] != small_only[-2]["loss"]


def test_the_best_epoch_of_an_older_checkpoint_is_read() -> None:
    old = {"step": 7, "evaluated_epochs": 2, "best_epoch": 1, "best_correct": 19, "bad_images": {}}
    state = RunState.from_json(old)
    assert (state.best_epoch, state.best) == (1, {"top1_correct": 19})
    fresh = RunState.from_json(old | {"best_epoch": None, "best_correct": -1})
    assert fresh.best is None


def test_the_bad_validation_images_of_an_older_checkpoint_are_told_from_those_of_training(
    tmp_path: Path,
) -> None:
    """It had both in one; those of the validation were counted as left out of training, too."""
    train_images, val = (open_training(write_classes(tmp_path / n, ["x", "y"], 4))[0] for n in "tv")
    val = replace(val, paths=[f"v/{path}" for path in val.paths])
    bad = {train_images.paths[0]: "empty", val.paths[0]: "cut short"}
    old = {"step": 7, "evaluated_epochs": 2, "best_epoch": None, "best": None}
    state = RunState.from_json(old | {"bad_images": bad})
    complete_older(state, train_images, val)
    assert state.unreadable == ({"x/000.png": "empty"}, {"v/x/000.png": "cut short"})


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"PK\3\4" + bytes(60), "a file of torch"),
        (b"\x80\2}q\0." + bytes(60), "a file of torch"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), "a file of Keras"),
        (b"\x08\x0a\x12\x07pytorch" + bytes(60), "an exported network"),
    ],
    ids=["zip", "pickle", "hdf5", "onnx"],
)
def test_a_file_of_another_program_is_not_resumed_and_not_called_damaged(
    start: bytes, kind: str, tmp_path: Path
) -> None:
    file = tmp_path / "theirs"
    file.write_bytes(start)
    with pytest.raises(InputError, match=rf"theirs is {kind}.*, not a checkpoint .*`pretrained`"):
        find_start(file, None, tmp_path, 0)
