"""The ``compare`` command: compare two evaluations of the same images; is B worse than A?"""

import json

from densenet121.config import CompareConfig, absolute
from densenet121.runs.evaluations import EvaluationFile, read_evaluation
from densenet121.tasks import Compared, Task
from densenet121.utils.errors import InputError
from densenet121.utils.files import write_json


def compare(config: CompareConfig, task: Task | None = None) -> int:
    """Print the comparison; 1 if B is worse by more than ``fail_if_worse_by``, else 0.

    Args:
        config: the settings.
        task: the caller's own task, if it is one.

    Raises:
        InputError: an evaluation cannot be read, or the images differ.
    """
    a, b = (read_evaluation(absolute(path), task) for path in (config.a, config.b))
    found = compare_files(a, b, resamples=config.resamples, seed=config.seed)
    if config.format == "json":
        print(json.dumps(found.to_json(), indent=2, allow_nan=False))  # noqa: T201
    else:
        text = found.text(config.top).encode("utf-8", "backslashreplace").decode()
        print(text)  # noqa: T201 (the command's output)
    if config.output is not None:
        write_json(absolute(config.output), found.to_json())
    limit = config.fail_if_worse_by
    return int(limit is not None and found.drop > limit + 1e-9)


def compare_files(
    a: EvaluationFile, b: EvaluationFile, *, resamples: int = 9999, seed: int = 1
) -> Compared:
    """Compare two evaluations.

    Raises:
        InputError: their images or their tasks differ.
    """
    if a.task.name != b.task.name:
        raise InputError(
            f"the task of {a.path} is {a.task.name}, but that of {b.path} is {b.task.name}"
        )
    missing = sorted(set(a.rows) ^ set(b.rows))
    if missing:
        where = a.path if missing[0] in a.rows else b.path
        raise InputError(
            f"{a.path} and {b.path} have different images: {missing[0]} is only in {where} "
            f"({len(missing)} differ in all); evaluate both on one folder"
        )
    return a.task.compare(a.rows, b.rows, resamples=resamples, seed=seed)


def run(config: CompareConfig) -> int:
    """Compare and print; 1 if B is worse by more than allowed."""
    return compare(config)
