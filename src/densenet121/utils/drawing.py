"""matplotlib, whatever ``MPLBACKEND`` says. Everything that draws imports it from here.

Jupyter sets the variable for the commands that a notebook starts, to a module that another
environment lacks, and shells set names of old releases. matplotlib then refuses to be imported.
Our figures need no window, so that what the variable names is left for the caller's own.
"""

import contextlib
import os
import sys

_named = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib
finally:
    if _named is not None:
        os.environ["MPLBACKEND"] = _named
if _named:  # as matplotlib itself does
    with contextlib.suppress(ValueError):
        matplotlib.rcParams["backend"] = _named

__all__ = ["matplotlib"]
