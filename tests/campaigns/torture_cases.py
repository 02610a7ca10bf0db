"""What is harmed, and what must be left."""

import json
import random
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaigns.harms import Bench, harm
from densenet121.checkpoint.native import read
from densenet121.runs.layout import checkpoints_in

from helpers.commands import environment
from helpers.forking import Forked


def start(bench: Bench, ranks: int, arguments: Sequence[object], output: Path) -> list[Forked]:
    """Processes of a command, which share a file for what they print."""
    more: dict[str, str] = {}
    if ranks > 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        more = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
        more |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    found = []
    for rank in range(ranks):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}
        err = output.with_name(f"{output.name}.{rank}.err")
        command = ["-m", "densenet121", *arguments]
        found.append(Forked(command, environment(**more, **place), bench.folder, (output, err)))
    return found


def errors_of(output: Path) -> list[list[str]]:
    """The lines of stderr, by rank."""
    files = sorted(output.parent.glob(f"{output.name}.*.err"))
    return [file.read_text(errors="replace").splitlines() for file in files]


def check_lines(output: Path, name: str) -> None:
    """One line from each process at most, and no traceback."""
    for lines in errors_of(output):
        text = "\n".join(lines)
        assert "Traceback" not in text, f"{name}: {text[-3000:]}"
        told = [line for line in lines if line.startswith("densenet121: ")]
        assert len(told) <= 1, (name, lines)


_SMALL = "--net densenet40 --image_size 16 --device cpu --amp fp32 --lr 0.02 --ckpt_interval 1"
_SMALL += " --resume auto"


def left_by(folder: Path) -> dict[str, Any]:
    """All that a run leaves but times and paths."""
    newest = checkpoints_in(folder)[0]
    _, tensors, content = read(newest)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        for timed in ("images_per_second", "data_wait"):
            row.pop(timed, None)
    files = ("best.safetensors", "last.safetensors", "predictions.csv")
    return {
        "tensors": {name: tensor.numpy().tobytes() for name, tensor in tensors.items()},
        "state": content["state"],
        "rows": rows,
        **{name: (folder / name).read_bytes() for name in files},
    }


def left_by_study(folder: Path) -> dict[str, Any]:
    """All that a study leaves but times, paths and how it was started."""
    found: dict[str, Any] = {file.name: file.read_bytes() for file in folder.glob("*.csv")}
    content = json.loads((folder / "study.json").read_text())
    found["study.json"] = {name: part for name, part in content.items() if name != "settings"}
    for run in sorted((folder / "runs").iterdir()):
        tensors = read(run / "last.safetensors")[1]
        found[run.name] = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    return found


@dataclass(frozen=True)
class Kind:
    """Work that goes on where it was stopped.

    Attributes:
        flags: of the command.
        ranks: number of processes.
        is_study: whether it is a study; else it is one run.
    """

    flags: str
    ranks: int = 1
    is_study: bool = False

    def arguments(self, bench: Bench, folder: Path) -> list[object]:
        """The command with its output in this folder."""
        flags = [*_SMALL.split(), *self.flags.split(), "--per_batch_size", 12 // self.ranks]
        if self.is_study:
            return ["study", "--data_dir", bench.folder / "alone", "--run_dir", folder, *flags]
        flags += ["--max_epoch", 2, "--log_interval", 2]
        return ["train", "--data_dir", bench.images, "--output_dir", folder, *flags]

    def left_by(self, folder: Path) -> dict[str, Any]:
        """What must be equal."""
        return left_by_study(folder) if self.is_study else left_by(folder)


RUNS: dict[str, Kind] = {
    "plain": Kind(""),
    "adamw and average": Kind("--optimizer adamw --lr 0.001 --ema_decay 0.9"),
    "patience": Kind("--patience 5 --lr_scheduler plateau --workers 0"),
    "augmented": Kind("--mixup 0.2 --workers 2 --augment trivial"),
    # A rank that is interrupted while it waits for the others at the start ends with this limit.
    "two ranks": Kind("--timeout_seconds 60", ranks=2),
    "study": Kind("--max_epoch 1 --folds 2 --resamples 100", is_study=True),
}


def torture_run(bench: Bench, rng: random.Random, kind: str) -> str:
    """Train, harmed one to four times; the end is that of undisturbed work."""
    work = RUNS[kind]

    def whole(folder: Path, output: Path) -> None:
        processes = start(bench, work.ranks, work.arguments(bench, folder), output)
        statuses = [process.wait(120) for process in processes]
        told = (statuses, errors_of(output), output.read_text()[-2000:])
        assert statuses == [0] * work.ranks, told

    if kind not in bench.undisturbed:
        folder = bench.fresh() / "run"
        begun = time.monotonic()
        whole(folder, bench.folder / "undisturbed.txt")
        bench.undisturbed[kind] = work.left_by(folder), time.monotonic() - begun
    expected, seconds = bench.undisturbed[kind]
    folder = bench.fresh() / "run"
    for attempt in range(rng.randrange(1, 5)):
        output = bench.folder / f"output-{attempt}.txt"
        _forget(output)
        processes = start(bench, work.ranks, work.arguments(bench, folder), output)
        done = harm(bench, rng, processes, seconds)
        check_lines(output, done)
        for file in folder.rglob("*.ckpt"):
            read(file)  # whole, however the process ended
    output = bench.folder / "last.txt"
    _forget(output)
    whole(folder, output)
    assert work.left_by(folder) == expected, "the end differs"
    assert not list(folder.rglob(".*.tmp")), "a temporary file is left"
    return kind


def _forget(output: Path) -> None:
    for file in output.parent.glob(f"{output.name}*"):
        file.unlink()


# Commands: arguments, and the files that they write.
COMMANDS: dict[str, Callable[[Bench, Path], tuple[list[object], list[str]]]] = {
    "eval": lambda b, out: (
        ["eval", *_given(b), "--output_dir", out / "eval"],
        ["eval/predictions.csv"],
    ),
    "pack": lambda b, out: (["pack", b.images, "--output", out / "packed"], ["packed"]),
    "convert": lambda b, out: (
        ["convert", b.weights, out / "w.safetensors", "--to", "native"],
        ["w.safetensors"],
    ),
    "calibrate": lambda b, out: (
        ["calibrate", *_given(b), "--output", out / "c.safetensors"],
        ["c.safetensors"],
    ),
    "split": lambda b, out: (["split", b.folder / "alone", "--output", out / "lists"], ["lists"]),
    "export": lambda b, out: (["export", *_given(b)[:4], "--output", out / "x.onnx"], ["x.onnx"]),
}


def _given(bench: Bench) -> list[object]:
    return ["--data_dir", bench.images, "--pretrained", bench.weights, "--device", "cpu"]


def contents(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Path to content of the named files and of those in the named folders."""
    found = {}
    for name in names:
        path = folder / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                found[str(file.relative_to(folder))] = file.read_bytes()
    return found


def torture_command(bench: Bench, rng: random.Random, kind: str) -> str:
    """A command, harmed one to four times: its output is whole or not there, and whole at last."""

    def run(folder: Path, output: Path) -> list[Forked]:
        _forget(output)
        return start(bench, 1, COMMANDS[kind](bench, folder)[0], output)

    if kind not in bench.undisturbed:
        folder = bench.fresh()
        begun = time.monotonic()
        (process,) = run(folder, bench.folder / "undisturbed.txt")
        assert process.wait() == 0, errors_of(bench.folder / "undisturbed.txt")
        names = COMMANDS[kind](bench, folder)[1]
        bench.undisturbed[kind] = contents(folder, names), time.monotonic() - begun
    expected, seconds = bench.undisturbed[kind]
    folder = bench.fresh()
    names = COMMANDS[kind](bench, folder)[1]
    for attempt in range(rng.randrange(1, 5)):
        output = bench.folder / f"output-{attempt}.txt"
        done = harm(bench, rng, run(folder, output), seconds)
        check_lines(output, done)
        found = contents(folder, names)
        assert all(expected[name] == content for name, content in found.items()), "half a file"
        for name in names:  # a second output of some commands must be new
            shutil.rmtree(folder / name, ignore_errors=True)
            if (folder / name).is_file():
                (folder / name).unlink()
    output = bench.folder / "last.txt"
    (process,) = run(folder, output)
    assert process.wait() == 0, errors_of(output)
    assert contents(folder, names) == expected, "the end differs"
    left = [*folder.rglob(".*.tmp"), *folder.rglob(".*.partial")]
    assert not left, f"left: {left}"
    return kind
