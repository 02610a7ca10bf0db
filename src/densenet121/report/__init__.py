"""The page of a run: ``write_report(folder)`` turns a run folder's files into ``report.html``.

It reads files, not objects, so it works on a run that ended, was killed, or came from elsewhere.
"""

from pathlib import Path

from densenet121.report import page, plots
from densenet121.report.folder import read_run
from densenet121.report.scores import compare
from densenet121.utils.errors import InputError
from densenet121.utils.files import write_atomic


def write_report(run_folder: Path) -> Path:
    """Write ``report.html``, ``curves.png`` and ``confusion.png`` into a run folder.

    The page is one file that needs no other: the figures are in it too. A plot whose input is
    missing is not written, and one left there by an earlier report is removed.

    Returns:
        The path of ``report.html``.

    Raises:
        InputError: the folder holds neither metrics.jsonl nor eval.json, one of its files cannot be
            read, or nothing can be written there.
    """
    run_folder = Path(run_folder)
    run = read_run(run_folder)
    comparison = compare(run.predictions, run.class_names) if run.predictions else None
    curves = plots.curves(run) if run.train or run.evals else None
    confusion = plots.confusion(comparison) if comparison else None
    html = page.render(run, comparison, curves, confusion)
    report = run_folder / "report.html"
    try:
        # The page last: where it exists, its plots do.
        _put(run_folder / "curves.png", curves)
        _put(run_folder / "confusion.png", confusion)
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
