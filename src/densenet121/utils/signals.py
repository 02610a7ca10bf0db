"""Turn SIGTERM, Ctrl-C and others into a flag that loops check between steps."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

_Result = TypeVar("_Result")

_STOPS = (signal.SIGTERM, signal.SIGINT)
# A terminal that was closed, and what batch systems send before they kill: Slurm SIGUSR1 by custom,
# LSF and Grid Engine SIGUSR2, and SIGXCPU at the limit of CPU time. Windows has none of them.
_NOTICES = tuple(
    getattr(signal, name)
    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)


STOPPED_TEXT = "stopped; everything saved before is intact"


class CtrlC(KeyboardInterrupt):
    """Ctrl-C in a process of ours.

    Where KeyboardInterrupt itself has left code that was run from a text, as that of dataclasses
    is, Python ends the process by the signal in the end, whatever its exit status is.
    """


class _Imports:
    """Whether modules are being imported, of which nothing is left to finish or to save."""

    under_way = False


def handle_ctrl_c(status: int) -> None:
    """Have Ctrl-C end this process with one line and ``status``, also while it imports modules.

    There it ends at once: libraries swallow an exception in the middle of their import, and fail
    later. A process that ignores the signal, as in the background of a script, goes on to.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if not _Imports.under_way:
            raise CtrlC
        with contextlib.suppress(OSError):
            os.write(2, f"densenet121: {STOPPED_TEXT}\n".encode())
        os._exit(status)

    signal.signal(signal.SIGINT, on_signal)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """A context in which modules are imported."""
    before, _Imports.under_way = _Imports.under_way, True
    try:
        yield
    finally:
        _Imports.under_way = before


class _Stopped(BaseException):
    """A signal in ``StopRequest.at_once``."""


class StopRequest:
    """A context in which the first SIGTERM or SIGINT only sets ``requested``.

    So do, with ``notices``, the signals that would end the process without a word. They stay with
    whoever ignores them, as nohup does, or has a handler of his own.

    A second Ctrl-C raises KeyboardInterrupt at once, for users who do not want to wait. Outside the
    main thread Python cannot handle signals; then nothing is installed and ``requested`` stays
    False.
    """

    def __init__(self, *, notices: bool = True) -> None:
        self.requested = False
        self._is_at_once = False
        self._notices = _NOTICES if notices else ()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            free = (number for number in self._notices if _is_free(number))
            for number in (*_STOPS, *free):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def at_once(self, compute: Callable[[], _Result]) -> _Result | None:
        """What ``compute`` returns, or None as soon as a stop is requested.

        For long computations that have no steps and change nothing outside.
        """
        try:
            self._is_at_once = True
            return None if self.requested else compute()
        except _Stopped:
            return None
        finally:
            self._is_at_once = False

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise CtrlC
        self.requested = True
        if self._is_at_once:
            raise _Stopped


def _is_free(number: signal.Signals) -> bool:
    handler = signal.getsignal(number)
    outer = isinstance(getattr(handler, "__self__", None), StopRequest)
    return outer or handler == signal.SIG_DFL
