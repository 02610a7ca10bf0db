"""Model cards: what a network is, how good it is and how it was made, for the hub and people."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from densenet121.card import run as about_run
from densenet121.card import weights as about_weights
from densenet121.card.markdown import document
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import ModelInfo
from densenet121.checkpoint.weights import Weights
from densenet121.runs.evaluated import VALIDATION, fitted_on, image_notes, kind_of_images
from densenet121.runs.layout import LAST_WEIGHTS
from densenet121.runs.read import RunFiles, read_run, results_of, weights_of
from densenet121.tasks import CardPart, Results, Task
from densenet121.utils.errors import InputError
from densenet121.utils.files import file_digest


def weights_card(info: ModelInfo, title: str, origin: str, differences: Sequence[str]) -> str:
    """The card of weights whose run is not known.

    Args:
        info: network, task, classes and preprocessing.
        title: of the page, plain text.
        origin: a sentence on where the weights come from, plain text; may be empty.
        differences: what timm and transformers do in another way.
    """
    return document(
        about_weights.metadata(),
        title,
        [
            about_weights.summary(info, origin),
            about_weights.use(info),
            about_weights.preprocessing(info, differences),
            about_weights.classes(info),
            about_weights.intended_use(),
        ],
    )


def run_card(
    folder: Path,
    *,
    weights: Path | None = None,
    evaluation: Path | None = None,
    title: str | None = None,
    command: str = "",
    differences: Sequence[str] | None = None,
    task: Task | None = None,
) -> str:
    """The card of a run.

    Args:
        folder: a folder that train or eval wrote.
        weights: the weights that it is about (default: the best of the run, else the last).
        evaluation: a folder that eval wrote for these weights, in place of the run's own results.
        title: of the page, plain text (default: the name of the folder).
        command: the command that makes the run again, or empty.
        differences: what timm and transformers do in another way; None if the card is not part of
            a folder that they read.
        task: the caller's own task, if it is one.

    Raises:
        InputError: the folder is no run, a file in it is damaged, or the evaluation is of other
            weights.
    """
    run = read_run(folder, task)
    file = weights or weights_of(run)
    found = read_weights(file, shapes_only=True) if file else None
    record = run.record or {}
    known = about_run.data_of(record, found.data if found else {})
    results, measured = _measured(run, file, found, evaluation, task)
    kind = kind_of_images(measured, known)
    if results and found and found.calibration:
        results = replace(results, calibration=found.calibration)
    part = run.task.card(results) if results else None
    name = title or folder.resolve().name
    info = found.info if found else None
    remarks = [
        _source(results),
        *image_notes(measured, kind),
        fitted_on(found.calibration if found else None, measured),
        _selected(run, file, evaluation, kind),
    ]
    sections = [
        about_weights.summary(info, "") if info else "",
        about_weights.use(info) if info and differences is not None else "",
        about_run.data(known, {} if kind == VALIDATION else measured),
        about_run.results(part, remarks),
        about_run.calibration(found.calibration if found else None, known),
        about_weights.preprocessing(info, differences or ()) if info else "",
        about_weights.classes(info) if info else "",
        about_weights.intended_use(),
        about_run.reproduce(
            record, command, max((row.epoch + 1 for row in run.rows), default=None)
        ),
    ]
    index = _index(name, part, kind)
    head = about_weights.metadata(index, for_timm=differences is not None)
    return document(head, name, sections)


def _measured(
    run: RunFiles,
    file: Path | None,
    weights: Weights | None,
    evaluation: Path | None,
    task: Task | None,
) -> tuple[Results | None, dict[str, Any]]:
    """The results, and the eval.json that they are from; empty if from a row of metrics.jsonl."""
    if evaluation:
        return _evaluated(run, file, evaluation, task)
    results = _own(run, file, weights)
    return results, run.evaluation if results is run.results else {}


def _own(run: RunFiles, file: Path | None, weights: Weights | None) -> Results | None:
    """What the run itself measured."""
    if file is None or weights is None:
        return run.results if len(run.results.scores) == 1 else None
    return results_of(run, file, weights.origin)


def _evaluated(
    run: RunFiles, file: Path | None, evaluation: Path, task: Task | None
) -> tuple[Results, dict[str, Any]]:
    """What an evaluation of the same weights measured, and its eval.json."""
    other = read_run(evaluation, task)
    if other.task.name != run.task.name:
        raise InputError(f"{evaluation}: its task is {other.task.name}, not {run.task.name}")
    scores = other.results.scores
    if len(scores) != 1:
        raise InputError(f"{evaluation}: has results of {len(scores)} weights files, not of one")
    evaluated, known = Path(scores[0].checkpoint), other.evaluation.get("checkpoint_sha256")
    if known is None and evaluated.is_file():  # an older evaluation
        known = file_digest(evaluated)
    if file and known is not None and known != file_digest(file):
        what = f"is of {evaluated}"
        if evaluated.is_file() and evaluated.samefile(file):
            what = f"is of {evaluated} as it was before other weights were written there"
        raise InputError(f"{evaluation}: {what}, but the card is about {file}; evaluate these")
    return other.results, other.evaluation


def _source(results: Results | None) -> str:
    if results is None:
        return ""
    return f"Measured with the weights {Path(results.scores[0].checkpoint).name}."


def _selected(run: RunFiles, file: Path | None, evaluation: Path | None, kind: str) -> str:
    """That the evaluated images chose the weights, if they did."""
    count = len(run.results.validations)
    # last.safetensors, its average, and what calibrate and others make of them by that name.
    if kind != VALIDATION or file is None or count < 2 or _is_of_last(file):
        return ""
    if evaluation:
        return (
            f"These are the validation images of the run. Of {count} validations, that of these "
            "weights was the best, so on new images they may do worse."
        )
    return (
        f"The weights are the best of {count} validations on these same images, so on new images "
        "they may do worse."
    )


def _is_of_last(file: Path) -> bool:
    return file.stem.split("_")[0] == Path(LAST_WEIGHTS).stem


def _index(name: str, part: CardPart | None, kind: str) -> list[dict[str, Any]]:
    """The hub's model-index: the metrics of the card for its search."""
    if part is None or not part.metrics:
        return []
    metrics = [
        {"type": kind, "name": label, "value": round(value, 6)}
        for kind, (label, value) in part.metrics.items()
    ]
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"type": "image-folder", "name": f"{kind} images"},
        "metrics": metrics,
    }
    return [{"name": name, "results": [result]}]
