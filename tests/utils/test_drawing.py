"""matplotlib with a backend that it does not have, as Jupyter gives the commands of a notebook."""

import subprocess
import sys

import pytest

from helpers.commands import environment

DRAW = """
import os
from densenet121.pages.plotting import Figure, as_png
print(as_png(Figure())[1:4].decode(), os.environ["MPLBACKEND"])
import matplotlib
print(matplotlib.get_backend())
"""


def drawn(backend: str, first: str = "") -> list[str]:
    """What a process prints that draws a figure with ``MPLBACKEND``."""
    done = subprocess.run(
        [sys.executable, "-c", first + DRAW],
        env=environment(MPLBACKEND=backend),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("backend", ["Qt4Agg", "module://matplotlib_inline.backend_inline"])
def test_figures_are_drawn_whatever_backend_the_environment_names(backend: str) -> None:
    assert drawn(backend)[0] == f"PNG {backend}"


def test_the_callers_own_figures_keep_the_backend_that_they_named() -> None:
    assert drawn("svg") == ["PNG svg", "svg"]
    assert drawn("svg", "import matplotlib; matplotlib.use('pdf')") == ["PNG svg", "pdf"]
