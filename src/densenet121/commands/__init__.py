"""One module per command: ``run(config)`` prints and returns the exit status."""

import signal
import sys
from collections.abc import Iterable

DONE = 0
FAILED = 1  # the run failed, or its result is partial or not good enough
WRONG_USAGE = 2
STOPPED = 128 + signal.SIGTERM  # a signal stopped it after it saved everything


def print_notes(notes: Iterable[str]) -> None:
    """Print to stderr what a user should know about the way the images were found."""
    for note in dict.fromkeys(notes):
        print(f"densenet121: {note}", file=sys.stderr)  # noqa: T201
