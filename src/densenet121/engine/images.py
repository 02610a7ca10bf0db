"""Open the images that settings name, with one class or several labels each."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from densenet121.config import ProbeConfig, TrainConfig, absolute
from densenet121.datasets.groups import group_ids
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.label_cells import LABEL_CELLS
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.list_rows import ListRules
from densenet121.datasets.sources.open import open_evaluation, open_training
from densenet121.datasets.sources.open_table import (
    open_labelled_evaluation,
    open_labelled_training,
    refuse_label_table,
)
from densenet121.metrics.summary import MOST_SUBGROUPS
from densenet121.tasks import MultiLabel, Task
from densenet121.tasks.values import PROBABILITY
from densenet121.utils.errors import InputError, UsageError, some
from densenet121.utils.files import real_path


def open_images(
    config: Any, task_name: str, class_names: tuple[str, ...], cache_dir: Path | None = None
) -> ImageDataset:
    """The images of ``data_dir`` to evaluate, read as the task of the weights needs them.

    Args:
        config: settings with ``data_dir`` and those of a table of labels; perhaps ``group``, whose
            ids become a column if it is a regular expression.
        task_name: the task of the weights.
        class_names: their classes or labels; a table must have these.
        cache_dir: folder for the index of a large folder.

    Raises:
        UsageError: settings of several labels, and weights of one class per image.
        InputError: the images cannot be used.
    """
    source, excluded = absolute(config.data_dir), getattr(config, "exclude", None)
    exclude = absolute(excluded) if excluded else None
    if _has_table(config, task_name, class_names):
        rules = LabelRules(**config.rules(class_names))
        dataset = open_labelled_evaluation(source, rules, exclude)
    else:
        lists_as = ListRules(**config.list_rules())
        dataset = open_evaluation(source, exclude=exclude, cache_dir=cache_dir, rules=lists_as)
    return _with_groups(dataset, getattr(config, "group", None))


def _with_groups(dataset: ImageDataset, group: str | None) -> ImageDataset:
    """The images with a column of the ids that a regular expression finds in their paths.

    A plain word is a column that is not there, not an expression that finds it in every path.

    Raises:
        InputError: as ``group_ids``.
    """
    if group is None or group in dataset.columns or not _is_expression(group):
        return dataset
    ids = group_ids(dataset.paths, dataset.columns, group, str(dataset.source))
    return replace(dataset, columns={**dataset.columns, group: ids})


def _is_expression(group: str) -> bool:
    return bool(set(group) & set("([\\*+"))


def open_training_images(
    config: Any, task_name: str, class_names: tuple[str, ...]
) -> tuple[ImageDataset, ImageDataset | None]:
    """The training and the validation images, read as the task of the weights needs them.

    Args:
        config: settings with ``data_dir``, ``val_dir``, ``exclude`` and those of a table of labels.
        task_name: the task of the weights.
        class_names: their classes or labels; a table must have these.

    Raises:
        UsageError, InputError: as ``open_images``.
    """
    return _open_both(config, _has_table(config, task_name, class_names), class_names)


def find_datasets(config: TrainConfig | ProbeConfig) -> tuple[ImageDataset, ImageDataset | None]:
    """The training and the validation images, read as the setting `task` says.

    Raises:
        UsageError: a folder has a table of labels, and the task is one class per image.
        InputError: the images cannot be used.
    """
    has_table = config.task == MultiLabel.name
    if not has_table:
        refuse_label_table(absolute(config.data_dir))
    return _open_both(config, has_table, ())


def check_apart(folder: Path, field: str, *sides: ImageDataset | None) -> None:
    """Refuse results among class folders: their plots would be read as images of a class.

    Args:
        folder: where the results go.
        field: the setting that names it.
        sides: the images.

    Raises:
        UsageError: the folder is in one that has class folders, and not hidden.
    """
    for images in sides:
        if images is not None and not images.listed_in and not images.read_one:
            check_not_among_classes(folder, field, images.root)


def check_not_among_classes(folder: Path, field: str, root: Path) -> None:
    """Refuse a folder for results in ``root``, which has class folders; see ``check_apart``."""
    root, place = real_path(root), real_path(folder)
    hidden = any(part.startswith(".") for part in place.parts[len(root.parts) :])
    if place.is_relative_to(root) and not hidden:
        raise UsageError(
            f"`{field}` {folder} is among the class folders of {root}, where it would be read as a "
            "class from then on; pass another folder for it"
        )


def check_columns(
    dataset: ImageDataset, group: str | None, by: Sequence[str], task: Task | None = None
) -> None:
    """Check the columns of a table or a list that an evaluation needs, before it begins.

    Args:
        dataset: the images to evaluate.
        group: the column of the groups, if any.
        by: the columns of subgroups.
        task: what writes predictions.csv; None leaves its columns unchecked.

    Raises:
        InputError: the images are not from one, it has no such column, an image has no id
            of its group, a column has too many values for subgroups, or the name of another
            column of predictions.csv, or one like those of its probabilities.
    """
    # The ids that a regular expression found are no column of the table.
    own = [name for name in dataset.columns if name != group or not _is_expression(name)]
    for field, columns in (("group", (group,) if group else ()), ("by", by)):
        for column in columns:
            if column not in dataset.columns and not own:
                found = ", or a regular expression that finds the id in the path"
                raise InputError(
                    f"{dataset.source}: is no table of labels, so `{field}` {column} is not there; "
                    "pass a .csv or .tsv list of the images that has the column"
                    f"{found if field == 'group' else ''}"
                )
            if column not in dataset.columns:
                raise InputError(
                    f"{dataset.source}: no column named {column} (`{field}`); it has "
                    f"{some(own, 20)}"
                )
            count = len(set(dataset.columns[column]))
            if field == "by" and count > MOST_SUBGROUPS:
                raise InputError(
                    f"{dataset.source}: column {column} (`by`) has {count} values; at most "
                    f"{MOST_SUBGROUPS} subgroups are compared"
                )
    if group:
        group_ids(dataset.paths, dataset.columns, group, str(dataset.source))
    if task and (group or by):
        _refuse_taken(dataset, task, {"group": (group,) if group else (), "by": by})


def _refuse_taken(dataset: ImageDataset, task: Task, columns: Mapping[str, Sequence[str]]) -> None:
    """Refuse columns, by setting, in whose place predictions.csv has something else."""
    names, targets = dataset.class_names, task.targets(dataset, np.zeros(1, np.int64))
    logits = torch.zeros(1, task.num_outputs(len(names)), dtype=torch.float32)
    scores = task.score(logits, targets)
    taken = ["path", *task.csv_columns(scores, targets, names)]
    for field, given in columns.items():
        for name in given:
            # The column of a label stays what it is, with 1 and 0 for true and false.
            is_label = dataset.labels.ndim == 2 and name in names
            if is_label and all(cell.lower() in LABEL_CELLS for cell in dataset.columns[name]):
                continue
            if name in taken:
                raise InputError(
                    f"{dataset.source}: the column {name} (`{field}`) is called like a column that "
                    f"predictions.csv has already ({some(taken)}); rename it"
                )
            if name.startswith(PROBABILITY):
                raise InputError(
                    f"{dataset.source}: the column {name} (`{field}`) begins with {PROBABILITY}, "
                    "as the probabilities in predictions.csv do, for one of which it would be "
                    "taken; rename it"
                )


def _open_both(
    config: Any, has_table: bool, class_names: tuple[str, ...]
) -> tuple[ImageDataset, ImageDataset | None]:
    source = absolute(config.data_dir)
    val_dir = absolute(config.val_dir) if config.val_dir else None
    exclude = absolute(config.exclude) if config.exclude else None
    if has_table:
        rules = LabelRules(**config.rules(class_names))
        return open_labelled_training(source, val_dir, rules, exclude)
    # The index of a large folder is kept beside the runs, for a command that has runs.
    runs = getattr(config, "ckpt_path", None)
    cache_dir = absolute(runs) if runs else None
    lists_as = ListRules(**config.list_rules())
    return open_training(source, val_dir, exclude=exclude, cache_dir=cache_dir, rules=lists_as)


def _has_table(config: Any, task_name: str, class_names: tuple[str, ...]) -> bool:
    """Whether the task needs a table of labels; refuses settings that contradict the weights."""
    if task_name == MultiLabel.name:
        given = config.label_names if class_names else ()  # weights without names take any
        if given and set(given) != set(class_names):
            raise UsageError(
                f"`labels` {config.labels} differ from those of the weights: "
                f"{','.join(class_names)}; omit it; a label that is not known has blank cells, "
                "with `missing` ignore"
            )
        return True
    if config.names_several_labels:
        raise UsageError(
            f"the settings of several labels are for the task {MultiLabel.name}, but the "
            f"weights are of {task_name}"
        )
    return False
