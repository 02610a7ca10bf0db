"""Turn SIGTERM and Ctrl-C into a flag that loops check between steps."""

import signal
import threading
from types import FrameType
from typing import Any


class StopRequest:
    """A context in which the first SIGTERM or SIGINT only sets ``requested``.

    A second Ctrl-C raises KeyboardInterrupt at once, for users who do not want to wait. Outside the
    main thread Python cannot handle signals; then nothing is installed and ``requested`` stays
    False.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
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
