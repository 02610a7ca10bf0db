"""The files of an evaluation in a run folder: eval.json, predictions.csv, maps of errors."""

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densenet121.pages.markup import mapping
from densenet121.runs.layout import (
    ERROR_MAPS,
    EVALUATION,
    PREDICTIONS,
    RECORD,
    error_map,
    read_evaluated,
    read_record,
)
from densenet121.tasks import Task, task_named
from densenet121.utils.csv_lines import csv_writer
from densenet121.utils.errors import InputError
from densenet121.utils.files import json_bytes, read_input, write_atomic, write_together
from densenet121.utils.json_values import count, parse_json

_MAX_BYTES = 2**31


@dataclass(frozen=True)
class EvaluationFile:
    """A predictions.csv: path of the image to row, as read by the csv module."""

    path: Path
    task: Task
    rows: dict[str, dict[str, str]]


def write_evaluation(
    folder: Path,
    content: Mapping[str, Any],
    paths: Sequence[str],
    columns: Mapping[str, Sequence[object]],
    run: Mapping[str, Any] | None = None,
) -> None:
    """Write eval.json and predictions.csv, all or none; remove the maps of an earlier evaluation.

    Args:
        folder: the run folder, which exists.
        content: content of eval.json.
        paths: paths of the images, the first column.
        columns: the other columns, by name.
        run: content of run.json, if it is to be written, too.
    """
    files = {folder / PREDICTIONS: table_bytes({"path": paths, **columns})}
    files[folder / EVALUATION] = json_bytes(content)
    if run is not None:
        files[folder / RECORD] = json_bytes(run)
    _remove_error_maps(folder)  # first: beside other answers they would explain the wrong ones
    write_together(files)


def write_table(file: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """Write a CSV file atomically, with these columns in order."""
    write_atomic(file, table_bytes(columns))


def table_bytes(columns: Mapping[str, Sequence[object]]) -> bytes:
    """What ``write_table`` writes."""
    text = io.StringIO()
    writer = csv_writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode(errors="surrogateescape")


def write_summary(
    folder: Path,
    results: Sequence[Mapping[str, Any]],
    complete: bool,
    run: Mapping[str, Any] | None = None,
) -> None:
    """Write the eval.json of several weights files, and run.json with the content ``run``.

    The predictions and maps of an earlier evaluation are removed first: they would pass for those
    of these weights, which are in a folder each.
    """
    _remove_error_maps(folder)
    (folder / PREDICTIONS).unlink(missing_ok=True)
    files = {folder / EVALUATION: {"results": list(results), "complete": complete}}
    if run is not None:
        files[folder / RECORD] = dict(run)
    write_together({file: json_bytes(content) for file, content in files.items()})


def results_of(folder: Path, file: Path, files: Sequence[Path]) -> Path:
    """The folder of the results of one of several weights files: its name without the suffix.

    With the suffix where another has the same name, such as best.onnx beside best.safetensors.
    """
    alone = [other.stem for other in files].count(file.stem) == 1
    return folder / (file.stem if alone else f"{file.stem}_{file.suffix[1:]}")


def copy_evaluation(source: Path, target: Path, epochs: int) -> None:
    """Copy the results of an interrupted run to the folder where it is resumed.

    Not those of a later epoch than the ``epochs`` that were validated at its checkpoint.

    Raises:
        OSError: they cannot be written there; its ``filename`` is the file there.
    """
    try:
        found = parse_json(read_input(source / EVALUATION))
        epoch = count(found.get("epoch", 0))  # an older one has none
    except (OSError, ValueError, TypeError, AttributeError):
        return
    if epoch >= epochs:
        return
    names = (name for name in (PREDICTIONS, EVALUATION) if (source / name).is_file())
    write_together({target / name: (source / name).read_bytes() for name in names})
    if (source / ERROR_MAPS).is_dir():
        (target / ERROR_MAPS).mkdir(exist_ok=True)
        for file in sorted((source / ERROR_MAPS).iterdir()):
            write_atomic(target / ERROR_MAPS / file.name, file.read_bytes())


def remove_evaluation(folder: Path) -> None:
    """Remove the results of a run whose checkpoints and weights were removed, for a new run."""
    for name in (EVALUATION, PREDICTIONS):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / ERROR_MAPS, ignore_errors=True)


def write_error_maps(folder: Path, maps: Mapping[str, bytes]) -> None:
    """Write JPEGs, given by the path of their image; remove those of an earlier evaluation."""
    _remove_error_maps(folder)
    if maps:
        (folder / ERROR_MAPS).mkdir()
    for path, jpeg in maps.items():
        write_atomic(error_map(folder, path), jpeg)


def _remove_error_maps(folder: Path) -> None:
    shutil.rmtree(folder / ERROR_MAPS, ignore_errors=True)


def read_error_map(folder: Path, path: str) -> bytes | None:
    """The map of an image, or None."""
    try:
        return error_map(folder, path).read_bytes()
    except OSError:
        return None


def task_of(folder: Path, given: Task | None = None) -> Task:
    """The task of a run folder.

    Raises:
        InputError: it differs from the given one, or is unknown to this version.
    """
    name = read_record(folder).get("task")
    if name is None:
        name = read_evaluated(folder).get("task")
    return task_named(name if isinstance(name, str) else None, folder, given)


def read_evaluation(path: Path, task: Task | None = None) -> EvaluationFile:
    """Read a predictions.csv.

    Args:
        path: the file, or the folder that contains it.
        task: the caller's own task, if it is one.

    Raises:
        InputError: missing, unreadable, not such a file, or without images.
    """
    file = path / PREDICTIONS if path.is_dir() else path
    text = _text(file)
    task = task_of(file.parent, task)
    rows: dict[str, dict[str, str]] = {}
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            name = row["path"]
            if not name or name in rows or not all(row[key] for key in task.prediction_columns):
                raise InputError(f"{file}: line {reader.line_num} is incomplete or a duplicate")
            rows[name] = row
    except (csv.Error, KeyError) as error:
        raise InputError(f"{file}: not a {PREDICTIONS} written by eval ({error})") from None
    if not rows:
        raise InputError(f"{file}: has no images")
    return EvaluationFile(file, task, rows)


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise InputError(f"{file}: has more than {_MAX_BYTES} bytes")
        return read_input(file).decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read ({error.strerror}); pass {_where_else(file.parent)}"
        ) from None


def _where_else(folder: Path) -> str:
    """What to pass in place of a folder without predictions: of several weights each has one."""
    results = read_evaluated(folder).get("results")
    listed = results if isinstance(results, list) else []
    files = [Path(str(mapping(one).get("checkpoint"))) for one in listed]
    for own in (results_of(folder, file, files) for file in files):
        if (own / PREDICTIONS).is_file():
            return f"the folder of one of its weights, such as {own}"
    return "a folder that eval wrote"
