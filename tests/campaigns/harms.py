"""What is done to processes at a random moment."""

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        clock: what the processes' wall clock is ahead of the machine's; None without a compiler.
    """

    folder: Path
    images: Path
    weights: Path
    harms: Counter[str] = field(default_factory=Counter)
    undisturbed: dict[str, tuple[Any, float]] = field(default_factory=dict)
    has_disk: bool = False
    clock: Path | None = None

    @property
    def disk(self) -> Path:
        """Where the disk is mounted."""
        return self.folder / "disk"

    @property
    def case(self) -> Path:
        """The folder of the case that runs."""
        return (self.disk if self.has_disk else self.folder) / "case"

    def can(self, name: str) -> bool:
        """Whether a harm is possible here."""
        return self.clock is not None if name == CLOCK else self.has_disk or "disk" not in name

    def set_clock(self, seconds: int) -> None:
        """Let the wall clock of all processes jump."""
        assert self.clock is not None
        with self.clock.open("r+b", buffering=0) as file:
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))

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


def _no_memory(bench: Bench, rng: random.Random, processes: list[Forked]) -> Callable[[], None]:
    more = rng.choice((0, 2**20, 2**24, 2**27))
    for process in processes:
        with contextlib.suppress(OSError):
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + more
            resource.prlimit(process.pid, resource.RLIMIT_AS, (most, most))
    return lambda: None


def _images_vanish(bench: Bench, rng: random.Random, processes: list[Forked]) -> Callable[[], None]:
    # All of them: without those of validation alone a run goes on without validation.
    away = bench.folder / "away"
    bench.images.rename(away)

    def undo() -> None:
        away.rename(bench.images)

    return undo


def _output_vanishes(
    bench: Bench, rng: random.Random, processes: list[Forked]
) -> Callable[[], None]:
    for path in bench.case.iterdir():
        for _ in range(50):  # the processes go on writing
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True) if path.is_file() else None
            if not path.exists():
                break
    return lambda: None


CLOCK = "clock jumps"


def clock_environment(file: Path) -> dict[str, str]:
    """For processes whose wall clock is as far ahead as a file says; empty without a compiler.

    It must be set when the first process starts, from which the others are forked.
    """
    library, source = file.with_suffix(".so"), Path(__file__).with_name("clock.c")
    command = ["cc", "-shared", "-fPIC", "-O1", str(source), "-o", str(library)]
    try:
        subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    file.write_bytes(bytes(8))
    return {"LD_PRELOAD": str(library), "TEST_CLOCK": str(file)}


def _clock_jumps(bench: Bench, rng: random.Random, processes: list[Forked]) -> Callable[[], None]:
    """Back and forward by seconds to years, until the processes end."""
    while any(process.poll() is None for process in processes):
        seconds = rng.choice((1, 60, 3600, 86400, 10**8)) * rng.choice((-1, 1))
        bench.set_clock(seconds)
        time.sleep(rng.uniform(0.02, 0.5))
    return lambda: bench.set_clock(0)


HARMS: dict[str, Harm] = {
    "SIGKILL": _signal(signal.SIGKILL),
    "SIGTERM": _signal(signal.SIGTERM),
    "SIGINT": _signal(signal.SIGINT),
    "large files impossible": _limit(resource.RLIMIT_FSIZE, 0, 6_000_000),
    "no descriptors": _limit(resource.RLIMIT_NOFILE, 3, 40),
    "no memory": _no_memory,
    CLOCK: _clock_jumps,
    "images vanish": _images_vanish,
    "output vanishes": _output_vanishes,
    "full disk": _full,
    "read-only disk": _read_only,
}
_WEIGHTS = {"SIGKILL": 6, "SIGTERM": 3, "SIGINT": 3}
ENDS = {"SIGKILL": {-9}, "SIGTERM": {143, -15}, "SIGINT": {143, -2}}
# torch, OpenMP and the C++ library end the process in threads of their own, the system's loader of
# libraries with 127.
ENDS |= {"no descriptors": {-6}, "no memory": {-6, -11, 127}}


def harm(bench: Bench, rng: random.Random, processes: list[Forked], seconds: float) -> str:
    """Harm them after some time, wait for their end, undo the harm; which one it was."""
    names = [name for name in HARMS if bench.can(name)]
    name = rng.choices(names, [_WEIGHTS.get(name, 1) for name in names])[0]
    until = time.monotonic() + rng.uniform(0, 1.1 * seconds)
    while time.monotonic() < until and any(process.poll() is None for process in processes):
        time.sleep(0.002)
    undo = HARMS[name](bench, rng, processes)
    bench.harms[name] += 1
    try:
        statuses = [process.wait(200) for process in processes]  # `timeout_seconds` is 60
    finally:
        undo()
    # What a wall clock says must make no difference to a process that was not harmed otherwise.
    allowed = {0} if name == CLOCK else {0, 1} | ENDS.get(name, set())
    if len(processes) > 1 and name != CLOCK:  # the other ranks say so, or are stopped by the run
        allowed |= {143}
    assert set(statuses) <= allowed, (name, statuses)
    return name
