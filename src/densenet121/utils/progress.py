"""A progress bar on a terminal; none in log files and pipes."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from densenet121.utils.logging import is_quiet


@contextmanager
def progress_bar(
    description: str, total: int, *, done: int = 0, unit: str = "step"
) -> Iterator[Callable[..., None]]:
    """Yield ``advance(steps=1, note="")``; the bar disappears at the end.

    Args:
        description: text at the left of the bar.
        total: total number of steps.
        done: steps already done (a resumed epoch).
        unit: name of a step.
    """
    # Only one of several processes on a terminal draws.
    on_terminal = sys.stdout is not None and sys.stdout.isatty()  # None where it is closed
    if is_quiet() or not on_terminal or os.environ.get("LOCAL_RANK", "0") != "0":
        yield lambda steps=1, note="": None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + "s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(description, total=total, completed=done, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            bar.update(task, advance=steps)
            if note:  # shown until the next note
                bar.update(task, note=note)

        yield advance
