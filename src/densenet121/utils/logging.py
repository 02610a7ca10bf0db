"""Logging with the original's line format and file name.

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
    """Reads ``sys.stdout`` for every line, because a progress bar replaces it temporarily."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> IO[str]:  # type: ignore[override]
        return sys.stdout

    def handleError(self, record: logging.LogRecord) -> None:
        """A run goes on if nobody reads its output any more; the log file has every line."""
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


class _LogFile(logging.FileHandler):
    """Raises errors such as a full disk, instead of printing a traceback to stderr."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise  # called by logging inside its except block


@contextmanager
def run_log(folder: Path, stamp: str, rank: int) -> Iterator[Path]:
    """Log to ``folder/<stamp>_rank_<rank>.log``, and to stdout on every eighth rank.

    A resumed run appends to the log file in the folder. An error that ends the run is also written
    to the file, because stderr may not be kept.
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
    """Log the settings as the original does: ``Args:``, then lines ``--> name: value``."""
    log.info("Args:")
    for name, value in settings.items():
        log.info("--> %s: %s", name, value)
    log.info("")
