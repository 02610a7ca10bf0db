"""Standard output that is closed, or cannot be written."""

import contextlib
import os
import sys

from densenet121.utils.files import FULL

_lost: list[OSError] = []  # why say could not write


def drop_output() -> None:
    """Send what is left for standard output nowhere: Python would write it at the end, and fail."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # no output, or one without file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(line: str) -> None:
    """Print a line at once. A command whose work is files goes on where nobody reads it any more.

    So it does where the disk of the output is full; ``unsaid`` tells its end. What cannot be
    written in the encoding of the output has escapes.
    """
    try:
        print(line.encode("utf-8", "backslashreplace").decode(), flush=True)  # noqa: T201
    except BrokenPipeError:
        drop_output()
    except OSError as error:
        if error.errno not in FULL:
            raise
        drop_output()
        _lost.append(error)


def unsaid() -> OSError | None:
    """Why ``say`` could not write since the last call; None if it could."""
    error = _lost[0] if _lost else None
    _lost.clear()
    return error


def open_closed() -> None:
    """Give a process that was started without standard input, output or error the null device.

    Python has None for them, which libraries do not expect. And the next file that is opened, such
    as a log, would have the number of the missing one, so that what a library prints would land in
    it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the lowest free number is the missing one
            file = open(os.devnull, mode, encoding="utf-8", errors="backslashreplace")  # noqa: PTH123, SIM115
            os.set_inheritable(file.fileno(), True)
            setattr(sys, name, file)
