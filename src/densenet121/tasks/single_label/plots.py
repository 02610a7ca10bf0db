"""Figures of the report: confusion matrix and reliability diagram."""

import math
import warnings

import numpy as np
from numpy.typing import NDArray

from densenet121.pages.plotting import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    STYLE,
    Axes,
    Figure,
    LinearSegmentedColormap,
    MaxNLocator,
    PowerNorm,
    as_png,
    matplotlib,
)
from densenet121.tasks.single_label.calibration import Reliability
from densenet121.tasks.single_label.scores import Comparison

CELLS_WITH_COUNTS = 20  # classes up to which the confusion matrix shows its counts
CELLS_WITH_NAMES = 60  # and its names; above, the numbers of the classes
_BLOCKS = (
    " A cell shows the largest share of {0} x {0} classes; on the diagonal the mean\n"
    "of the correct ones, without the errors among its {0} classes."
)
_MAX_CELLS = 250  # per side; with more, a cell would be smaller than a pixel
_RIGHT = LinearSegmentedColormap.from_list("right", ["#ffffff", "#9db7ea", "#2457c5"])
_WRONG = LinearSegmentedColormap.from_list("wrong", ["#ffffff", "#f2b48c", "#c2571a", "#6e2a05"])


def reliability(found: Reliability) -> bytes:
    """Accuracy over confidence in bins, and the number of images in each (Guo et al. 2017)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 6.2))
        figure.subplots_adjust(left=0.12, right=0.97, bottom=0.085, top=0.95, hspace=0.17)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        left, width = 100 * found.edges[:-1], 100 * np.diff(found.edges)
        filled = found.counts > 0
        above.set_title("Correct, % of the images in a bin")
        above.bar(
            left[filled], 100 * found.accuracy[filled], width[filled], align="edge", color=BLUE,
            edgecolor="#ffffff", label="accuracy",
        )  # fmt: skip
        above.plot(
            100 * found.confidence[filled], 100 * found.confidence[filled], "o", color=ORANGE,
            markersize=4, label="mean probability",
        )  # fmt: skip
        above.plot((0, 100), (0, 100), "--", color=FAINT, linewidth=1)
        above.set(xlim=(0, 100), ylim=(0, 102))
        above.legend(loc="upper left")
        below.set_title("Images")
        below.bar(left, found.counts, width, align="edge", color=FAINT, edgecolor="#ffffff")
        below.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        below.set_xlabel("probability of the predicted class, %")
        for axes in (above, below):
            axes.grid(visible=True, axis="y")
            axes.set_axisbelow(True)
        return as_png(figure)


def confusion(comparison: Comparison) -> bytes:
    """The confusion matrix: blue for correct, orange for wrong, as shares of the label's images.

    It has counts for up to 20 classes, and names for up to 60. For more than 250, a cell is a block
    of classes and shows the largest share in it, so that a single confusion remains visible; one on
    the diagonal shows the mean share of correct ones, and confusions inside of it are not seen.
    """
    # Class names can be any text: a dollar sign must not start a formula.
    with matplotlib.rc_context({**STYLE, "text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the tables have the name
        return as_png(_confusion_figure(comparison))


def _confusion_figure(comparison: Comparison) -> Figure:
    classes = len(comparison.names)
    right, wrong, block = _cells(comparison)
    side = len(wrong)
    inches = max(0.55 * side, 1.8) if side <= CELLS_WITH_COUNTS else 7.2
    figure = Figure(figsize=(inches + 2.2, inches + 1.1), layout="constrained")
    axes = figure.subplots()
    # The darkest colour means at least 10 %, so that few errors also look like few.
    norm = PowerNorm(0.5, vmin=0, vmax=max(float(wrong.max()), 0.1))
    corner = (-0.5, classes - 0.5, classes - 0.5, -0.5)
    image = axes.imshow(wrong, cmap=_WRONG, norm=norm, extent=corner, interpolation="nearest")
    axes.imshow(right, cmap=_RIGHT, vmin=0, vmax=1, extent=corner, interpolation="nearest")
    axes.spines[:].set_visible(True)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    if classes <= CELLS_WITH_NAMES:
        names = [_short(name) for name in comparison.names]
        size = 8.5 if classes <= CELLS_WITH_COUNTS else 6
        axes.set_xticks(range(classes), names, fontsize=size)
        if max(map(len, names)) > 4:
            axes.tick_params(axis="x", labelrotation=45)
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.set_yticks(range(classes), names, fontsize=size)
        axes.tick_params(length=0)
    if classes <= CELLS_WITH_COUNTS:
        _write_counts(axes, comparison, norm)
    else:
        bar = figure.colorbar(image, ax=axes, shrink=0.6, label="share of the label's images")
        bar.ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
        axes.set_title(
            "Orange: wrong. Blue: correct." + (_BLOCKS.format(block) if block > 1 else ""),
            fontweight="normal",
            fontsize=9,
        )
    return figure


def _cells(comparison: Comparison) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Shares of correct (on the diagonal, NaN elsewhere) and wrong, and the classes per cell."""
    block = math.ceil(len(comparison.names) / _MAX_CELLS)
    side = math.ceil(len(comparison.names) / block)
    wrong = np.zeros((side, side))
    recall, members = np.zeros(side), np.zeros(side)
    for pair in comparison.pairs:
        row, column = pair.label // block, pair.predicted // block
        share = pair.images / comparison.support[pair.label]
        if pair.label == pair.predicted:
            recall[row] += share
        else:
            wrong[row, column] = max(wrong[row, column], share)
    np.add.at(members, np.arange(len(comparison.names)) // block, comparison.support > 0)
    right = np.full((side, side), np.nan)
    np.fill_diagonal(right, recall / np.maximum(members, 1))
    return right, wrong, block


def _write_counts(axes: Axes, comparison: Comparison, norm: PowerNorm) -> None:
    counts = {(pair.label, pair.predicted): pair.images for pair in comparison.pairs}
    for row in range(len(comparison.names)):
        for column in range(len(comparison.names)):
            count = counts.get((row, column), 0)
            share = count / max(int(comparison.support[row]), 1)
            depth = share if row == column else float(norm(share))
            colour = "#b6c0cb" if count == 0 else "#ffffff" if depth > 0.55 else INK
            text = axes.text(column, row, str(count), ha="center", va="center", color=colour)
            text.set(fontsize=8.5, in_layout=False)  # inside of the axes, which the layout knows


def _short(name: str) -> str:
    shown = "".join(letter if letter.isprintable() else "?" for letter in name)
    return shown if len(shown) <= 22 else shown[:20] + "..."
