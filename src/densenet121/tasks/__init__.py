"""What a label means: one package a task, asked by everything that trains, scores and reports."""

from densenet121.tasks.single_label.task import SingleLabel
from densenet121.tasks.task import Task
from densenet121.tasks.values import (
    Answer,
    AnswerOptions,
    Calibrated,
    CheckpointScore,
    Compared,
    Curve,
    ImageError,
    Metrics,
    ReportPart,
    Results,
    Scores,
    Validation,
)
from densenet121.utils.errors import InputError

__all__ = [
    "Answer",
    "AnswerOptions",
    "Calibrated",
    "CheckpointScore",
    "Compared",
    "Curve",
    "ImageError",
    "Metrics",
    "ReportPart",
    "Results",
    "Scores",
    "SingleLabel",
    "Task",
    "Validation",
    "task_named",
]

_KNOWN: dict[str, type[SingleLabel]] = {SingleLabel.name: SingleLabel}


def task_named(name: str | None, where: object, given: Task | None = None) -> Task:
    """The task that a file names (None: the default), or the one that was given, if it is that.

    Args:
        name: as the file has it.
        where: the file, for the error.
        given: a task of the caller's own.

    Raises:
        InputError: it names another task than the one given, or one that is not known here.
    """
    name = name or SingleLabel.name  # older files do not name it
    if given is not None and given.name == name:
        return given
    if given is not None:
        raise InputError(f"{where}: is of the task {name}, not {given.name}")
    if name not in _KNOWN:
        raise InputError(
            f"{where}: is of the task {name}, which is not among those of this version "
            f"({', '.join(_KNOWN)}); pass the task from Python"
        )
    return _KNOWN[name]()
