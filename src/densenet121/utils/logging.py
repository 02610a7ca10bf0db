"""Logging with the original's line format and file name.

Source of the format: the original's src/utils/logging.py,
``%(asctime)s:%(levelname)s:%(message)s``.
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from densenet121.utils.errors import InputError, cannot_write

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

    def __init__(self, path: Path, good: Callable[[], str]) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._path, self._good = path, good

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]  # called by logging inside its except block
        if not isinstance(error, OSError):
            raise
        raise cannot_write(self._path, error, self._good()) from None

    def close(self) -> None:
        """Close it; what could not be written before cannot be written now."""
        with contextlib.suppress(OSError):
            super().close()


@contextmanager
def run_log(folder: Path, stamp: str, rank: int, good: Callable[[], str] = str) -> Iterator[Path]:
    """Log to ``folder/<stamp>_rank_<rank>.log``, and to stdout on every eighth rank.

    A resumed run appends to the log file in the folder. An error that ends the run is also written
    to the file, because stderr may not be kept.

    Args:
        folder: the run folder.
        stamp: the date in the name of a new file.
        rank: rank of this process.
        good: what to say about the last good checkpoint, where the file cannot be written.

    Raises:
        InputError: the file cannot be written.
    """
    earlier = sorted(folder.glob(f"*_rank_{rank}.log"))
    path = earlier[-1] if earlier else folder / f"{stamp}_rank_{rank}.log"
    file = _LogFile(path, good)
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
        with contextlib.suppress(OSError, InputError):
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
