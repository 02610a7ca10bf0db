"""The command line as a user has it, and where things are."""

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import densenet121

from helpers.forking import Forked

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared"


def environment(**more: str) -> dict[str, str]:
    """That of this process, for one that is started: one thread, warnings as they come."""
    package = Path(densenet121.__file__).parents[1]  # `make test-sanitize` has a copy of its own
    source = {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **source, **more}


def run_command(
    *arguments: object, cwd: Path | None = None, timeout_seconds: float = 120, **more: str
) -> "subprocess.CompletedProcess[str]":
    """Run ``python -m densenet121 ...`` to its end; ``more`` is for the environment."""
    command = ["-m", "densenet121", *arguments]
    return Forked(command, environment(**more), cwd).finished(timeout_seconds)


def run_code(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run ``python -c code`` to its end, in a process that has imported nothing."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@contextlib.contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """A disk that is full after so many bytes of any file.

    Python would store what it compiles cut short, and the whole environment would stay broken.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode = before
