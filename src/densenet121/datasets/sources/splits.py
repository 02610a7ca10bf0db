"""Names of splits, as folders, files and columns have them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from densenet121.utils.errors import InputError, UsageError, some

Split = Literal["train", "val"]

# As the datasets library of the Hugging Face hub knows them.
_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# train-00000-of-00004.parquet, pets-train.tfrecord-00000-of-00004; old versions of datasets wrote a
# part of a sum after the numbers.
_NUMBERED = re.compile(r"(.*)-(\d+)-of-(\d+)(-[0-9a-f]+)?(\.\w+)?")
# Folders of validation images beside train/, in the order in which they are looked for.
VAL_FOLDERS = ("val", "valid", "validation")
SPLIT_COLUMNS = ("split", "subset", "partition")


def split_of(name: str) -> str | None:
    """The split "train", "val" or "test" that a name means, in any case; else None."""
    return next((split for split, names in _NAMES.items() if name.lower() in names), None)


def split_within(name: str) -> str | None:
    """As ``split_of``, also of a name with other words: seg_train, test_set, images-val."""
    found = {split_of(word) for word in re.split(r"[^a-zA-Z]+", name)} - {None}
    return found.pop() if len(found) == 1 else None


def split_of_file(name: str) -> str | None:
    """As ``split_of``, of the first word of a file name: train-00000-of-00001.parquet.

    TensorFlow Datasets write the data set's name before it: mnist-train.tfrecord-00000-of-00001;
    HDF5 files have it anywhere: camelyonpatch_level_2_split_valid_x.h5.
    """
    if name.lower().endswith((".h5", ".hdf5")):
        return split_within(name)
    if named := re.fullmatch(r".+-([a-z]+)\.tfrecord-\d+-of-\d+", name):
        return split_of(named[1])
    return split_of(re.split(r"[^a-zA-Z]", name, maxsplit=1)[0])


def are_splits(names: Sequence[str]) -> bool:
    """Whether all of several names mean a split, and not all the same."""
    found = {split_of(name) for name in names}
    return len(found) > 1 and None not in found


def have_own_splits(files: Sequence[Path]) -> bool:
    """Whether some files are named after training and others after validation or test."""
    found = {split_of_file(file.name) for file in files}
    return "train" in found and not found.isdisjoint(("val", "test"))


def files_of_split(files: Sequence[Path], split: Split) -> tuple[list[Path], list[str]]:
    """The files that are named after a split, or all if none is; and notes for the log.

    Test files are taken for validation only if no file is named after validation.
    """
    named = {file: split_of_file(file.name) for file in files}
    if not any(named.values()):
        return list(files), []
    chosen = [file for file in files if named[file] == split]
    notes = []
    if split == "val" and not chosen:
        chosen = [file for file in files if named[file] == "test"]
        if chosen:
            notes.append(test_note(f"{chosen[0].parent}: no file is named after validation"))
    unnamed = [file.name for file in files if named[file] is None]
    if unnamed:
        notes.append(
            f"{files[0].parent}: {len(unnamed)} files that are not named after a split are not "
            f"read, first {unnamed[0]}"
        )
    return chosen, notes


def required_files(
    where: Path, files: Sequence[Path], split: Split, kind: str
) -> tuple[list[Path], list[str]]:
    """``files_of_split`` of the files of a folder, which must have one of the split.

    Raises:
        InputError: of a numbered set, a file is missing.
        UsageError: no file is named after the split, but others are named after one.
    """
    chosen, notes = files_of_split(files, split)
    if not chosen:
        raise UsageError(
            f"{where}: no {kind} file is named after {split}, the first is {files[0].name}; pass a "
            "file instead of the folder, or rename the files"
        )
    refuse_incomplete(where, chosen)
    return chosen, notes


def refuse_incomplete(where: Path, files: Sequence[Path]) -> None:
    """Refuse a set such as train-00000-of-00004.parquet that lacks files, as after a broken copy.

    Raises:
        InputError: the text names the set and the first number that is missing.
    """
    sets: dict[tuple[str, str], set[int]] = {}
    for file in files:
        if found := _NUMBERED.fullmatch(file.name):
            sets.setdefault((found[1], found[3]), set()).add(int(found[2]))
    for (name, count), numbers in sets.items():
        first = 1 if int(count) in numbers else 0
        missing = set(range(first, first + min(int(count), 10**6))) - numbers
        if missing:
            raise InputError(
                f"{where}: of the {int(count)} files {name}-...-of-{count}, {len(missing)} are "
                f"missing, first number {min(missing)}; to read a part of a set, rename its files"
            )


def split_columns(names: Iterable[str]) -> list[str]:
    """Those of some columns that are called like one of splits."""
    return [name for name in names if name.lower() in SPLIT_COLUMNS]


def other_split_notes(where: Path, columns: Mapping[str, Sequence[str]]) -> list[str]:
    """A note on columns that name splits but are called otherwise, so that all rows are read."""
    found = [
        name
        for name, cells in columns.items()
        if name.lower() not in SPLIT_COLUMNS and are_splits(sorted(set(cells)))
    ]
    return [
        f"{where}: the column {name} names splits ({some(sorted(set(columns[name])))}), but the "
        "rows of all of them are read; call it split to have them told apart"
        for name in found
    ]


def refuse_split_rows(where: Path, column: str, values: Iterable[object]) -> None:
    """Refuse rows of several splits in a source whose rows are read as a whole.

    Raises:
        InputError: the values of ``column`` are names of several splits.
    """
    found = sorted({value.strip() for value in values if isinstance(value, str)})
    if are_splits(found):
        raise InputError(
            f"{where}: {column} names several splits ({some(found)}), but with one class per image "
            "they are told apart by files only; write each into files of its own, as train and "
            "validation, or, if the files are the splits already, call it otherwise"
        )


def test_note(reason: str) -> str:
    """The note for test images that are used for validation."""
    return (
        f"{reason}, so the test images are used; weights that are chosen by them look better than "
        "they are"
    )
