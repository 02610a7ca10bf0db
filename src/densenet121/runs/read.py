"""Read and check the files of a run folder; their texts are unchanged and must not be trusted.

A missing file leaves its part empty and adds a line to ``missing``; a file that cannot be parsed is
an error.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

from densenet121.pages.markup import mapping
from densenet121.runs.decoding import decoder
from densenet121.runs.evaluated import fitted_on, image_notes, kind_of_images, validated_on
from densenet121.runs.evaluations import read_error_map
from densenet121.runs.layout import (
    BEST_AVERAGE,
    BEST_WEIGHTS,
    EVALUATION,
    LAST_AVERAGE,
    LAST_WEIGHTS,
    METRICS,
    PREDICTIONS,
    RECORD,
    read_record,
)
from densenet121.runs.metrics import TrainRow, parse
from densenet121.tasks import (
    AveragedValidation,
    CheckpointScore,
    Results,
    Task,
    Validation,
    task_named,
)
from densenet121.utils.checks import check_type
from densenet121.utils.errors import InputError
from densenet121.utils.files import read_input
from densenet121.utils.json_values import number, parse_json

_LISTS = (".csv", ".tsv", ".txt", ".lst")
_LONGEST_LIST = 100 * 1000**2  # bytes
_MALFORMED = (KeyError, TypeError, ValueError, OverflowError, AttributeError)


@dataclass(kw_only=True)
class RunFiles:
    """Content of a run folder.

    Attributes:
        folder: the run folder.
        task: task of the run.
        results: the results that the task reports.
        record: run.json, None if it is missing.
        evaluation: eval.json; empty if it is missing or of several weights files.
        train: the "train" rows of metrics.jsonl.
        bad_images: path and error of images that could not be read.
        notes: notes for the reader, plain text that may quote the files.
        missing: what the report omits and why, plain text.
    """

    folder: Path
    task: Task
    results: Results
    record: dict[str, Any] | None = None
    evaluation: dict[str, Any] = field(default_factory=dict)
    train: list[TrainRow] = field(default_factory=list)
    bad_images: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[TrainRow | Validation]:
        """The rows of metrics.jsonl, training rows first."""
        return [*self.train, *self.results.validations]


def read_run(folder: Path, task: Task | None = None) -> RunFiles:
    """Read all files of a run folder.

    Args:
        folder: a folder that train or eval wrote.
        task: the caller's own task, if it is one.

    Raises:
        InputError: no such folder, not a run folder, a file that cannot be parsed, or an unknown
            task.
    """
    check_type("task", task, Task, NoneType)
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; pass the run folder that train or eval wrote")
    metrics, evaluation = folder / METRICS, folder / EVALUATION
    if not metrics.is_file() and not evaluation.is_file():
        raise InputError(
            f"{folder}: has neither {METRICS} nor {EVALUATION}; "
            "pass the run folder that train or eval wrote"
        )
    record = _json_object(folder / RECORD) if (folder / RECORD).is_file() else None
    found = _json_object(evaluation) if evaluation.is_file() else None
    name = (record or {}).get("task") or (found or {}).get("task")
    results = Results(
        validations=[],
        scores=[],
        predictions=[],
        class_names=_names((record or {}).get("class_names")),
        error_map=partial(read_error_map, folder),
    )
    task = task_named(name if isinstance(name, str) else None, folder, task)
    run = RunFiles(folder=folder, task=task, results=results, record=record)
    if record is None:
        run.missing.append(f"Settings and environment: {RECORD} is not in the folder.")
    if metrics.is_file():
        _read_metrics(run, metrics)
    else:
        run.missing.append(f"Curves: {METRICS} is not in the folder; training writes it.")
    if found is not None:
        _read_evaluation(run, evaluation, found)
    _read_predictions(run, folder / PREDICTIONS)
    return run


def _read_metrics(run: RunFiles, path: Path) -> None:
    text = _text(path)
    rows, unreadable = parse(text, run.task)
    run.train = [row for row in rows if isinstance(row, TrainRow)]
    run.results.validations = [row for row in rows if isinstance(row, Validation)]
    run.results.averaged = [row for row in rows if isinstance(row, AveragedValidation)]
    if unreadable == [len(text.split("\n"))]:
        run.notes.append(
            f"The last line of {METRICS} is incomplete, because the run was stopped while writing "
            "it; the line is skipped."
        )
    elif unreadable:
        shown = ", ".join(map(str, unreadable[:5])) + (", ..." if len(unreadable) > 5 else "")
        run.notes.append(
            f"{len(unreadable)} line(s) of {METRICS} cannot be read and are skipped "
            f"(line {shown}); a run that was killed and resumed leaves such a line."
        )
    if not rows:
        run.missing.append(f"Curves: {METRICS} has no readable rows.")


def _read_evaluation(run: RunFiles, path: Path, found: dict[str, Any]) -> None:
    several = found.get("results")
    contents = several if isinstance(several, list) and several else [found]
    try:
        failed = [one for one in contents if one.keys() == {"checkpoint", "error"}]
        run.notes += [
            f"Not evaluated: {Path(one['checkpoint']).name} ({one['error']})." for one in failed
        ]
        contents = [one for one in contents if one not in failed]
        run.results.scores = [
            CheckpointScore(
                str(one.get("checkpoint") or ""),
                str(one.get("digest") or ""),
                number(one.get("loss")),
                run.task.check_metrics(one),
            )
            for one in contents
        ]
        run.bad_images = [
            (str(one["path"]), str(one["error"])) for one in found.get("bad_images") or []
        ]
    except _MALFORMED as error:
        raise InputError(
            f"{path}: not the result of an evaluation ({error!r}); run the evaluation again"
        ) from error
    run.evaluation = found if contents == [found] else {}
    # Bad images have a section of their own.
    seen, data = {**run.evaluation, "bad_images": []}, mapping((run.record or {}).get("data"))
    run.notes += image_notes(seen, kind_of_images(seen, data))
    if validated := validated_on(run.evaluation):
        run.notes.append(validated)
    for one, score in zip(contents, run.results.scores, strict=True):
        if fitted := fitted_on(mapping(one.get("calibration")), one):
            name = "" if one is found else f"{Path(score.checkpoint).name}: "
            run.notes.append(name + fitted)
    run.results.class_names = _names(found.get("class_names")) or run.results.class_names
    run.results.calibration = mapping(found.get("calibration"))
    # A relative folder would depend on where the report is made.
    data_dir = found.get("data_dir")
    if isinstance(data_dir, str) and Path(data_dir).is_absolute():
        run.results.data_dir = Path(data_dir)
        run.results.listed = _listed(run.record or {})
    # Training has what the weights of `pretrained` record in its settings, eval in eval.json.
    settings = mapping((run.record or {}).get("settings"))
    run.results.decode = decoder(found if "depth" in found else settings)


def _listed(record: dict[str, Any]) -> frozenset[str]:
    """What the list of the evaluated images has in its cells, if there is one: among it its paths.

    The list is the user's own file, unlike predictions.csv, which may come from elsewhere.
    """
    source = mapping(mapping(record.get("data")).get("val")).get("folder")
    if not isinstance(source, str) or Path(source).suffix.lower() not in _LISTS:
        return frozenset()
    path = Path(source)
    try:
        if not path.is_absolute() or not path.is_file() or path.stat().st_size > _LONGEST_LIST:
            return frozenset()
        lines = path.read_bytes().decode("utf-8-sig", "surrogateescape").splitlines()
    except (OSError, ValueError):
        return frozenset()
    cells = {cell.strip(' "') for line in lines for cell in re.split(r"[,;\t]", line)}
    return frozenset(cells | {line.rpartition(" ")[0] for line in lines})


def _read_predictions(run: RunFiles, path: Path) -> None:
    what, results = "Results of each image", run.results
    if results.scores and not run.evaluation:
        count = len(results.scores)
        of = f"has {count} checkpoints, not one" if count > 1 else "is of a folder of checkpoints"
        run.missing.append(f"{what}: {EVALUATION} {of}.")
        return
    if not path.is_file():
        run.missing.append(f"{what}: {PREDICTIONS} is not in the folder; evaluation writes it.")
        return
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    unreadable = 0
    try:
        for row in reader:
            prediction = run.task.read_prediction(row)
            if prediction is None:
                unreadable += 1
            else:
                results.predictions.append(prediction)
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num + 1} is not CSV ({error})") from error
    if unreadable:
        run.notes.append(f"{unreadable} row(s) of {PREDICTIONS} cannot be read and are skipped.")
    if not results.predictions:
        run.missing.append(f"{what}: {PREDICTIONS} has no readable rows.")
    elif results.scores and (difference := run.task.disagreement(results)):
        run.notes.append(
            f"{PREDICTIONS} and {EVALUATION} disagree: {difference}. The headline is from "
            f"{EVALUATION}, the tables below are from {PREDICTIONS}."
        )


def _text(path: Path) -> str:
    try:
        # Paths may not be UTF-8; such bytes are kept, and the page shows them as escapes.
        return read_input(path).decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _json_object(path: Path) -> dict[str, Any]:
    text = _text(path)
    try:
        found = parse_json(text)
    except ValueError as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: is a {type(found).__name__}, not a JSON object")
    return found


def _names(found: object) -> list[str]:
    return [str(name) for name in found] if isinstance(found, list) else []


def results_of(run: RunFiles, file: Path, origin: Mapping[str, Any]) -> Results | None:
    """The results that a run folder has for one weights file, None if there are none.

    ``scores`` has one element; ``predictions`` is empty where they are of other weights.

    Args:
        run: result of ``read_run``.
        file: the weights file.
        origin: epoch and step of the weights, as the file records them.
    """
    results, averaged = run.results, file.name in (BEST_AVERAGE, LAST_AVERAGE)
    rows: Sequence[Validation | AveragedValidation]
    rows = results.averaged if averaged else results.validations
    last = results.validations[-1].epoch if results.validations else None
    if len(results.scores) == 1:
        of = Path(results.scores[0].checkpoint).name
        # Training evaluates its last weights; the best ones may be the same.
        same = of == LAST_WEIGHTS and not averaged and origin.get("epoch", -1) == last
        if of == file.name or same:
            return results
    for row in rows:
        if row.epoch == origin.get("epoch"):
            score = CheckpointScore(file.name, "", row.loss, row.metrics)
            return replace(results, scores=[score], predictions=[])
    return None


def weights_of(run: RunFiles) -> Path | None:
    """The weights that a run is about: the best, the last, or those that it evaluated.

    None if there are none, or not any more.
    """
    files = [run.folder / name for name in (BEST_WEIGHTS, LAST_WEIGHTS)]
    if len(run.results.scores) == 1:
        files.append(Path(run.results.scores[0].checkpoint))
    return next((file for file in files if file.is_file()), None)


def made_by_train(file: Path) -> bool:
    """Whether a weights file is one that train wrote into the run folder around it."""
    known = (BEST_WEIGHTS, LAST_WEIGHTS, BEST_AVERAGE, LAST_AVERAGE)
    return file.name in known and read_record(file.resolve().parent).get("command") == "train"
