"""Checks of what the methods of a task give, which may be a caller's own.

What is too short or too long would be taken for other images without an error.
"""

import inspect
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.tasks.task import Task
from densenet121.tasks.values import Metrics, Scores
from densenet121.utils.errors import InputError

_Given = TypeVar("_Given")
_Columns = TypeVar("_Columns", bound=Collection[Any])


def targets_of(task: Task, dataset: ImageDataset, indices: NDArray[np.int64]) -> Tensor:
    """The targets of these images, one for each.

    Raises:
        InputError: they are no tensor on the CPU, or more or fewer.
    """
    found = task.targets(dataset, indices)
    if not isinstance(found, Tensor) or found.device.type != "cpu":
        what = f"a tensor on {found.device}" if isinstance(found, Tensor) else type(found).__name__
        raise _wrong(task, "targets", f"gave {what}; it must give a tensor on the CPU")
    _check_count(task, "targets", found, len(indices))
    return found


def scores_of(task: Task, logits: Tensor, targets: Tensor) -> Scores:
    """The scores of a batch, whose columns have one row for each image.

    Raises:
        InputError: they are something else.
    """
    found = task.score(logits, targets)
    if not isinstance(found, Scores):
        raise _wrong(task, "score", f"gave {type(found).__name__}; it must give Scores")
    for name, column in found.columns.items():
        _check_count(task, f"score` for its column `{name}", column, len(logits))
    return found


def metrics_of(task: Task, scores: Scores, targets: Tensor, class_names: Sequence[str]) -> Metrics:
    """The metrics, with numpy's and torch's numbers as those of Python.

    Raises:
        InputError: they are no mapping with "loss", or have what JSON does not.
    """
    return plain(task, "metrics", task.metrics(scores, targets, class_names), needed="loss")


def plain(task: Task, method: str, found: Any, needed: str | None = None) -> Metrics:
    """A mapping that a method gave, with numpy's and torch's numbers as those of Python.

    Raises:
        InputError: it is no mapping, does not have ``needed``, or has what JSON does not.
    """
    if not isinstance(found, Mapping):
        raise _wrong(task, method, f"gave {type(found).__name__}; it must give a dict")
    if needed is not None and needed not in found:
        raise _wrong(task, method, f"did not give `{needed}`")
    return {str(name): _plain(task, f"{method}` for `{name}", of) for name, of in found.items()}


def metric_of(task: Task, metrics: Metrics, name: str) -> Any:
    """One of the task's ``best_metrics``.

    Raises:
        InputError: the metrics do not have it.
    """
    if name not in metrics:
        raise _wrong(task, "metrics", f"did not give `{name}`, which its `best_metrics` names")
    return metrics[name]


def columns_of(task: Task, method: str, found: _Columns, count: int) -> _Columns:
    """The columns that a method gave, each with one row for each of ``count`` images.

    Raises:
        InputError: one has more or fewer.
    """
    for column in found.values() if isinstance(found, Mapping) else found:
        _check_count(task, method, column, count)
    return found


def rows_of(task: Task, method: str, found: _Given, count: int) -> _Given:
    """What a method gave for ``count`` images, one for each.

    Raises:
        InputError: it is something else.
    """
    _check_count(task, method, found, count)
    return found


def check_takes_groups(task: Task, *methods: str) -> None:
    """Refuse groups for a task that was written without them.

    Raises:
        InputError: a method does not take the argument `groups`.
    """
    for method in methods:
        taken = inspect.signature(getattr(task, method)).parameters
        keywords = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken.values())
        if "groups" not in taken and not keywords:
            raise _wrong(
                task,
                method,
                "does not take the argument `groups`, which `group` needs; add it, as "
                "densenet121.tasks.Task has it, or omit `group`",
            )


def check_weight(task: Task, weight: float, count: int) -> None:
    """Refuse a weight of ``count`` images that each weigh one, as the task says.

    Raises:
        InputError: the weight is another.
    """
    if weight != count:
        raise _wrong(
            task,
            "weight",
            f"gave {weight:g} for {count} images; the ranks weigh that only with "
            "`every_image_weighs_one` = False",
        )


def _plain(task: Task, place: str, found: Any) -> Any:
    if isinstance(found, Tensor):
        found = found.numpy(force=True)
    if isinstance(found, np.ndarray | np.generic):
        found = found.tolist()
    if isinstance(found, Mapping):
        return {str(name): _plain(task, place, part) for name, part in found.items()}
    if isinstance(found, list | tuple):
        return [_plain(task, place, part) for part in found]
    if isinstance(found, float) and not math.isfinite(found):
        raise _wrong(task, place, f"gave {found}; it must give None where there is no number")
    if found is not None and not isinstance(found, str | int | float):
        kind = type(found).__name__
        raise _wrong(task, place, f"gave {kind}; it must give numbers, text, None, lists or dicts")
    return found


def _check_count(task: Task, method: str, found: Any, count: int) -> None:
    try:
        rows = len(found)
    except TypeError:
        what = f"gave {type(found).__name__}, which has no rows"
    else:
        if rows == count:
            return
        what = f"gave {rows} rows"
    raise _wrong(task, method, f"{what} for {count} images; it must give one for each")


def _wrong(task: Task, method: str, what: str) -> InputError:
    return InputError(f"the task {task.name}: `{method}` {what}")
