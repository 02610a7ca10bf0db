"""The original's log: its line format and its file name.

Source of the format: the original's src/utils/logging.py,
``%(asctime)s:%(levelname)s:%(message)s``.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from densenet121.utils.errors import InputError

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
