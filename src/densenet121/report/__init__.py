"""The page of a run: ``write_report(folder)`` turns a run folder's files into ``report.html``.

It reads files, not objects, so it works on a run that ended, was killed, or came from elsewhere.
"""

from pathlib import Path

import numpy as np

from densenet121.report import page, plots
from densenet121.report.scores import compare
from densenet121.runs.read import RunFiles, read_run
from densenet121.tasks.single_label.calibration import Reliability, reliability
from densenet121.utils.errors import InputError
from densenet121.utils.files import write_atomic


def write_report(run_folder: Path) -> Path:
    """Write ``report.html`` and its figures, ``curves.png`` and others, into a run folder.

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
    confidence = _reliability(run)
    figures = {}
    if run.train or run.evals:
        figures["curves"] = plots.curves(run)
    if comparison and confidence:
        figures["confusion"] = plots.confusion(comparison)
        figures["reliability"] = plots.reliability(confidence)
    html = page.render(run, comparison, confidence, figures)
    report = run_folder / "report.html"
    try:
        # The page last: where it exists, its plots do.
        for name in ("curves", "confusion", "reliability"):
            _put(run_folder / f"{name}.png", figures.get(name))
        _put(report, html.encode("utf-8"))
    except OSError as error:
        raise InputError(f"{run_folder}: the report cannot be written there ({error})") from error
    return report


def _reliability(run: RunFiles) -> Reliability | None:
    if not run.predictions:
        return None
    confidence = np.array([one.probability for one in run.predictions])
    right = np.array([one.label == one.predicted for one in run.predictions])
    return reliability(confidence, right)


def _put(path: Path, content: bytes | None) -> None:
    """Replace a file in one step; None removes it."""
    if content is None:
        path.unlink(missing_ok=True)
    else:
        write_atomic(path, content)
