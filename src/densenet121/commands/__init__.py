"""One module per command: ``run(config)`` prints and returns the exit status."""

import signal
import sys
from collections.abc import Iterable

from densenet121.utils.errors import InputError

DONE = 0
FAILED = 1  # the run failed, or its result is partial or not good enough
WRONG_USAGE = 2
STOPPED = 128 + signal.SIGTERM  # a signal stopped it after it saved everything


def print_notes(notes: Iterable[str]) -> None:
    """Print to stderr what a user should know, such as how the images were found; a line each."""
    for note in dict.fromkeys(notes):
        line = InputError(note)  # of one line, whatever names from outside are in it
        print(f"densenet121: {line}", file=sys.stderr)  # noqa: T201
