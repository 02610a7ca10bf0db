"""Logging with the original's line format and file name.

Source of the format: the original's src/utils/logging.py,
``%(asctime)s:%(levelname)s:%(message)s``.
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO

from densenet121.utils.errors import InputError, cannot_write, visible
from densenet121.utils.output import drop_output

FORMAT = "%(asctime)s:%(levelname)s:%(message)s"
log = logging.getLogger("densenet121")

# The runs that this thread is in, innermost last; empty in the threads that a run has started.
_RUNS: ContextVar[tuple[object, ...]] = ContextVar("runs", default=())
_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)
# All runs of the process, and the level and propagation that the first of them found.
_OPEN: set[object] = set()
_FOUND = [log.level, log.propagate]


class _StdoutHandler(logging.StreamHandler[IO[str]]):
    """Reads ``sys.stdout`` for every line, because a progress bar replaces it temporarily."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> IO[str]:  # type: ignore[override]
        return sys.stdout

    def handleError(self, record: logging.LogRecord) -> None:
        """A run goes on without its output; the log file has every line.

        Nothing is said if nobody reads it any more, and one line if its disk is full.
        """
        error = sys.exc_info()[1]
        if isinstance(error, BrokenPipeError):
            return
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        drop_output()
        print(  # noqa: T201 (not by the log, which has just failed)
            f"densenet121: standard output: cannot be written ({error.strerror}); the run goes on, "
            "and its log file has every line",
            file=sys.stderr,
        )


class _OneLine(logging.Formatter):
    """No name from outside, as of a class, begins a line or tells the terminal something."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of a record, without what is added of an exception."""
        record.message = visible(record.message)
        return super().formatMessage(record)


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
    to the file, because stderr may not be kept. A run in another thread has its lines in its own
    log alone.

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
    if rank % 8 == 0 and sys.stdout is not None and not _QUIET.get():
        handlers.append(_StdoutHandler())
    run = object()
    if not _OPEN:
        _FOUND[:] = log.level, log.propagate
    _OPEN.add(run)
    log.setLevel(logging.INFO)
    log.propagate = False
    before = _RUNS.set((*_RUNS.get(), run))
    for handler in handlers:
        handler.addFilter(lambda _: run in (_RUNS.get() or (run,)))
        handler.setFormatter(_OneLine(FORMAT))
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
        _RUNS.reset(before)
        _OPEN.remove(run)
        if not _OPEN:
            log.setLevel(_FOUND[0])
            log.propagate = bool(_FOUND[1])


@contextmanager
def quiet() -> Iterator[None]:
    """A context in which this thread's runs show nothing, and those of other threads do.

    Neither a log on stdout nor a progress bar.
    """
    before = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(before)


def is_quiet() -> bool:
    """Whether this thread is in the context of ``quiet``."""
    return _QUIET.get()


def log_settings(settings: Mapping[str, object]) -> None:
    """Log the settings as the original does: ``Args:``, then lines ``--> name: value``."""
    log.info("Args:")
    for name, value in settings.items():
        log.info("--> %s: %s", name, value)
    log.info("")
