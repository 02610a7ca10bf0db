"""What a run folder holds, read and checked; its texts are kept as they are and trusted nowhere.

A file that is not there leaves its part empty and a line in ``missing``; a file that is there and
cannot be understood is an error.
"""

import csv
import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from densenet121.utils.errors import InputError

_MALFORMED = (KeyError, TypeError, ValueError, OverflowError)


class TrainRow(NamedTuple):
    """One "train" line of metrics.jsonl; a number that was not finite is NaN."""

    epoch: int
    step: int
    loss: float
    lr: float
    images_per_second: float
    data_wait: float


class EvalRow(NamedTuple):
    """One "eval" line of metrics.jsonl."""

    epoch: int
    step: int
    loss: float
    top1_correct: int
    top5_correct: int
    total: int


class Score(NamedTuple):
    """The counts of one checkpoint in eval.json."""

    checkpoint: str
    digest: str
    loss: float
    top1_correct: int
    top5_correct: int
    total: int


class Prediction(NamedTuple):
    """One row of predictions.csv: label and predicted are class names, rank counts from 1."""

    path: str
    label: str
    predicted: str
    probability: float
    rank: int


@dataclass(kw_only=True)
class RunFiles:
    """A run folder's content.

    ``notes`` are things a reader must know, ``missing`` what the page leaves out and why; both are
    plain text and may quote the files.
    """

    folder: Path
    record: dict[str, Any] | None = None  # run.json
    train: list[TrainRow] = field(default_factory=list)
    evals: list[EvalRow] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)  # more than one: several checkpoints
    predictions: list[Prediction] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    data_dir: Path | None = None
    bad_images: list[tuple[str, str]] = field(default_factory=list)  # path, what was wrong
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[TrainRow | EvalRow]:
        """The rows of metrics.jsonl, those of training first."""
        return [*self.train, *self.evals]


def read_run(folder: Path) -> RunFiles:
    """Read run.json, metrics.jsonl, eval.json and predictions.csv of a run folder."""
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; pass the run folder that train or eval wrote")
    metrics, evaluation = folder / "metrics.jsonl", folder / "eval.json"
    if not metrics.is_file() and not evaluation.is_file():
        raise InputError(
            f"{folder}: holds neither metrics.jsonl nor eval.json; "
            "pass the run folder that train or eval wrote"
        )
    run = RunFiles(folder=folder)
    if (folder / "run.json").is_file():
        run.record = _json_object(folder / "run.json")
        run.class_names = _names(run.record.get("class_names"))
    else:
        run.missing.append("Settings and environment: run.json is not in the folder.")
    if metrics.is_file():
        _read_metrics(run, metrics)
    else:
        run.missing.append("Curves: metrics.jsonl is not in the folder; training writes it.")
    if evaluation.is_file():
        _read_evaluation(run, evaluation)
    _read_predictions(run, folder / "predictions.csv")
    return run


def _read_metrics(run: RunFiles, path: Path) -> None:
    rows: list[TrainRow | EvalRow] = []
    unreadable: list[int] = []
    lines = _text(path).split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _metrics_row(line)
        if row is None:
            unreadable.append(number)
            continue
        # A resumed run does some steps again: what it writes last is what counts.
        while rows and (
            rows[-1].step > row.step or (rows[-1].step == row.step and type(rows[-1]) is type(row))
        ):
            rows.pop()
        rows.append(row)
    run.train = [row for row in rows if isinstance(row, TrainRow)]
    run.evals = [row for row in rows if isinstance(row, EvalRow)]
    if unreadable == [len(lines)]:
        run.notes.append(
            "The last line of metrics.jsonl is cut off, so the run was stopped while writing it; "
            "the line is left out."
        )
    elif unreadable:
        shown = ", ".join(map(str, unreadable[:5])) + (", ..." if len(unreadable) > 5 else "")
        run.notes.append(
            f"{len(unreadable)} line(s) of metrics.jsonl cannot be read and are left out "
            f"(line {shown}); a run that was killed and resumed leaves such a line."
        )
    if not rows:
        run.missing.append("Curves: metrics.jsonl holds no row that can be read.")


def _metrics_row(line: str) -> TrainRow | EvalRow | None:
    """The row, or None for a line that is cut, damaged or of no known kind."""
    try:
        found = json.loads(line)
        if found["kind"] == "train":
            return TrainRow(
                _count(found["epoch"]),
                _count(found["step"]),
                *(_number(found.get(name)) for name in TrainRow._fields[2:]),
            )
        if found["kind"] == "eval":
            epoch, step = _count(found["epoch"]), _count(found["step"])
            return EvalRow(epoch, step, _number(found.get("loss")), *_counts(found))
    except (*_MALFORMED, RecursionError):
        return None
    return None


def _read_evaluation(run: RunFiles, path: Path) -> None:
    found = _json_object(path)
    several = found.get("results")
    try:
        run.scores = [
            Score(
                str(one.get("checkpoint") or ""),
                str(one.get("digest") or ""),
                _number(one.get("loss")),
                *_counts(one),
            )
            for one in (several if isinstance(several, list) and several else [found])
        ]
        run.bad_images = [
            (str(one["path"]), str(one["error"])) for one in found.get("bad_images") or []
        ]
    except (*_MALFORMED, AttributeError) as error:
        raise InputError(
            f"{path}: not an evaluation's result ({error!r}); run the evaluation again"
        ) from error
    run.class_names = _names(found.get("class_names")) or run.class_names
    # The folder of the images: a relative one would depend on where the report is made.
    data_dir = found.get("data_dir")
    if isinstance(data_dir, str) and Path(data_dir).is_absolute():
        run.data_dir = Path(data_dir)


def _read_predictions(run: RunFiles, path: Path) -> None:
    what = "Confusion matrix, results per class and worst errors"
    if len(run.scores) > 1:
        run.missing.append(f"{what}: eval.json holds {len(run.scores)} checkpoints, not one.")
        return
    if not path.is_file():
        run.missing.append(f"{what}: predictions.csv is not in the folder; evaluation writes it.")
        return
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    unreadable = 0
    try:
        for row in reader:
            prediction = _prediction(row)
            if prediction is None:
                unreadable += 1
            else:
                run.predictions.append(prediction)
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num + 1} is not CSV ({error})") from error
    if unreadable:
        run.notes.append(f"{unreadable} row(s) of predictions.csv cannot be read and are left out.")
    if not run.predictions:
        run.missing.append(f"{what}: predictions.csv holds no row that can be read.")
    elif run.scores:
        _check_agreement(run)


def _prediction(row: dict[str, Any]) -> Prediction | None:
    try:
        path, label, predicted = (row[name] for name in Prediction._fields[:3])
        probability, rank = float(row["probability"]), int(row["rank"])
    except _MALFORMED:
        return None
    if not (path and label and predicted and math.isfinite(probability)):
        return None
    return Prediction(path, label, predicted, probability, rank)


def _check_agreement(run: RunFiles) -> None:
    correct = sum(one.label == one.predicted for one in run.predictions)
    score = run.scores[0]
    if (correct, len(run.predictions)) != (score.top1_correct, score.total):
        run.notes.append(
            f"predictions.csv and eval.json disagree: {correct} of {len(run.predictions)} right in "
            f"the one, {score.top1_correct} of {score.total} in the other. The headline is "
            "eval.json's, the tables below are from predictions.csv."
        )


def _text(path: Path) -> str:
    try:
        # A folder's name need not be UTF-8: keep such bytes, the page shows them as escapes.
        return path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _json_object(path: Path) -> dict[str, Any]:
    text = _text(path)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds a {type(found).__name__}, not a JSON object")
    return found


def _names(found: object) -> list[str]:
    return [str(name) for name in found] if isinstance(found, list) else []


def _number(value: Any) -> float:
    """A float, NaN for null and for what is no finite float32: a diverged loss, say."""
    number = math.nan if value is None else float(value)
    return number if abs(number) < 3.4e38 else math.nan


def _count(value: Any) -> int:
    count = int(value)
    if count != value or not 0 <= count < 2**53:  # what a float holds exactly
        raise ValueError(f"{value!r} is not a count")
    return count


def _counts(found: dict[str, Any]) -> tuple[int, int, int]:
    """top1_correct, top5_correct and total, checked against each other."""
    top1, top5, total = (_count(found[name]) for name in EvalRow._fields[3:])
    if not top1 <= top5 <= total:
        raise ValueError(f"top1_correct {top1}, top5_correct {top5} and total {total} do not fit")
    return top1, top5, total
