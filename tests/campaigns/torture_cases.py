"""What is harmed, how, and what must be left."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from densenet121.checkpoint.native import read
from densenet121.runs.layout import checkpoints_in

from helpers.commands import environment
from helpers.forking import Forked

DISK_BYTES = 96 * 2**20  # of the disk that is filled


@dataclass
class Bench:
    """What the cases share.

    Attributes:
        folder: everything is in it.
        images: class folders in train/ and val/.
        weights: of a small network.
        harms: how often which was done.
        undisturbed: what undisturbed work leaves, and its seconds.
        has_disk: whether a small disk of our own is mounted.
    """

    folder: Path
    images: Path
    weights: Path
    harms: Counter[str] = field(default_factory=Counter)
    undisturbed: dict[str, tuple[Any, float]] = field(default_factory=dict)
    has_disk: bool = False

    @property
    def disk(self) -> Path:
        """Where the disk is mounted."""
        return self.folder / "disk"

    @property
    def case(self) -> Path:
        """The folder of the case that runs."""
        return (self.disk if self.has_disk else self.folder) / "case"

    def fresh(self) -> Path:
        """An empty folder, on a small disk where one can be mounted (root)."""
        if not self.disk.exists():
            self.disk.mkdir()
            command = [
                "mount",
                "-t",
                "tmpfs",
                "-o",
                f"size={DISK_BYTES}",
                "torture",
                str(self.disk),
            ]
            done = subprocess.run(command, capture_output=True, check=False)
            self.has_disk = done.returncode == 0
        shutil.rmtree(self.case, ignore_errors=True)
        self.case.mkdir()
        return self.case

    def close(self) -> None:
        """Unmount the disk."""
        if self.has_disk:
            subprocess.run(["umount", self.disk], capture_output=True, check=False)


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


# What can be done to running processes; each returns what undoes it.
Harm = Callable[[Bench, random.Random, list[Forked]], Callable[[], None]]


def _signal(number: signal.Signals) -> Harm:
    def harm(bench: Bench, rng: random.Random, processes: list[Forked]) -> Callable[[], None]:
        for process in processes if rng.random() < 0.7 else [rng.choice(processes)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)
        return lambda: None

    return harm


def _limit(which: int, low: int, high: int) -> Harm:
    def harm(bench: Bench, rng: random.Random, processes: list[Forked]) -> Callable[[], None]:
        most = rng.randrange(low, high)
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(process.pid, which, (most, most))
        return lambda: None

    return harm


def _full(bench: Bench, rng: random.Random, processes: list[Forked]) -> Callable[[], None]:
    filler = bench.disk / "filler"
    free = shutil.disk_usage(bench.disk).free
    with contextlib.suppress(OSError), filler.open("wb") as file:
        file.write(bytes(max(0, free - rng.choice((0, 0, 4096, 2**20, 3 * 2**20)))))
    return lambda: filler.unlink(missing_ok=True)


def _read_only(bench: Bench, rng: random.Random, processes: list[Forked]) -> Callable[[], None]:
    def remount(mode: str) -> None:
        for _ in range(50):  # busy while a file is open for writing
            command = ["mount", "-o", f"remount,{mode}", str(bench.disk)]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.01)

    remount("ro")
    return lambda: remount("rw")


HARMS: dict[str, Harm] = {
    "SIGKILL": _signal(signal.SIGKILL),
    "SIGTERM": _signal(signal.SIGTERM),
    "SIGINT": _signal(signal.SIGINT),
    "large files impossible": _limit(resource.RLIMIT_FSIZE, 0, 6_000_000),
    "no descriptors": _limit(resource.RLIMIT_NOFILE, 3, 40),
    "full disk": _full,
    "read-only disk": _read_only,
}
_WEIGHTS = {"SIGKILL": 6, "SIGTERM": 3, "SIGINT": 3}
ENDS = {"SIGKILL": {-9}, "SIGTERM": {143, -15}, "SIGINT": {143, -2}}


def harm(bench: Bench, rng: random.Random, processes: list[Forked], seconds: float) -> str:
    """Harm them after some time, wait for their end, undo the harm; which one it was."""
    names = list(HARMS) if bench.has_disk else list(HARMS)[:5]
    name = rng.choices(names, [_WEIGHTS.get(name, 1) for name in names])[0]
    until = time.monotonic() + rng.uniform(0, 1.1 * seconds)
    while time.monotonic() < until and any(process.poll() is None for process in processes):
        time.sleep(0.002)
    undo = HARMS[name](bench, rng, processes)
    bench.harms[name] += 1
    try:
        statuses = [process.wait(120) for process in processes]
    finally:
        undo()
    allowed = {0, 1} | ENDS.get(name, set())
    if len(processes) > 1:  # the other ranks say so, or are stopped by the run
        allowed |= {143}
    assert set(statuses) <= allowed, (name, statuses)
    return name


def check_lines(output: Path, name: str) -> None:
    """One line from each process at most, and no traceback."""
    for lines in errors_of(output):
        text = "\n".join(lines)
        assert "Traceback" not in text, f"{name}: {text[-3000:]}"
        told = [line for line in lines if line.startswith("densenet121: ")]
        assert len(told) <= 1, (name, lines)


# Training: flags of each kind of run, and the number of ranks.
RUNS: dict[str, tuple[int, list[str]]] = {
    "plain": (1, []),
    "adamw and average": (1, ["--optimizer", "adamw", "--lr", "0.001", "--ema_decay", "0.9"]),
    "patience": (1, ["--patience", "5", "--lr_scheduler", "plateau", "--workers", "0"]),
    "augmented": (1, ["--mixup", "0.2", "--workers", "2", "--augment", "trivial"]),
    # A rank that is interrupted while it waits for the others at the start ends with this limit.
    "two ranks": (2, ["--timeout_seconds", "60"]),
}
_FLAGS = "--net densenet100 --image_size 16 --device cpu --amp fp32 --lr 0.02 --max_epoch 2"
_FLAGS += " --log_interval 2 --ckpt_interval 1"


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


def torture_run(bench: Bench, rng: random.Random, kind: str) -> str:
    """Train, harmed one to three times; the end is that of an undisturbed run."""
    ranks, flags = RUNS[kind]
    batch = str(12 // ranks)

    def arguments(folder: Path) -> list[object]:
        given: list[object] = ["train", "--data_dir", bench.images, "--output_dir", folder]
        return [*given, *_FLAGS.split(), "--per_batch_size", batch, *flags, "--resume", "auto"]

    def whole(folder: Path, output: Path) -> None:
        processes = start(bench, ranks, arguments(folder), output)
        statuses = [process.wait(120) for process in processes]
        assert statuses == [0] * ranks, (statuses, errors_of(output), output.read_text()[-2000:])

    if kind not in bench.undisturbed:
        folder = bench.fresh() / "run"
        begun = time.monotonic()
        whole(folder, bench.folder / "undisturbed.txt")
        bench.undisturbed[kind] = left_by(folder), time.monotonic() - begun
    expected, seconds = bench.undisturbed[kind]
    folder = bench.fresh() / "run"
    for attempt in range(rng.randrange(1, 4)):
        output = bench.folder / f"output-{attempt}.txt"
        _forget(output)
        done = harm(bench, rng, start(bench, ranks, arguments(folder), output), seconds)
        check_lines(output, done)
        for file in folder.glob("*.ckpt"):
            read(file)  # whole, however the process ended
    output = bench.folder / "last.txt"
    _forget(output)
    whole(folder, output)
    assert left_by(folder) == expected, "the end differs"
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
    """A command, harmed one to three times: its output is whole or not there, and whole at last."""

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
    for attempt in range(rng.randrange(1, 4)):
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
