"""The ``metrics`` command: every metric, with intervals, from any file of predictions."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.commands import DONE, print_notes
from densenet121.config import MetricsConfig, absolute
from densenet121.datasets.groups import check_spelling
from densenet121.datasets.sources.label_table import LabelRules, known_labels
from densenet121.datasets.sources.list_rows import PATH_COLUMNS
from densenet121.datasets.tables import Table, read_table
from densenet121.metrics.predictions import summarise_predictions
from densenet121.metrics.summary import MOST_SUBGROUPS
from densenet121.metrics.tables import tables
from densenet121.utils.errors import InputError, UsageError, some, visible_lines
from densenet121.utils.files import check_output, write_json


@dataclass(frozen=True)
class Predictions:
    """What a file of predictions says, ready for the metrics.

    Attributes:
        names: the L labels.
        truth: ``(n, L)``: 1, 0 or nan (unknown).
        probability: ``(n, L)``.
        group: ``(n,)`` id of each image's group, or None.
        by: column to the value of each image.
        one_class: each image has one of the labels as its class.
    """

    names: list[str]
    truth: NDArray[np.float64]
    probability: NDArray[np.float64]
    group: NDArray[np.str_] | None
    by: dict[str, NDArray[np.str_]]
    one_class: bool


def metrics(config: MetricsConfig) -> dict[str, Any]:
    """The metrics as JSON values, written to ``output`` if that is set.

    Raises:
        InputError: the file cannot be used.
        UsageError: a threshold or prevalence is for a label that there is not, or a prevalence for
            one without a threshold.
        OSError: ``output`` cannot be written.
    """
    result = _compute(config)
    _write(result, config)
    return result


def _write(result: dict[str, Any], config: MetricsConfig) -> None:
    if config.output is not None:
        write_json(absolute(config.output), result)


def _compute(config: MetricsConfig) -> dict[str, Any]:
    file = absolute(config.file)
    if config.output is not None:
        check_output(absolute(config.output), "output", [file])
    table = read_table(file)
    found = read_predictions(table, config)
    print_notes(_counted_twice(table))
    thresholds = _of_labels("threshold", config.thresholds, found.names)
    limits = thresholds, _prevalences(config, thresholds, found.names)
    everything = np.ones(len(found.truth), dtype=np.bool_)
    result: dict[str, Any] = {"file": str(file), "group": config.group}
    result |= _of_images(found, everything, limits, config)
    for column, values in found.by.items():
        parts = {
            value: _of_images(found, values == value, limits, config)
            for value in np.unique(values).tolist()
        }
        result.setdefault("by", {})[column] = parts
    return result


def read_predictions(table: Table, config: MetricsConfig) -> Predictions:
    """Labels, probabilities and groups of a table.

    Raises:
        InputError: something is missing or is not what it should be.
    """
    columns = config.columns or _columns_with(table, config)
    names = list(config.label_names or columns)
    without = [name for name in names if name not in columns]
    if without:
        raise InputError(
            f"{table.file}: label {without[0]} has no column of probabilities; those found are for "
            f"{some(list(columns), 20)}"
        )
    in_columns = config.label_column is None and config.labels is None
    if in_columns and not set(names) & set(table.columns):
        raise InputError(
            f"{table.file}: where are the labels? It has no columns {some(names, 20)}; pass "
            "`label_column` for one column that lists them, or `labels`"
        )
    truth = known_labels(table, names, LabelRules(**config.rules(), partial=True))
    field = "probability_columns" if config.probability_columns else "probability_prefix"
    probability = [table.probabilities(columns[name], field) for name in names]
    by = {column: np.array(table.cells(column, "by")) for column in config.by_columns}
    for column, values in by.items():
        if len(np.unique(values)) > MOST_SUBGROUPS:
            raise InputError(
                f"{table.file}: column {column} (`by`) has {len(np.unique(values))} values; at "
                f"most {MOST_SUBGROUPS} subgroups are compared"
            )
    one_class = (
        config.label_column is not None
        and config.label_separator is None
        and config.negative_label is None
        and len(names) > 1
    )
    if one_class:
        # An image of an ignored class is left out of every figure, as it is of the accuracy.
        classes = table.cells(str(config.label_column), "label_column")
        truth[np.isin(classes, config.ignored_labels)] = np.nan
        _refuse_one_column_for_two(table, {name: columns[name] for name in names})
    return Predictions(
        names=names,
        truth=truth,
        probability=np.stack(probability, axis=1),
        group=_groups(table, config.group) if config.group is not None else None,
        by=by,
        one_class=one_class,
    )


def _refuse_one_column_for_two(table: Table, columns: Mapping[str, str]) -> None:
    """Refuse classes with the same probabilities: the first of them would always be the likeliest.

    Several labels may have one score that is compared with each of them.
    """
    first: dict[str, str] = {}
    for name, column in columns.items():
        other = first.setdefault(column, name)
        if other != name:
            raise InputError(
                f"{table.file}: the column {column} is that of the classes {other} and {name} "
                "(`probability_columns`); each class of an image needs its own"
            )


def _counted_twice(table: Table) -> Iterator[str]:
    """That an image has several rows, as in files that were joined."""
    for column in PATH_COLUMNS:
        cells = [cell for cell in table.columns.get(column, ()) if cell]
        if more := len(cells) - len(set(cells)):
            several = next(cell for cell, count in Counter(cells).items() if count > 1)
            yield (
                f"warning: {table.file}: {more} of {len(table)} rows have a {column} that an "
                f"earlier row has, such as {several}; each row counts as an image, and "
                "intervals that are not over groups are too narrow"
            )


def _groups(table: Table, column: str) -> NDArray[np.str_]:
    """The id of each image's group."""
    ids = table.identities(column, "group")
    check_spelling(ids.tolist(), f"{column} of {table.file}")
    return ids


def _columns_with(table: Table, config: MetricsConfig) -> dict[str, str]:
    """Label to column, by the prefix."""
    prefix = str(config.probability_prefix)
    found = {
        column.removeprefix(prefix): column
        for column in table.columns
        if column.startswith(prefix) and column != prefix
    }
    own = {"predicted", "probability", "rank"} <= set(table.columns)
    if own and set(found.values()) <= {"probability"}:
        raise InputError(
            f"{table.file}: has the probability of the predicted class alone, as eval writes it "
            "of more than 100 classes (older versions of any number), and the metrics need "
            "that of each class; the accuracies are in eval.json beside it"
        )
    if not found:
        raise InputError(
            f"{table.file}: no column begins with {prefix} (`probability_prefix`); it has "
            f"{', '.join(table.columns)}"
        )
    return found


def _of_labels(
    flag: str, given: dict[str, float] | float | None, names: Sequence[str]
) -> dict[str, float]:
    """What was given for each label, or for all of them."""
    if given is None:
        return {}
    if isinstance(given, float):
        return dict.fromkeys(names, given)
    unknown = [name for name in given if name not in names]
    if unknown:
        raise UsageError(f"--{flag}: {unknown[0]} is not a label; they are {', '.join(names)}")
    return given


def _prevalences(
    config: MetricsConfig, thresholds: Mapping[str, float], names: Sequence[str]
) -> dict[str, float]:
    """Of the labels with a threshold; one that is named needs it. For net benefits of all."""
    found = _of_labels("prevalence", config.prevalences, names)
    if config.act_from:
        return found
    without = [name for name in found if name not in thresholds]
    if without and isinstance(config.prevalences, dict):
        raise UsageError(
            f"--prevalence: {without[0]} has no --threshold; it is given for "
            f"{', '.join(thresholds)}"
        )
    return {name: share for name, share in found.items() if name in thresholds}


def _of_images(
    found: Predictions,
    chosen: NDArray[np.bool_],
    limits: tuple[Mapping[str, float], Mapping[str, float]],
    config: MetricsConfig,
) -> dict[str, Any]:
    """The metrics of some of the images; ``limits`` are thresholds and prevalences."""
    thresholds, prevalences = limits
    return summarise_predictions(
        found.truth[chosen],
        found.probability[chosen],
        found.names,
        ids=None if found.group is None else found.group[chosen],
        one_class=found.one_class,
        thresholds=thresholds,
        prevalences=prevalences,
        act_from=config.act_from,
        least_positives=config.least_positives,
        resamples=config.resamples,
        seed=config.seed,
    )


def text(result: Mapping[str, Any]) -> str:
    """The metrics as tables for people."""
    return visible_lines(tables(result))


def run(config: MetricsConfig) -> int:
    """Compute the metrics and print them."""
    result = _compute(config)
    try:
        _write(result, config)
    finally:  # where the file cannot be written, the work is not lost
        print(json.dumps(result, indent=2, allow_nan=False) if config.json else text(result))  # noqa: T201
    return DONE
