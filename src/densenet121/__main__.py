"""``python -m densenet121``, and the installed command."""

import signal
import sys
import threading
from collections.abc import Sequence

from densenet121.utils.output import open_closed
from densenet121.utils.signals import STOPPED_TEXT, handle_ctrl_c, importing

_STOPPED = 143


def start(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; Ctrl-C while it is still imported is one line too.

    After it Ctrl-C is ignored: the process is about to end, and what libraries do at their end
    would print a traceback.
    """
    open_closed()
    try:
        handle_ctrl_c(_STOPPED)
        try:
            with importing():
                from densenet121.cli import main
        except (MemoryError, OSError) as error:
            said = str(error) or "not enough memory"
            print(f"densenet121: cannot start: {said}", file=sys.stderr)  # noqa: T201
            return 1
        return main(arguments)
    except KeyboardInterrupt:
        print(f"densenet121: {STOPPED_TEXT}", file=sys.stderr)  # noqa: T201
        return _STOPPED
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(start())
