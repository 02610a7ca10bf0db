"""The ``split`` command: lists of images for training and validation, divided by group."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densenet121.commands import DONE, print_notes
from densenet121.config import SplitConfig, absolute
from densenet121.datasets.division import (
    Division,
    Images,
    divide,
    images_with_class,
    images_with_labels,
    lists_of,
)
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.list_rows import ListRules
from densenet121.engine.images import check_not_among_classes
from densenet121.utils.errors import InputError, UsageError, visible_lines
from densenet121.utils.files import is_taken, new_folder, write_atomic, write_json

_MANY = 40  # labels in the printed table


def split(config: SplitConfig) -> dict[str, Any]:
    """Write the lists and return what split.json says.

    Raises:
        UsageError: the output exists, or is among the class folders.
        InputError: the images cannot be read or grouped, or a part would be empty.
    """
    output = absolute(config.output)
    if is_taken(output):
        raise UsageError(f"--output {output} already exists; choose a new folder")
    source = absolute(config.source)
    images = read_images(source, config)
    if source.is_dir() and not images.several_labels:
        check_not_among_classes(output, "output", source)
    print_notes(images.notes)
    division = divide(
        images, config.parts, group=config.group, stratify=config.stratify, seed=config.seed
    )
    _refuse_empty(division)
    result = {"source": str(source), **division.summary}
    _write(output, images, division, result)
    return result


def read_images(source: Path, config: SplitConfig) -> Images:
    """The images with their labels and columns.

    Raises:
        InputError, UsageError: they cannot be read, or are not files of their own.
    """
    if config.several_labels:
        return images_with_labels(source, LabelRules(**config.rules()))
    return images_with_class(source, rules=ListRules(**config.list_rules()))


def _refuse_empty(division: Division) -> None:
    if 0 in division.groups:
        name = list(division.summary["parts"])[division.groups.index(0)]
        raise InputError(
            f"part {name} would have none of the {division.summary['groups']} groups; choose "
            "another `seed`, larger parts or `stratify`"
        )


def _write(output: Path, images: Images, division: Division, result: Mapping[str, Any]) -> None:
    """Write all lists, or none."""
    with new_folder(output) as folder:
        for name, content in lists_of(images, division, output).items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_atomic(folder / name, content)
        write_json(folder / "split.json", result)


def text(result: Mapping[str, Any]) -> str:
    """What was written, as a table of images per part and label."""
    parts: dict[str, Any] = result["parts"]
    labels = list(next(iter(parts.values()))["labels"])
    rows = [["", *parts], ["groups", *(str(part["groups"]) for part in parts.values())]]
    rows.append(["images", *(str(part["images"]) for part in parts.values())])
    rows += [
        [name, *(str(part["labels"][name]) for part in parts.values())] for name in labels[:_MANY]
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    if len(labels) > _MANY:
        lines.append(f"and {len(labels) - _MANY} more labels in split.json")
    lines += [
        f"note: no image of {name} in {part}"
        for part, found in parts.items()
        for name, count in found["labels"].items()
        if not count
    ]
    return visible_lines(lines)


def run(config: SplitConfig) -> int:
    """Split and print the counts."""
    result = split(config)
    print(text(result))  # noqa: T201 (the command's output)
    print(f"seed {result['seed']}; lists are in {absolute(config.output)}")  # noqa: T201
    if config.stratify:
        print(  # noqa: T201
            f"to add images later without moving these: --seed {result['seed']} without --stratify"
        )
    return DONE
