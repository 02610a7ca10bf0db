"""Open images with several labels each: a table of labels, or files that hold many images."""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.sources import archive
from densenet121.datasets.sources.arrow import read_label_arrow
from densenet121.datasets.sources.exclusion import without_excluded
from densenet121.datasets.sources.hdf5 import read_label_hdf5
from densenet121.datasets.sources.label_table import TABLE, LabelRules, read_label_table
from densenet121.datasets.sources.layout import (
    PACKED,
    compressed_in,
    is_image,
    only_one,
    packed_files,
    packed_kind,
    table_hint,
)
from densenet121.datasets.sources.list_rows import one_of
from densenet121.datasets.sources.mindrecord import read_label_mindrecords
from densenet121.datasets.sources.open import repository_data
from densenet121.datasets.sources.parquet_labels import read_label_parquet
from densenet121.datasets.sources.shard_labels import read_label_shards
from densenet121.datasets.sources.splits import (
    VAL_FOLDERS,
    Split,
    have_own_splits,
    other_split_notes,
    split_columns,
    split_of,
    test_note,
)
from densenet121.datasets.sources.tfrecord import read_label_tfrecords
from densenet121.datasets.tables import read_table
from densenet121.utils.errors import InputError, UsageError, some

_READERS: dict[str, Callable[[Path, LabelRules, Split], ImageDataset]] = {
    ".tar": read_label_shards,
    ".parquet": read_label_parquet,
    ".tfrecord": read_label_tfrecords,
    ".mindrecord": read_label_mindrecords,
    ".h5": read_label_hdf5,
    ".arrow": read_label_arrow,
}


def open_labelled_training(
    data_dir: Path,
    val_dir: Path | None,
    rules: LabelRules,
    exclude: Path | None = None,
    field: str = "data_dir",
) -> tuple[ImageDataset, ImageDataset | None]:
    """The training and the validation images, with the same labels; the latter may be None.

    Args:
        data_dir: a table; a folder with ``labels.csv``; files of many images (``PACKED``), also of
            both splits by their names; a NumPy archive; or a folder with any of these in ``train``
            and, optionally, in ``val`` (or ``valid``, ``validation``).
        val_dir: the same, of validation images.
        rules: how a table is read.
        exclude: a file that names the images to leave out; see ``excluded_paths``.
        field: the setting that names ``data_dir``.

    Raises:
        InputError, UsageError: see ``read_label_table``.
    """
    data_dir = repository_data(data_dir)
    if _has_labels(data_dir / "train"):
        data_dir, val_dir = data_dir / "train", val_dir or _validation(data_dir)
    train = _read(data_dir, field, rules, "train")
    same = replace(rules, names=train.class_names)
    if val_dir:
        val: ImageDataset | None = _read(repository_data(val_dir), "val_dir", same, "val")
    elif _has_own_splits(data_dir):
        val = _read(data_dir, field, same, "val")
    else:
        val = of_split(train, "val", required=False)
    found = of_split(train, "train")
    assert found is not None
    sides: dict[Split, ImageDataset] = {"train": found.with_name_notes()}
    if val is not None:
        sides["val"] = val
    sides = without_excluded(sides, exclude)
    return sides["train"], sides.get("val")


def open_labelled_evaluation(
    data_dir: Path, rules: LabelRules, exclude: Path | None = None
) -> ImageDataset:
    """The images to evaluate: of a source of labels, of a folder with one, or in its ``val``.

    A label may be unknown for all of them, but not every label.

    Raises:
        InputError, UsageError: see ``read_label_table``.
    """
    source = _validation(data_dir) or repository_data(data_dir)
    found = of_split(_read(source, "data_dir", replace(rules, partial=True), "val"), "val")
    assert found is not None
    dataset = without_excluded({"val": found}, exclude)["val"]
    counts = zip(dataset.class_names, dataset.counts().tolist(), strict=True)
    unknown = [name for name, known in counts if not known]
    if len(unknown) == len(dataset.class_names):
        raise InputError(f"{dataset.source}: no image has a known value of any label")
    if not unknown:
        return dataset
    return dataset.with_notes(
        f"{dataset.source}: no image has a known value of {some(unknown)}, so that there are no "
        "metrics of it"
    )


def of_split(table: ImageDataset, split: Split, *, required: bool = True) -> ImageDataset | None:
    """The rows of a split; all of them if the table has no column of splits, or a single one.

    Rows of the test split are taken for validation only if there are no others.

    Args:
        table: all rows.
        split: the split.
        required: whether the table must have such rows; if not, None stands for none, also where
            there is no column of splits.

    Raises:
        InputError: a value is no split, there are no such rows, or two columns of splits differ.
    """
    named = [(name, table.columns[name]) for name in split_columns(table.columns)]
    column = one_of(named, "split", str(table.source))
    if column is None:
        return table if required else None
    where = f"{table.source}, column {column}"
    found = [split_of(cell) for cell in table.columns[column]]
    if None in found:
        wrong = table.columns[column][found.index(None)]
        raise InputError(f'{where}: "{wrong}" is no split; it must be train, val or test')
    if len(set(found)) == 1:  # the column tells nothing apart
        return table if required else None
    use, notes = str(split), []
    if split == "val" and "val" not in found and "test" in found:
        use, notes = "test", [test_note(f"{where}: no row is of the split val")]
    if use not in found:
        if not required:
            return None
        raise InputError(f"{where}: no row is of the split {split}")
    others = {path for path, other in zip(table.paths, found, strict=True) if other != use}
    return table.without(others, partial=use != "train").with_notes(*notes)


def refuse_label_table(
    source: Path,
    advice: str = "pass `task` multilabel for several labels per image, or name the file itself "
    "for one class per image",
) -> None:
    """Refuse a folder with a table of labels where one class per image is asked for.

    Folders beside the table are classes unless the table has images in them.

    Raises:
        UsageError: there is one; it could mean either, and the text ends in ``advice``.
    """
    for folder in (source, source / "train"):
        if not _has_table(folder):
            continue
        classes = {path.name for path in folder.glob("*/")} - {"train", "val"}
        if len(classes) < 2 or _lists_images_in(folder, classes):
            raise UsageError(f"{folder / TABLE}: is a table of labels; {advice}")


def _lists_images_in(folder: Path, names: set[str]) -> bool:
    """Whether the table of a folder has images in its subfolders, and labels other than these.

    A path leads into a subfolder; a bare file name, as in NIH's tables, may lie in any of them.
    """
    try:
        columns = read_table(folder / TABLE).columns
    except InputError:
        return False  # a file of something else
    bare = {cell for cells in columns.values() for cell in cells if is_image(cell)}
    places = _subfolders_of(bare, folder, names)
    for cells in columns.values():
        inside = [places.get(cell) or _first_part(cell, names) for cell in cells]
        leading = [cell for cell, parts in zip(cells, inside, strict=True) if parts]
        # os.path, because it never raises.
        if any(cell in places or os.path.isfile(folder / cell) for cell in leading):  # noqa: PTH113
            return not any(_agree(other, inside) for other in columns.values())
    return False


def _subfolders_of(files: set[str], folder: Path, names: Collection[str]) -> dict[str, set[str]]:
    """File name to the subfolders that such a file lies in, at any depth."""
    found: dict[str, set[str]] = {}
    for name in names if files else ():
        for _, _, within in os.walk(folder / name):
            for file in files & set(within):
                found.setdefault(file, set()).add(name)
    return found


def _first_part(path: str, names: set[str]) -> set[str]:
    """The subfolder that a path leads into, if it is one of ``names``."""
    return {os.path.normpath(path).split("/")[0]} & names


def _agree(labels: Sequence[str], inside: Sequence[Collection[str]]) -> bool:
    """Whether every image that is there lies in the subfolder that is called as its label."""
    return all(not of or label in of for label, of in zip(labels, inside, strict=True))


def _validation(data_dir: Path) -> Path | None:
    folders = [data_dir / name for name in VAL_FOLDERS]
    return only_one([folder for folder in folders if _has_labels(folder)])


def _has_table(folder: Path) -> bool:
    return (folder / TABLE).is_file()


def _has_own_splits(source: Path) -> bool:
    if archive.is_archive(source):
        return archive.has_own_splits(source)
    files = packed_files(source)
    return any(have_own_splits(files[kind]) for kind in files if kind != ".arrow")


def _has_labels(folder: Path) -> bool:
    return _has_table(folder) or bool(packed_files(folder))


def _read(source: Path, field: str, rules: LabelRules, split: Split) -> ImageDataset:
    """The images of a table, or of files of many images.

    Raises:
        InputError: it is none of them.
        UsageError: a folder has several of them.
    """
    if archive.is_archive(source):
        return archive.read_label_archive(source, rules, split)
    kind = packed_kind(source.name)
    kinds = [kind] if kind and source.is_file() else list(packed_files(source))
    if (_has_table(source) and kinds) or len(kinds) > 1:
        beside = [TABLE] * _has_table(source) + [PACKED[kind][0] for kind in kinds]
        raise UsageError(
            f"`{field}` {source} has {' and '.join(beside)}, and either may have the labels; move "
            "one away, or pass a single file"
        )
    if kinds:
        found = _READERS[kinds[0]](source, rules, split)
        if not split_columns(found.columns):
            found = found.with_notes(*other_split_notes(source, found.columns))
        if archives := compressed_in(source):
            found = found.with_notes(
                f"{source}: compressed files ({some(archives, 3)}) are not read"
            )
        return found
    if source.is_file() or _has_table(source):
        return read_label_table(source, rules)
    kind = f"has no {TABLE}" if source.is_dir() else "does not exist"
    raise InputError(
        f"`{field}` {source}: {kind}; the task multilabel needs a table of labels: a .csv or .tsv "
        f"file, or a folder with {TABLE}; or tar shards, Parquet or other files with labels"
        + (table_hint([source]) if source.is_dir() else "")
    )
