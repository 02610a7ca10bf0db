"""The curves of a run as PNG bytes."""

from collections.abc import Sequence

from densenet121.pages.plotting import (
    BLUE,
    FAINT,
    ORANGE,
    STYLE,
    Axes,
    Figure,
    MaxNLocator,
    as_png,
    line,
    matplotlib,
)
from densenet121.report.training import epochs_done
from densenet121.runs.metrics import TrainRow
from densenet121.runs.read import RunFiles
from densenet121.tasks import ReportPart, Validation


def curves(run: RunFiles, part: ReportPart) -> bytes:
    """Loss, validation metrics, learning rate and images/s over epochs, or over steps."""
    validations = run.results.validations
    train_x, eval_x = _positions(run, run.train), _positions(run, validations)
    with matplotlib.rc_context(STYLE):
        # Fixed places, so that the curves of two runs lie above each other; no layout to compute.
        figure = Figure(figsize=(11, 6.4))
        figure.subplots_adjust(left=0.072, right=0.985, bottom=0.08, top=0.935, wspace=0.16)
        loss, metrics, rate, speed = figure.subplots(2, 2, sharex=True).flat
        loss.set_title("Loss")
        line(loss, train_x, [row.loss for row in run.train], BLUE, "training")
        line(loss, eval_x, [row.loss for row in validations], ORANGE, "validation")
        metrics.set_title(part.curves_title)
        for curve, colour in zip(part.curves, (ORANGE, FAINT, BLUE), strict=False):
            line(metrics, eval_x, curve.values, colour, curve.label)
        if not validations:
            _write_empty(metrics)
        rate.set_title("Learning rate")
        line(rate, train_x, [row.lr for row in run.train], BLUE)
        speed.set_title("Training speed, images/s")
        line(speed, train_x, [row.images_per_second for row in run.train], BLUE)
        speed.set_ylim(bottom=0, top=1.15 * max(speed.get_ylim()[1], 0.1))
        for axes in (loss, metrics, rate, speed):
            axes.grid(visible=True)
            if axes.get_legend_handles_labels()[0]:
                # Beside the title: a curve may be anywhere inside.
                place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2}
                axes.legend(**place, ncols=3, columnspacing=1.2)
        for axes in (rate, speed):
            axes.set_xlabel("steps" if epochs_done(run, []) is None else "epochs")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=9, steps=[1, 2, 5, 10]))
        return as_png(figure)


def _write_empty(axes: Axes) -> None:
    axes.set_yticks([])
    text = "no validation in this run"
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=FAINT)


def _positions(run: RunFiles, rows: Sequence[TrainRow | Validation]) -> list[float]:
    """Where the rows stand on the axis, in epochs, or in steps of a run without a whole epoch."""
    epochs = epochs_done(run, rows)
    return [float(row.step) for row in rows] if epochs is None else epochs
