"""Commands as processes of their own, forked from one that has imported torch (fork_server.py)."""

import atexit
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

import densenet121


class Forked:
    """One process; its number is a real one, to be sent signals.

    Attributes:
        pid: its number.
    """

    def __init__(
        self,
        argv: Sequence[object],
        env: Mapping[str, str],
        cwd: Path | None = None,
        output: tuple[Path, Path] | None = None,
    ) -> None:
        """Start ``python ARGV``; standard input is empty.

        Args:
            argv: "-m" and a module, "-c" and code, or a script, each with its arguments.
            env: the whole environment.
            cwd: working folder.
            output: files to which stdout and stderr are added; other processes may share them.
        """
        self._argv = [str(argument) for argument in argv]
        if output is None:
            folder = Path(tempfile.mkdtemp(prefix="forked"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            output = folder / "stdout", folder / "stderr"
        self._output = output
        for path in output:
            path.touch()
        request: dict[str, object] = {
            "argv": self._argv,
            "env": dict(env),
            "cwd": str(cwd or Path.cwd()),
            "output": [str(path) for path in output],
        }
        self.pid = int(_ask(request) or 0)
        self._status: int | None = None

    def poll(self) -> int | None:
        """The exit status, -N for a process killed by signal N; None while it runs."""
        if self._status is None:
            self._status = _ask({"wait": self.pid})
        return self._status

    def wait(self, timeout_seconds: float = 120) -> int:
        """The exit status, once it is there.

        Raises:
            subprocess.TimeoutExpired: and the process is killed.
        """
        until = time.monotonic() + timeout_seconds
        while (status := self.poll()) is None:
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(self._argv, timeout_seconds)
            time.sleep(0.005)
        return status

    def finished(self, timeout_seconds: float = 120) -> "subprocess.CompletedProcess[str]":
        """Wait, and read what it wrote."""
        status = self.wait(timeout_seconds)
        texts = [path.read_text(errors="surrogateescape") for path in self._output]
        return subprocess.CompletedProcess(self._argv, status, *texts)


@functools.cache
def forking_socket() -> Path:
    """Where fork_client.py finds a process that forks; it ends with this one."""
    folder = Path(tempfile.mkdtemp(prefix="forking"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    server = _started(str(folder / "socket"))
    while not (folder / "socket").exists():
        assert server.poll() is None, "the process that forks has ended"
        time.sleep(0.01)
    return folder / "socket"


@functools.cache
def _server() -> "subprocess.Popen[str]":
    return _started()


def _started(*arguments: str) -> "subprocess.Popen[str]":
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fork_server.py")), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(densenet121.__file__).parents[1]),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },
    )
    atexit.register(_end, server)
    return server


def _end(server: "subprocess.Popen[str]") -> None:
    server.kill()
    with server:  # waits, and closes the pipes
        pass


def _ask(request: Mapping[str, object]) -> int | None:
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    answer: int | None = json.loads(server.stdout.readline())
    return answer
