"""The ``compare`` command: compare two evaluations of the same images; is B worse than A?"""

import json
import shlex

from densenet121.commands import print_notes
from densenet121.config import CompareConfig, absolute
from densenet121.datasets.groups import check_spelling
from densenet121.runs.evaluations import EvaluationFile, read_evaluation
from densenet121.runs.layout import (
    EVALUATION,
    PREDICTIONS,
    RECORD,
    read_evaluated,
    read_record,
)
from densenet121.tasks import Compared, Task
from densenet121.tasks.given import check_takes_groups
from densenet121.utils.errors import InputError
from densenet121.utils.files import check_output, write_json


def compare(config: CompareConfig, task: Task | None = None) -> int:
    """Print the comparison; 1 if B is worse by more than ``fail_if_worse_by``, else 0.

    Args:
        config: the settings.
        task: the caller's own task, if it is one.

    Raises:
        InputError: an evaluation cannot be read, or the images differ.
    """
    inputs = [absolute(path) for path in (config.a, config.b)]
    output = absolute(config.output) if config.output is not None else None
    if output is not None:
        folders = [path if path.is_dir() else path.parent for path in inputs]
        read = [folder / name for folder in folders for name in (PREDICTIONS, EVALUATION, RECORD)]
        check_output(output, "output", [*inputs, *read])
    a, b = (read_evaluation(path, task) for path in inputs)
    if config.group is None:
        print_notes(_groups_note(a, b))
    found = compare_files(a, b, resamples=config.resamples, seed=config.seed, group=config.group)
    print_notes(_data_note(a, b))
    if config.format == "json":
        text = json.dumps(found.to_json(), indent=2, allow_nan=False)
    else:
        text = found.text(config.top).encode("utf-8", "backslashreplace").decode()
    try:
        if output is not None:
            write_json(output, found.to_json())
    finally:  # where the file cannot be written, the work is not lost
        print(text)  # noqa: T201 (the command's output)
    limit = config.fail_if_worse_by
    return int(limit is not None and found.drop > limit + 1e-9)


def compare_files(
    a: EvaluationFile,
    b: EvaluationFile,
    *,
    resamples: int = 9999,
    seed: int = 1,
    group: str | None = None,
) -> Compared:
    """Compare two evaluations.

    Args:
        a: the reference.
        b: of the same images.
        resamples: number of resamples of the bootstrap.
        seed: of the bootstrap.
        group: column with the id of each image's group; None draws images.

    Raises:
        InputError: their images or their tasks differ, or an image has no group.
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
    if group is None:
        return a.task.compare(a.rows, b.rows, resamples=resamples, seed=seed)
    check_takes_groups(a.task, "compare")
    groups = _groups(a, b, group)
    return a.task.compare(a.rows, b.rows, resamples=resamples, seed=seed, groups=groups)


def _data_note(a: EvaluationFile, b: EvaluationFile) -> list[str]:
    """That images of the same paths are other files, as far as eval.json tells."""
    one, two = (read_evaluated(found.path.parent) for found in (a, b))
    # The fingerprint is of paths in their order, sizes in bytes, labels, and the classes.
    comparable = one.get("class_names") == two.get("class_names") and list(a.rows) == list(b.rows)
    if one.get("bad_images") or two.get("bad_images") or not comparable:
        return []
    prints = {found.get("data_fingerprint") for found in (one, two)}
    if None in prints or len(prints) == 1:
        return []
    return [
        f"the images of {a.path.parent} and {b.path.parent} have the same paths, but by the "
        "fingerprints in eval.json their files differ: if these are other images, the comparison "
        "is not one of weights"
    ]


def _groups_note(a: EvaluationFile, b: EvaluationFile) -> list[str]:
    """What to pass where the evaluations' own intervals are over groups of images."""
    for found in (a, b):
        settings = read_record(found.path.parent).get("settings")
        name = settings.get("group") if isinstance(settings, dict) else None
        after_path = "".join(map(str, list(next(iter(found.rows.values())))[1:2]))
        # A study calls the column group where another one has the name.
        if name and after_path in (name, "group"):
            return [
                f"the intervals of {found.path.parent} are over groups, but those of this "
                "comparison are over images, and too narrow if the images of a group are alike; "
                f"pass --group {shlex.quote(after_path)}"
            ]
    return []


def _groups(a: EvaluationFile, b: EvaluationFile, column: str) -> dict[str, str]:
    """Image path to the id of its group, from the evaluations that have the column."""
    having = [found for found in (a, b) if column in next(iter(found.rows.values()))]
    if not having:
        columns = ", ".join(next(iter(a.rows.values())))
        raise InputError(
            f'`group` "{column}" is no column of {a.path} or {b.path} ({columns}); '
            "`eval` writes it if it gets the same `group`: a column of the .csv or .tsv file of "
            "the images, or a regular expression that finds the group in the path"
        )
    for found in having:
        for path, row in found.rows.items():
            if not (row[column] or "").strip():
                raise InputError(f'{found.path}: {path} has no id in the column "{column}"')
    first = {path: row[column].strip() for path, row in having[0].rows.items()}
    for path, row in having[-1].rows.items():
        if row[column].strip() != first[path]:
            raise InputError(
                f'{path}: its "{column}" is {first[path]} in A but {row[column].strip()} in B'
            )
    check_spelling(list(first.values()), f"{column} of {having[0].path}")
    return first


def run(config: CompareConfig) -> int:
    """Compare and print; 1 if B is worse by more than allowed."""
    return compare(config)
