"""Turn SIGTERM, Ctrl-C and others into a flag that loops check between steps."""

import signal
import threading
from types import FrameType
from typing import Any

_STOPS = (signal.SIGTERM, signal.SIGINT)
# A terminal that was closed, and what batch systems send before they kill: Slurm SIGUSR1 by custom,
# LSF and Grid Engine SIGUSR2, and SIGXCPU at the limit of CPU time. Windows has none of them.
_NOTICES = tuple(
    getattr(signal, name)
    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)


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

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


def _is_free(number: signal.Signals) -> bool:
    handler = signal.getsignal(number)
    outer = isinstance(getattr(handler, "__self__", None), StopRequest)
    return outer or handler == signal.SIG_DFL
