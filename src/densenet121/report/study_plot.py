"""The figure of a study: values over folds and seeds, and the ensemble with its interval."""

from collections.abc import Mapping
from typing import Any

from densenet121.pages.plotting import (
    BLUE,
    FAINT,
    ORANGE,
    STYLE,
    Axes,
    Figure,
    MaxNLocator,
    as_png,
    matplotlib,
)

_SHOWN = ("accuracy", "balanced_accuracy", "auroc", "average_precision")  # higher is better
_ROWS = ("ensemble", "single networks", "folds")


def draw_spread(spread: Mapping[str, Any], names: Mapping[str, str]) -> bytes:
    """One panel for each metric that is better if higher, as PNG bytes."""
    shown = [name for name in _SHOWN if name in spread]
    columns = 2
    lines = -(-len(shown) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 0.4 + 1.7 * lines), layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False)
        for panel, name in zip(panels.flat, shown, strict=False):
            _panel(panel, spread[name], names[name])
        for panel in panels.flat[len(shown) :]:
            panel.set_axis_off()
        return as_png(figure)


def _panel(axes: Axes, found: Mapping[str, Any], title: str) -> None:
    axes.set_title(title)
    if found["ensemble"] is not None:
        if found["ensemble_ci"]:
            axes.plot(found["ensemble_ci"], [2, 2], color=BLUE, linewidth=2.2, marker="|")
        axes.plot([found["ensemble"]], [2], "o", color=BLUE, markersize=6)
    for place, part, colour in ((1, "seeds", ORANGE), (0, "folds", FAINT)):
        values = [value for value in found[part]["values"] if value is not None]
        axes.plot(values, [place] * len(values), "o", color=colour, markersize=5, alpha=0.6)
        if found[part]["mean"] is not None:
            axes.plot([found[part]["mean"]], [place], "|", color=colour, markersize=16)
    axes.set_yticks([2, 1, 0], _ROWS)
    axes.set_ylim(-0.6, 2.6)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.grid(visible=True, axis="x")
    axes.set_axisbelow(True)
