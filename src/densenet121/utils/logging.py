"""The original's log: its line format, its file name, and the machine-readable metrics beside it.

Source of the format: the original's src/utils/logging.py,
``%(asctime)s:%(levelname)s:%(message)s``.
"""

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from densenet121.utils.errors import InputError
from densenet121.utils.files import write_atomic

FORMAT = "%(asctime)s:%(levelname)s:%(message)s"
log = logging.getLogger("densenet121")


class _StdoutHandler(logging.StreamHandler[IO[str]]):
    """Looks ``sys.stdout`` up at every line: a progress bar replaces it while it is on screen."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> IO[str]:  # type: ignore[override]
        return sys.stdout


class _LogFile(logging.FileHandler):
    """A full disk is the run's error, not a traceback on stderr beside it."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise  # logging calls this while it handles the error


@contextmanager
def run_log(folder: Path, stamp: str, rank: int) -> Iterator[Path]:
    """Log to ``folder/<stamp>_rank_<rank>.log``, and to stdout on every eighth rank.

    A resumed run goes on in the log file that the folder already has. An error that ends the run is
    written to the file as well: stderr is not there to be read later.
    """
    earlier = sorted(folder.glob(f"*_rank_{rank}.log"))
    path = earlier[-1] if earlier else folder / f"{stamp}_rank_{rank}.log"
    file = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    handlers: list[logging.Handler] = [file]
    if rank % 8 == 0:
        handlers.append(_StdoutHandler())
    level, propagate = log.level, log.propagate
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in handlers:
        handler.setFormatter(logging.Formatter(FORMAT))
        log.addHandler(handler)
    try:
        yield path
    except (InputError, OSError) as error:
        with contextlib.suppress(OSError):
            file.handle(log.makeRecord(log.name, logging.ERROR, "", 0, str(error), (), None))
        raise
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
        log.setLevel(level)
        log.propagate = propagate


def log_settings(settings: Mapping[str, object]) -> None:
    """The original's list of settings: ``Args:``, then ``--> name: value`` a line."""
    log.info("Args:")
    for name, value in settings.items():
        log.info("--> %s: %s", name, value)
    log.info("")


class MetricsFile:
    """metrics.jsonl: one JSON object a line, in the order it happened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep_until(self, step: int, evaluated_epochs: int, source: Path | None = None) -> None:
        """Drop what a killed run wrote after the checkpoint that it is resumed from.

        Args:
            step: steps done at the checkpoint; training rows of earlier steps stay.
            evaluated_epochs: epochs validated at the checkpoint; their rows stay.
            source: the interrupted run's metrics file, if it is another one.
        """
        source = source or self.path
        kept = []
        for row in read_metrics(source) if source.is_file() else []:
            train_row_done = row["kind"] == "train" and row["step"] < step
            eval_row_done = row["kind"] == "eval" and row["epoch"] < evaluated_epochs
            if train_row_done or eval_row_done:
                kept.append(row)
        write_atomic(self.path, "".join(_line(row) for row in kept).encode())

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(row))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a last line that a killed run left unfinished is dropped.

    Raises:
        InputError: another line is no JSON object: nothing of this program wrote it.
    """
    rows = []
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif number != len(lines):
            raise InputError(f"{path}: line {number} is damaged; remove it to go on without it")
    return rows


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
