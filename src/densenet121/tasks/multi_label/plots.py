"""Figures of the report: ROC and precision-recall curves of each label."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from densenet121.metrics.ranking import calls_at_each_score
from densenet121.pages.plotting import FAINT, STYLE, as_png

Pair = tuple[NDArray[np.float64], NDArray[np.float64]]  # truth (1 or 0) and probability
MOST_CURVES = 10  # more cannot be told apart; the table has the others


def curves(labels: Mapping[str, Pair]) -> bytes:
    """ROC and precision-recall curves, one line for each label."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.8), layout="constrained")
        roc, precision = figure.subplots(1, 2)
        colours = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
        for (name, (truth, shares)), colour in zip(labels.items(), colours, strict=False):
            false, true, called = _counts(truth, shares)
            positives, negatives = true[-1], false[-1]
            roc.plot(false / negatives, true / positives, color=colour, label=name)
            found = np.divide(true, called, out=np.ones_like(true), where=called > 0)
            precision.step(true / positives, found, color=colour, where="pre", label=name)
        roc.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1)
        _describe(roc, "ROC curves", "1 - specificity", "sensitivity")
        _describe(precision, "Precision-recall curves", "recall (sensitivity)", "precision (PPV)")
        roc.legend(loc="lower right", fontsize=8)
        return as_png(figure)


def _describe(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.grid(visible=True)


def _counts(
    truth: NDArray[np.float64], shares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """False and true positives, and both, at each threshold from the highest down; first none."""
    _, hits, images = calls_at_each_score(truth, shares)
    true, called = (np.concatenate([[0.0], counts]) for counts in (hits, images))
    return called - true, true, called
