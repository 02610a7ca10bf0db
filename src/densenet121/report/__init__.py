"""The report of a run: ``write_report(folder)`` makes ``report.html`` from the files in a folder.

It reads only files, so it works for a run that ended, was killed, or was copied from elsewhere.
"""

from pathlib import Path

from densenet121.report import page, plots
from densenet121.runs.layout import REPORT
from densenet121.runs.read import read_run
from densenet121.tasks import Task
from densenet121.utils.errors import InputError
from densenet121.utils.files import write_atomic


def write_report(run_folder: Path, task: Task | None = None) -> Path:
    """Write ``report.html`` and its figures, ``curves.png`` and others, into a run folder.

    The page is one self-contained file that includes the figures. A plot whose input is missing is
    not written, and one from an earlier report is removed.

    Args:
        run_folder: a folder that train or eval wrote.
        task: the caller's own task, if it is one.

    Returns:
        The path of ``report.html``.

    Raises:
        InputError: the folder has neither metrics.jsonl nor eval.json, one of its files cannot be
            read, or the folder cannot be written.
    """
    run_folder = Path(run_folder)
    run = read_run(run_folder, task)
    part = run.task.report(run.results)
    curves = plots.curves(run, part) if run.rows else None
    html = page.render(run, part, curves)
    report = run_folder / REPORT
    try:
        # The page last, so that its plots exist if it does.
        for name, content in {"curves": curves, **part.figures}.items():
            _put(run_folder / f"{name}.png", content)
        _put(report, html.encode("utf-8"))
    except OSError as error:
        raise InputError(f"{run_folder}: the report cannot be written there ({error})") from error
    return report


def _put(path: Path, content: bytes | None) -> None:
    """Replace a file in one step; None removes it."""
    if content is None:
        path.unlink(missing_ok=True)
    else:
        write_atomic(path, content)
