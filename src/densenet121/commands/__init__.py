"""One module per command: ``run(config)`` prints and returns the exit status."""

import signal

DONE = 0
FAILED = 1  # the run failed, or its result is partial or not good enough
WRONG_USAGE = 2
STOPPED = 128 + signal.SIGTERM  # a signal stopped it after it saved everything
