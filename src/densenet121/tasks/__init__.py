"""What a label means: one package per task, used by training, evaluation and reports."""

from densenet121.tasks.multi_label.task import MultiLabel
from densenet121.tasks.single_label.task import SingleLabel
from densenet121.tasks.task import Task
from densenet121.tasks.values import (
    Answer,
    AnswerOptions,
    AveragedValidation,
    Calibrated,
    CardPart,
    CardTable,
    CheckpointScore,
    Compared,
    Curve,
    ImageError,
    LogitOffsets,
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
    "AveragedValidation",
    "Calibrated",
    "CardPart",
    "CardTable",
    "CheckpointScore",
    "Compared",
    "Curve",
    "ImageError",
    "LogitOffsets",
    "Metrics",
    "MultiLabel",
    "ReportPart",
    "Results",
    "Scores",
    "SingleLabel",
    "Task",
    "Validation",
    "task_named",
]

_KNOWN: dict[str, type[SingleLabel | MultiLabel]] = {
    SingleLabel.name: SingleLabel,
    MultiLabel.name: MultiLabel,
}


def task_named(name: str | None, where: object, given: Task | None = None) -> Task:
    """The task with the name in a file, or the caller's own task if it has this name.

    Args:
        name: the name in the file; None means the default.
        where: the file, for the error.
        given: the caller's own task, or None.

    Raises:
        InputError: the file names another task than ``given``, or an unknown one.
    """
    name = name or SingleLabel.name  # older files have no task name
    if given is not None and given.name == name:
        return given
    if given is not None:
        raise InputError(f"{where}: its task is {name}, not {given.name}")
    if name not in _KNOWN:
        raise InputError(
            f"{where}: its task is {name}, which this version does not have "
            f"({', '.join(_KNOWN)}); pass the task from Python"
        )
    return _KNOWN[name]()
