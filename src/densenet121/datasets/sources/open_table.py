"""Open the training and validation images of a table of labels."""

from dataclasses import replace
from pathlib import Path

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.sources.label_table import TABLE, LabelRules, read_label_table
from densenet121.datasets.sources.layout import only_one
from densenet121.datasets.sources.lists import SPLIT_COLUMNS
from densenet121.datasets.sources.open import without_excluded
from densenet121.datasets.sources.splits import VAL_FOLDERS, Split, split_of, test_note
from densenet121.utils.errors import InputError, UsageError


def open_labelled_training(
    data_dir: Path, val_dir: Path | None, rules: LabelRules, exclude: Path | None = None
) -> tuple[ImageDataset, ImageDataset | None]:
    """The training and the validation images, with the same labels; the latter may be None.

    Args:
        data_dir: a table; a folder with ``labels.csv``; or one with ``train/labels.csv`` and,
            optionally, ``val/labels.csv`` (or in ``valid/``, ``validation/``).
        val_dir: a table or folder of validation images.
        rules: how a table is read.
        exclude: a file with the paths of images to exclude, one per line.

    Raises:
        InputError, UsageError: see ``read_label_table``.
    """
    if _has_table(data_dir / "train"):
        data_dir, val_dir = data_dir / "train", val_dir or _validation(data_dir)
    train = read_label_table(_checked(data_dir, "data_dir"), rules)
    same = replace(rules, names=train.class_names)
    if val_dir:
        val: ImageDataset | None = read_label_table(_checked(val_dir, "val_dir"), same)
    else:
        val = of_split(train, "val", required=False)
    found = of_split(train, "train")
    assert found is not None
    train = found
    dataset, validation = without_excluded([train, val], exclude)
    assert dataset is not None
    return dataset, validation


def open_labelled_evaluation(
    data_dir: Path, rules: LabelRules, exclude: Path | None = None
) -> ImageDataset:
    """The images to evaluate: of a table, of ``labels.csv`` in a folder, or in its ``val``.

    Raises:
        InputError, UsageError: see ``read_label_table``.
    """
    source = _validation(data_dir) or data_dir
    found = of_split(read_label_table(_checked(source, "data_dir"), rules), "val")
    (dataset,) = without_excluded([found], exclude)
    assert dataset is not None
    return dataset


def of_split(table: ImageDataset, split: Split, *, required: bool = True) -> ImageDataset | None:
    """The rows of a split; all of them if the table has no column of splits, or a single one.

    Rows of the test split are taken for validation only if there are no others.

    Args:
        table: all rows.
        split: the split.
        required: whether the table must have such rows; if not, None stands for none, also where
            there is no column of splits.

    Raises:
        InputError: a value is no split, or there are no such rows.
    """
    column = next((name for name in table.columns if name.lower() in SPLIT_COLUMNS), None)
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


def refuse_label_table(source: Path) -> None:
    """Refuse a folder with a table of labels where one class per image is asked for.

    Raises:
        UsageError: there is one; it could mean either.
    """
    for folder in (source, source / "train"):
        classes = [path for path in folder.glob("*/") if path.name not in ("train", "val")]
        if _has_table(folder) and len(classes) < 2:
            raise UsageError(
                f"{folder / TABLE}: is a table of labels; pass `task` multilabel for several "
                "labels per image, or name the file itself for one class per image"
            )


def _validation(data_dir: Path) -> Path | None:
    folders = [data_dir / name for name in VAL_FOLDERS]
    return only_one([folder for folder in folders if _has_table(folder)])


def _has_table(folder: Path) -> bool:
    return (folder / TABLE).is_file()


def _checked(source: Path, field: str) -> Path:
    if source.is_file() or _has_table(source):
        return source
    kind = f"has no {TABLE}" if source.is_dir() else "does not exist"
    raise InputError(
        f"`{field}` {source}: {kind}; the task multilabel needs a table of labels: a .csv or .tsv "
        f"file, or a folder with {TABLE}"
    )
