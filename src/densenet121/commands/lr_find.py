"""The ``lr-find`` command: the loss at rising learning rates, a plot and a suggestion."""

import io
import sys
from dataclasses import dataclass
from pathlib import Path

from densenet121.commands import DONE, FAILED
from densenet121.config import LrFindConfig, absolute
from densenet121.engine.lr_range import LrRange, find_lr
from densenet121.pages.plotting import (
    BLUE,
    FAINT,
    ORANGE,
    STYLE,
    Figure,
    as_png,
    matplotlib,
)
from densenet121.tasks import Task
from densenet121.utils.csv_lines import csv_writer
from densenet121.utils.errors import InputError
from densenet121.utils.files import check_output, write_together
from densenet121.utils.output import say

_COLUMNS = ("step", "lr", "loss", "smoothed_loss")


@dataclass(frozen=True)
class LrFindResult:
    """Result of ``lr-find``.

    Attributes:
        found: the learning rates and losses.
        plot: the PNG file.
        table: the CSV file, columns step, lr, loss and smoothed_loss.
    """

    found: LrRange
    plot: Path
    table: Path


def lr_find(config: LrFindConfig, task: Task | None = None) -> LrFindResult:
    """Test the learning rates, write plot and numbers, and print the suggestion.

    Args:
        config: the settings.
        task: the caller's own task (default: one class per image).

    Raises:
        UsageError, InputError: as ``find_lr``.
        OSError: a file cannot be written.
    """
    plot = absolute(config.output)
    table = plot.with_suffix(".csv")
    _check_outputs(config, plot, table)
    found = find_lr(config, task)
    result = LrFindResult(found, plot, table)
    try:
        write_together({result.table: _table(found).encode(), plot: draw(found)})
    finally:  # where a file cannot be written, the work is not lost
        _say_found(found, config)
    say(f"plot: {plot}; numbers: {result.table}")
    return result


def _say_found(found: LrRange, config: LrFindConfig) -> None:
    ended = "the loss diverged" if found.diverged else "all steps done"
    first, last = found.rates[0], found.rates[-1]
    say(f"tried {len(found.rates)} learning rates from {first:.2g} to {last:.2g} ({ended})")
    if found.fell:
        say(f"the loss falls fastest at {found.steepest:.2g}")
        say(f"a tenth of the rate with the lowest loss is {found.tenth_of_lowest:.2g}")
        say(f"suggested: --lr {suggestion(config, found):.2g}")
    else:
        say("no suggestion: the loss did not fall; try another range")
    if found.fell and not found.is_clear:
        say(
            "the fall is within the noise; more --steps or a larger --per_batch_size makes it clear"
        )


def _check_outputs(config: LrFindConfig, plot: Path, table: Path) -> None:
    """Refuse names under which files of the user's would be lost, the table's above all.

    Nobody names the table, and a list of labels beside the plot could have its name.
    """
    given = (config.data_dir, config.val_dir, config.exclude, config.pretrained, config.teacher)
    inputs = [absolute(path) for path in given if path]
    for file in (plot, table):
        check_output(file, "output", inputs)
    if table.exists():
        with table.open("rb") as numbers:
            own = numbers.readline(100).strip() == ",".join(_COLUMNS).encode()
        if not own:
            raise InputError(
                f"`output` {plot}: the numbers would replace {table}, which lr-find has not "
                "written; name another file"
            )


def suggestion(config: LrFindConfig, found: LrRange) -> float:
    """The rate of the steepest descent; for pretrained weights the smaller one, to spare them."""
    return min(found.steepest, found.tenth_of_lowest) if config.pretrained else found.steepest


def draw(found: LrRange) -> bytes:
    """The plot as PNG bytes: losses, their smoothed curve and the suggestions."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        axes.set_title("Loss at rising learning rates")
        axes.plot(found.rates, found.losses, color="#c3ccd6", linewidth=0.8, label="training loss")
        axes.plot(found.rates, found.smoothed, color=BLUE, label="smoothed")
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        low, high = float(found.smoothed.min()), float(found.smoothed[0])
        margin = max(high - low, 0.1 * abs(high), 1e-6)
        axes.set_ylim(low - 0.5 * margin, high + margin)
        if found.fell:
            label = f"steepest descent, {found.steepest:.2g}"
            axes.axvline(found.steepest, color=ORANGE, label=label)
            label = f"a tenth of the lowest, {found.tenth_of_lowest:.2g}"
            axes.axvline(found.tenth_of_lowest, color=FAINT, linestyle="--", label=label)
        axes.legend(loc="lower left")
        axes.grid(visible=True)
        return as_png(figure)


def _table(found: LrRange) -> str:
    text = io.StringIO()
    rows = csv_writer(text)
    rows.writerow(_COLUMNS)
    values = zip(found.rates.tolist(), found.losses.tolist(), found.smoothed.tolist(), strict=True)
    rows.writerows([step, *row] for step, row in enumerate(values))
    return text.getvalue()


def run(config: LrFindConfig) -> int:
    """Test, write and print; 1 without a suggestion, or if images had to be skipped."""
    found = lr_find(config).found
    for reason in found.bad_images.values():  # begins with the path
        print(f"densenet121: {reason}", file=sys.stderr)  # noqa: T201 (the command's output)
    return DONE if found.fell and not found.bad_images else FAILED
