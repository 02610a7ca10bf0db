"""Open any source of images: class folders, a list, shards, Parquet, CIFAR."""

from pathlib import Path
from typing import Literal

from densenet121.datasets.image_dataset import ImageDataset, check_same_classes, read_whole
from densenet121.datasets.sources import lists, shards
from densenet121.datasets.sources.cifar import is_cifar, read_cifar
from densenet121.datasets.sources.folder import evaluation_folder, split_folders
from densenet121.datasets.sources.index_cache import scan_cached
from densenet121.datasets.sources.lists import read_list
from densenet121.datasets.sources.parquet import find_parquet, has_own_splits, read_parquet
from densenet121.utils.errors import InputError, UsageError

Split = Literal["train", "val"]


def open_training(
    data_dir: Path,
    val_dir: Path | None = None,
    *,
    exclude: Path | None = None,
    cache_dir: Path | None = None,
    field: str = "data_dir",
) -> tuple[ImageDataset, ImageDataset | None]:
    """The training and the validation images; the latter may be None.

    Args:
        data_dir: a source, or a folder with ``train`` and optionally ``val``.
        val_dir: a source of validation images.
        exclude: a file with the paths of images to exclude, one per line.
        cache_dir: folder for the index of a large folder.
        field: what messages call ``data_dir``.

    Raises:
        InputError: a source cannot be used, or the classes of the two differ.
        UsageError: a path of ``exclude`` is in neither of them.
    """
    splits = open_splits(data_dir, val_dir, cache_dir, field)
    dataset, validation = without_excluded([splits["train"], splits.get("val")], exclude)
    assert dataset is not None
    if validation is not None:
        check_same_classes(
            dataset.class_names,
            str(dataset.root),
            validation.class_names,
            str(validation.root),
        )
    return dataset, validation


def open_splits(
    data_dir: Path,
    val_dir: Path | None = None,
    cache_dir: Path | None = None,
    field: str = "data_dir",
) -> dict[Split, ImageDataset]:
    """The images of "train" and, if there are any, of "val", without further checks.

    Raises:
        InputError: a source cannot be used.
    """
    if val_dir is None and _has_own_splits(data_dir):
        splits: tuple[Split, Split] = ("train", "val")
        return {split: _open(data_dir, field, split, cache_dir) for split in splits}
    train_dir, val_dir = split_folders(data_dir, val_dir)
    found: dict[Split, ImageDataset] = {"train": _open(train_dir, field, "train", cache_dir)}
    if val_dir is not None:
        found["val"] = _open(val_dir, "val_dir", "val", cache_dir)
    return found


def open_evaluation(
    data_dir: Path, *, exclude: Path | None = None, cache_dir: Path | None = None
) -> ImageDataset:
    """The images to evaluate: the source, its validation split, or its ``val`` folder.

    Raises:
        InputError, UsageError: as ``open_training``.
    """
    found = _open(evaluation_folder(data_dir), "data_dir", "val", cache_dir)
    (dataset,) = without_excluded([found], exclude)
    assert dataset is not None
    return dataset


def _open(where: Path, field: str, split: Split, cache_dir: Path | None) -> ImageDataset:
    if where.is_file():
        if where.suffix.lower() in lists.SUFFIXES:
            return read_list(where)
        if where.suffix == ".tar":
            return shards.read_shards(where)
        if where.suffix == ".parquet":
            return read_parquet(where, split)
        allowed = ", ".join((*lists.SUFFIXES, ".tar", ".parquet"))
        raise InputError(
            f"`{field}` {where}: unsupported kind of file; pass a folder or one of {allowed}"
        )
    if where.is_dir():
        if is_cifar(where):
            return read_cifar(where, split)
        if shards.find_shards(where):
            return shards.read_shards(where)
        if find_parquet(where, split):
            return read_parquet(where, split)
    return scan_cached(where, field, cache_dir)


def _has_own_splits(where: Path) -> bool:
    return where.is_dir() and (is_cifar(where) or has_own_splits(where))


def without_excluded(
    sides: list[ImageDataset | None], exclude: Path | None
) -> list[ImageDataset | None]:
    """The datasets without the images that a file names, one path per line.

    Raises:
        UsageError: a path of ``exclude`` is in none of them.
    """
    if exclude is None:
        return sides
    text = read_whole(exclude).decode("utf-8-sig", "surrogateescape")
    excluded = {line.strip() for line in text.splitlines() if line.strip()}
    known = {path for side in sides if side for path in side.paths if path in excluded}
    unknown = sorted(excluded - known)
    if unknown:
        raise UsageError(f"`exclude` {exclude}: there is no image {unknown[0]}")
    return [side and side.without(excluded) for side in sides]
