"""The processes of a comparison: each side runs in its own process, in turns."""

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from densenet121.utils.errors import InputError
from densenet121.utils.threads import spinning_limit


class Worker:
    """The process of a side: it answers each line of standard input with a line of JSON.

    Args:
        name: name of the side, for messages.
        command: the command that starts it.
        environment: variables besides those of this process.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.bytes = 0
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.note = ""

    def start(self) -> None:
        """Wait for its first line, which has the note."""
        self.note = self._answer()["note"]

    def ask(self, line: str) -> dict[str, Any]:
        """The answer to a line.

        Raises:
            InputError: the process ended; the text has the last line of its stderr.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # reading the answer reports the reason
        return self._answer()

    def steps(self, count: int) -> float:
        """Seconds for this number of steps."""
        answer = self.ask(str(count))
        self.bytes = answer["bytes"]
        return float(answer["seconds"])

    def stop(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            errors = self._errors.read().decode(errors="replace")
            last = (errors.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"the process for {self.name} ended: {last}")
        found: dict[str, Any] = json.loads(line)
        return found


def environment_of(side: str, own: Sequence[str]) -> dict[str, str]:
    """What the command line sets for our ``own`` sides, and for no other library."""
    return spinning_limit(os.environ) if side in own else {}


@contextlib.contextmanager
def running(
    name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[Worker]:
    """A started worker, stopped at the end."""
    worker = Worker(name, command, environment)
    try:
        worker.start()
        yield worker
    finally:
        worker.stop()
