"""A figure of the report: ROC and precision-recall curves of each label or class."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from densenet121.metrics.ranking import calls_at_each_score
from densenet121.pages.plotting import (
    FAINT,
    INK,
    STYLE,
    Axes,
    Figure,
    Line2D,
    as_png,
    matplotlib,
)

Numbers = NDArray[np.float64]
MOST_CURVES = 10  # more cannot be told apart; the table has the others
_SOLID = 5  # curves; further ones are dashed, so that colours are not all that tells them apart


@dataclass(frozen=True)
class LabelCurve:
    """What is drawn of a label.

    Attributes:
        truth: ``(N,)``, 1 or 0, with both.
        shares: ``(N,)`` probabilities.
        threshold: its operating point; None without.
    """

    truth: Numbers
    shares: Numbers
    threshold: float | None = None


def curves(labels: Mapping[str, LabelCurve]) -> bytes:
    """ROC and precision-recall curves, one line for each label, a dot at its operating point."""
    # Names can be any text: a dollar sign must not start a formula.
    with matplotlib.rc_context({**STYLE, "text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the tables have the name
        return as_png(figure_of(labels))


def figure_of(labels: Mapping[str, LabelCurve]) -> Figure:
    """The figure of ``curves``: ROC curves in its first axes, precision-recall in its second."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    roc, precision = figure.subplots(1, 2)
    colours = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    lines = {}
    for place, (name, label) in enumerate(labels.items()):
        style = {"color": colours[place], "linestyle": "-" if place < _SOLID else "--"}
        false, true, called = _counts(label)
        positives, negatives = true[-1], false[-1]
        found = np.divide(true, called, out=np.ones_like(true), where=called > 0)
        (lines[name],) = roc.plot(false / negatives, true / positives, **style)
        precision.step(true / positives, found, where="pre", **style)
        if label.threshold is not None:
            at = int((label.shares >= label.threshold).sum())
            _dot(roc, false / negatives, true / positives, called == at, colours[place])
            _dot(precision, true / positives, found, (called == at) & (at > 0), colours[place])
    roc.plot([0, 1], [0, 1], color=FAINT, linestyle=":", linewidth=1)
    _describe(roc, "ROC curves", "1 - specificity", "sensitivity")
    _describe(precision, "Precision-recall curves", "recall (sensitivity)", "precision (PPV)")
    # A name that begins with an underscore would be left out.
    handles, names = list(lines.values()), [f" {name}" for name in lines]
    if any(label.threshold is not None for label in labels.values()):
        handles.append(Line2D([], [], color=INK, marker="o", markersize=5, linestyle=""))
        names.append(" operating point")
    figure.legend(handles, names, loc="outside lower center", ncols=6)
    return figure


def _dot(axes: Axes, x: Numbers, y: Numbers, here: NDArray[np.bool_], colour: object) -> None:
    axes.plot(x[here], y[here], "o", color=colour, markersize=6, markeredgecolor="#ffffff")


def _describe(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.grid(visible=True)


def _counts(label: LabelCurve) -> tuple[Numbers, ...]:
    """False and true positives, and both, at each threshold from the highest down; first none."""
    _, hits, images = calls_at_each_score(label.truth, label.shares)
    true, called = (np.concatenate([[0.0], counts]) for counts in (hits, images))
    return called - true, true, called
