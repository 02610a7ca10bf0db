"""Figures: what matplotlib's own savefig writes, in less time."""

import io

import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure

from densenet121.pages.plotting import DPI, STYLE, as_png


def figure(layout: str | None) -> Figure:
    """Two plots, with titles and labels that need room."""
    with rc_context(STYLE):
        made = Figure(figsize=(6, 3), layout=layout)  # type: ignore[arg-type]
        for number, axes in enumerate(made.subplots(1, 2)):
            axes.plot([0, 1, 2], [0.1, 30_000.0, 2.0], label="validation")
            axes.set_title(f"a title {number}")
            axes.set_ylabel("loss, much of it")
            axes.legend()
    return made


@pytest.mark.parametrize("layout", ["constrained", "tight", None])
@pytest.mark.parametrize("autolayout", [False, True])  # a setting of the user's own
def test_a_figure_is_arranged_and_drawn_as_by_savefig(layout: str | None, autolayout: bool) -> None:
    with rc_context({"figure.autolayout": autolayout}):
        ours, theirs = figure(layout), figure(layout)
        file = io.BytesIO()
        theirs.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
        assert as_png(ours) == file.getvalue()
