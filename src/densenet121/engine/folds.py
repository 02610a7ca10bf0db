"""The folds of a study: its images, who is held out where, and the settings of each run."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from densenet121.config import StudyConfig, TrainConfig, absolute
from densenet121.datasets.division import (
    Division,
    Images,
    divide,
    images_with_class,
    images_with_labels,
)
from densenet121.datasets.sources.exclusion import excluded_paths
from densenet121.datasets.sources.label_table import TABLE, LabelRules
from densenet121.datasets.sources.list_rows import ListRules
from densenet121.datasets.sources.open_table import refuse_label_table
from densenet121.datasets.sources.splits import Split
from densenet121.engine.balance import weights_setting
from densenet121.engine.images import check_not_among_classes
from densenet121.tasks import MultiLabel
from densenet121.utils.errors import InputError
from densenet121.utils.files import file_digest


def study_images(config: StudyConfig) -> Images:
    """All images of a study, without those of ``exclude``.

    Raises:
        InputError, UsageError: they cannot be read, or not be divided into lists; or `run_dir` is
            among their class folders.
    """
    source = absolute(config.data_dir)
    if config.task == MultiLabel.name:
        if (source / "train" / TABLE).is_file() and not (source / TABLE).is_file():
            raise InputError(
                f"{source}: is split already into train and val; pass one table of all images"
            )
        images = images_with_labels(source, LabelRules(**config.rules()))
        for name in images.names:
            if "," in name and config.label_column is None:
                raise InputError(f'{source}: the label "{name}" has a comma; rename the column')
    else:
        refuse_label_table(source)
        images = images_with_class(source, field="data_dir", rules=ListRules(**config.list_rules()))
        if source.is_dir():
            check_not_among_classes(absolute(config.run_dir), "run_dir", source)
    if config.exclude is None:
        return images
    # Not divided yet: a line of either side names one of all images.
    sides: dict[Split, Sequence[str]] = {"train": images.paths, "val": images.paths}
    excluded, _ = excluded_paths(absolute(config.exclude), sides)
    return images.without(excluded["train"] | excluded["val"])


def folds_of(images: Images, config: StudyConfig) -> Division:
    """The fold of each image, as ``split`` has it.

    Raises:
        InputError: an image has no group; there are fewer groups, or images of a class, than folds;
            a fold would hold out nothing, or all images of a class.
    """
    found = divide(
        images, config.parts, group=config.group, stratify=config.stratify, seed=config.split_seed
    )
    what = "images" if config.group is None else "groups"
    number, kind, leave_out = found.summary["groups"], "images", ""
    if images.several_labels:
        field = "labels" if config.label_column is None else "ignore_labels"
        kind, leave_out = "positive images", f", or leave it out by `{field}`"
    if number < config.folds:
        raise InputError(
            f"`folds` {config.folds}: there are only {number} {what}; pass fewer `folds`"
        )
    counts = np.array([list(p["labels"].values()) for p in found.summary["parts"].values()])
    for name, of_label in zip(images.names, counts.T.tolist(), strict=True):
        if sum(of_label) < config.folds:
            raise InputError(
                f"`folds` {config.folds}: {name} has only {sum(of_label)} {kind}; pass fewer "
                f"`folds`{leave_out}"
            )
        if max(of_label) == sum(of_label):
            fold = of_label.index(max(of_label))
            raise InputError(
                f"fold {fold} would hold out all {kind} of {name}, so that none is left to train "
                f"on; pass `stratify` or another `split_seed`{leave_out}"
            )
    if 0 in found.groups:
        raise InputError(
            f"fold {found.groups.index(0)} would hold out none of the {number} {what}; pass "
            "`stratify`, another `split_seed` or fewer `folds`"
        )
    return found


def files_digest(config: StudyConfig) -> dict[str, str]:
    """SHA-256 of the files that every run starts or learns from; one that is missing has none.

    Raises:
        InputError: the file of `class_weights` is missing.
    """
    files = {"pretrained": config.pretrained, "teacher": config.teacher}
    found = {
        name: file_digest(absolute(file))
        for name, file in files.items()
        if file is not None and absolute(file).is_file()
    }
    return found | {"class_weights": weights_setting(config)}


def data_digest(images: Images, division: Division) -> str:
    """SHA-256 of every path, file size, label, other column and fold, wherever the images lie."""
    digest = hashlib.sha256()
    cells = zip(*images.columns.values(), strict=True) if images.columns else ()
    rows = list(cells) or [()] * len(images.paths)
    for path, row, fold in zip(images.paths, rows, division.part.tolist(), strict=True):
        size = (images.root / path).stat().st_size
        text = "\0".join([path, str(size), str(fold), *row])
        digest.update(f"{text}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def run_settings(
    config: StudyConfig, images: Images, lists: Path, folder: Path, seed: int
) -> TrainConfig:
    """The settings of the run of one fold and seed.

    Args:
        config: the settings of the study.
        images: its images.
        lists: folder with the lists of the fold.
        folder: the run folder.
        seed: the seed.
    """
    changed = {
        "data_dir": str(lists / "train.csv"),
        "val_dir": str(lists / "val.csv"),
        "output_dir": str(folder),
        "exclude": None,  # the lists are without them
        "image_dir": None,  # their paths are relative to them
        "path_column": "path" if images.several_labels else None,
        "resume": "auto",
        "seed": seed,
    }
    if not images.several_labels:
        changed |= {"label_column": None, "labels": None}  # the lists call it label
    elif config.label_column is None:
        # In a table of the other images another column could look like labels.
        changed["labels"] = ",".join(images.names)
    return config.of_run(**changed)
