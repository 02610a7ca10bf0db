"""Style of all figures, and embedding in a page. Uses matplotlib's objects, without pyplot."""

import io
import struct
from collections.abc import Sequence
from typing import Any

from densenet121.pages.markup import image
from densenet121.utils.drawing import matplotlib

# isort: split
# Only now, and for all who draw: where it cannot be imported as it is, the line above can.
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

__all__ = [
    "BLUE",
    "DPI",
    "FAINT",
    "GRID",
    "INK",
    "ORANGE",
    "STYLE",
    "Axes",
    "Figure",
    "Line2D",
    "LinearSegmentedColormap",
    "MaxNLocator",
    "PowerNorm",
    "as_png",
    "line",
    "matplotlib",
    "plot",
]

DPI = 160
_LEAST_WIDTH = 720  # CSS pixels
INK, FAINT, GRID = "#1c2430", "#5b6775", "#e3e8ee"
BLUE, ORANGE = "#2457c5", "#c2571a"
STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "text.color": INK,
    "text.usetex": False,
    "axes.edgecolor": "#c3ccd6",
    "axes.facecolor": "#ffffff",
    "axes.grid": False,
    "axes.labelcolor": FAINT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.constrained_layout.h_pad": 0.12,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.facecolor": "#ffffff",
    "grid.color": GRID,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}


def line(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str, label: str = "") -> None:
    """Draw a line, with dots if there are few points; an empty line changes nothing."""
    if x:
        marker = "o" if len(x) <= 40 else ""
        axes.plot(x, y, color=colour, label=label or "_", marker=marker, markersize=3.5)


def as_png(figure: Figure) -> bytes:
    """The figure as PNG bytes."""
    figure.set_dpi(DPI)
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)
        # Else savefig draws everything once more, only to arrange it.
        with matplotlib.rc_context(
            {"figure.autolayout": False, "figure.constrained_layout.use": False}
        ):
            figure.set_layout_engine(None)
    file = io.BytesIO()
    # Without matplotlib's version in the metadata, so that equal runs give equal bytes.
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def plot(png: bytes, alt: str) -> str:
    """HTML of a figure at its size in inches (96 CSS pixels each), sharp on dense screens.

    On a narrow screen it is moved sideways rather than shrunk until its text cannot be read.
    """
    (pixels,) = struct.unpack(">I", png[16:20])
    width = pixels * 96 // DPI
    least = f"min-width:{min(width, _LEAST_WIDTH)}px"
    shown = image(png, "png", alt, f' class="plot" width="{width}" style="{least}"')
    return f'<div class="scroll">{shown}</div>'
