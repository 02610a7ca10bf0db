"""A list of images in a file: one ``path label`` per line, or CSV."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.packed_strings import Names
from densenet121.datasets.sources.labels import check_labels
from densenet121.datasets.sources.list_rows import (
    BY_NAMES,
    SUFFIXES,
    ListRules,
    ParsedList,
    Row,
    parse_list,
)
from densenet121.datasets.sources.listed_files import ListedFiles, plain_path
from densenet121.datasets.sources.splits import Split, other_split_notes, test_note
from densenet121.utils.errors import InputError


def read_list(
    file: Path,
    split: Split,
    rules: ListRules = BY_NAMES,
    *,
    partial: bool = False,
    columns: bool = False,
) -> ImageDataset:
    """The images listed in ``file``, in its order.

    Paths are relative to the folder of the list, or names alone (``ListedFiles``). In ``.txt`` and
    ``.lst`` the label is the last word of the line, so paths may have spaces; empty lines are
    skipped, and lines that begin with # unless they name an image. ``.csv`` and ``.tsv`` have a
    header that names a path and a label column, or two columns. With a column called split only the
    rows of ``split`` are read. ``classes.txt`` beside the list, if it exists, has the class names
    in order.

    Args:
        file: the list.
        split: the rows to read of a list with a column called split.
        rules: where its images are, and the columns of a table.
        partial: allow missing classes, as validation images may have.
        columns: keep the other columns of a table with a header, as an evaluation by patient needs.

    Raises:
        InputError: no label, no such file, or an image is listed twice; the text names the line.
    """
    found = parse_list(file, rules)
    rows, notes = _rows_of(file, found, split)
    if not rows:
        raise InputError(f"{file}: has no images; each line needs a path and a label")
    files = ListedFiles(file, rules.image_dir, rows[0].path)
    paths, sizes = _find_files(file, files, rows)
    notes += files.notes(rows[0].path, paths)
    class_names, numbers = check_labels(
        [row.label for row in rows],
        file.parent / "classes.txt",
        str(file),
        partial=partial,
        place=lambda index: f"{file}, line {rows[index].line}",
    )
    others = _columns(found.header, rows)
    if not found.has_splits:
        notes += other_split_notes(file, others)
    if found.comments:
        notes.append(
            f"{file}: {len(found.comments)} lines that begin with # are comments, first line "
            f"{found.comments[0]}"
        )
    return ImageDataset(
        files.root,
        class_names,
        Names.of(paths),
        numbers,
        np.array(sizes, dtype=np.int64),
        columns=others if columns else {},
        notes=tuple(notes),
        listed_in=file,
    )


def _columns(header: Sequence[str], rows: Sequence[Row]) -> dict[str, list[str]]:
    """Column to cell of each row; a short row has blank cells at its end."""
    counts = Counter(header)
    return {
        name: [row.others[at] if at < len(row.others) else "" for row in rows]
        for at, name in enumerate(header)
        if name and counts[name] == 1
    }


def has_own_splits(file: Path, rules: ListRules = BY_NAMES) -> bool:
    """Whether a list has a column called split, with rows of training and of others."""
    if file.suffix.lower() not in SUFFIXES or not file.is_file():
        return False
    found = parse_list(file, rules)
    splits = {row.split for row in found.rows}
    return found.has_splits and "train" in splits and len(splits) > 1


def _rows_of(file: Path, found: ParsedList, split: Split) -> tuple[list[Row], list[str]]:
    """The rows of a split, and notes; all rows if they are of one split."""
    if not found.has_splits or len({row.split for row in found.rows}) == 1:
        return found.rows, []
    rows = [row for row in found.rows if row.split == split]
    notes = []
    if split == "val" and not rows:
        rows = [row for row in found.rows if row.split == "test"]
        notes = [test_note(f"{file}: no row is of the split val")] if rows else []
    if not rows:
        splits = ", ".join(sorted({row.split for row in found.rows}))
        raise InputError(f"{file}: no row is of the split {split}; it has {splits}")
    return rows, notes


def _find_files(file: Path, files: ListedFiles, rows: Sequence[Row]) -> tuple[list[str], list[int]]:
    """The path of each image and its bytes.

    Raises:
        InputError: there is no such file, or it is listed twice.
    """
    lines: dict[str, Row] = {}
    paths, sizes = [], []
    for row in rows:
        found, size = files.find(row.path, f"{file}, line {row.line}", row.advice)
        path = plain_path(files.root, found)
        if path in lines:
            other = lines[path]
            advice = (
                "remove one of the two lines"
                if other.label == row.label
                else f"with the label {other.label}, and one class per image is needed"
            )
            raise InputError(
                f"{file}, line {row.line}: {row.path} is already in line {other.line}; {advice}"
            )
        lines[path] = row
        paths.append(found)
        sizes.append(size)
    return paths, sizes
