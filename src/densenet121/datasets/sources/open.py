"""Open any source of images with one class each: class folders, a list, files of many images."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from densenet121.datasets.image_dataset import ImageDataset, with_classes
from densenet121.datasets.sources import archive, lists
from densenet121.datasets.sources.arrow import read_arrow
from densenet121.datasets.sources.cifar import is_cifar, read_cifar
from densenet121.datasets.sources.exclusion import without_excluded
from densenet121.datasets.sources.folder import check_names
from densenet121.datasets.sources.hdf5 import read_hdf5
from densenet121.datasets.sources.idx import has_both_parts, is_idx, read_idx
from densenet121.datasets.sources.index_cache import scan_cached
from densenet121.datasets.sources.layout import (
    PACKED,
    compressed_in,
    evaluation_folder,
    folder_notes,
    folders_within_note,
    has_images,
    is_compressed,
    is_split,
    packed_files,
    packed_in,
    packed_kind,
    split_folders,
    subfolders,
)
from densenet121.datasets.sources.list_rows import BY_NAMES, SUFFIXES, ListRules
from densenet121.datasets.sources.mindrecord import read_mindrecords
from densenet121.datasets.sources.parquet import read_parquet
from densenet121.datasets.sources.shards import read_shards
from densenet121.datasets.sources.splits import Split, have_own_splits
from densenet121.datasets.sources.tfrecord import read_tfrecords
from densenet121.utils.errors import InputError, UsageError, some
from densenet121.utils.strays import refuse_stray

# The kinds of files that hold many images, and the folders that are one source as a whole.
_READERS: dict[str, Callable[..., ImageDataset]] = {
    ".tar": read_shards,
    ".parquet": read_parquet,
    ".tfrecord": read_tfrecords,
    ".mindrecord": read_mindrecords,
    ".h5": read_hdf5,
    ".arrow": read_arrow,
}
_FOLDERS: dict[str, tuple[Callable[[Path], bool], Callable[..., ImageDataset]]] = {
    "CIFAR files": (is_cifar, read_cifar),
    "IDX files": (is_idx, read_idx),
}


def open_training(
    data_dir: Path,
    val_dir: Path | None = None,
    *,
    exclude: Path | None = None,
    cache_dir: Path | None = None,
    field: str = "data_dir",
    rules: ListRules = BY_NAMES,
) -> tuple[ImageDataset, ImageDataset | None]:
    """The training and the validation images; the latter may be None, and may lack classes.

    Args:
        data_dir: a source, or a folder with ``train`` and optionally ``val``.
        val_dir: a source of validation images.
        exclude: a file that names the images to leave out; see ``excluded_paths``.
        cache_dir: folder for the index of a large folder.
        field: what messages call ``data_dir``.
        rules: how lists are read; other sources take none.

    Raises:
        InputError: a source cannot be used, or validation has a class that training does not have.
        UsageError: a line of ``exclude`` names no image, or ``rules`` do not fit.
    """
    found = open_splits(data_dir, val_dir, cache_dir, field, rules=rules)
    splits = without_excluded(found, exclude)
    dataset, validation = splits["train"], splits.get("val")
    if validation is not None:
        validation = with_classes(validation, dataset.class_names, str(dataset.source))
    return dataset, validation


def open_splits(
    data_dir: Path,
    val_dir: Path | None = None,
    cache_dir: Path | None = None,
    field: str = "data_dir",
    *,
    columns: bool = False,
    rules: ListRules = BY_NAMES,
) -> dict[Split, ImageDataset]:
    """The images of "train" and, if there are any, of "val", without further checks.

    ``columns`` keeps the other columns of a list (``read_list``).

    Raises:
        InputError: a source cannot be used.
    """
    data_dir = repository_data(data_dir)
    lists_as = _ListsAs(rules, columns)
    if val_dir is None and _has_own_splits(data_dir, rules):
        splits: tuple[Split, Split] = ("train", "val")
        both = {s: _open(data_dir, field, s, cache_dir, lists_as) for s in splits}
        return {**both, "train": both["train"].with_name_notes()}
    train_dir, val_dir = split_folders(data_dir, val_dir)
    train = _open(train_dir, field, "train", cache_dir, lists_as)
    found: dict[Split, ImageDataset] = {
        "train": train.with_notes(
            *folder_notes(data_dir, train_dir, val_dir), *folders_within_note(train_dir)
        ).with_name_notes()
    }
    if val_dir is not None:
        val_dir = repository_data(val_dir)
        found["val"] = _open(val_dir, "val_dir", "val", cache_dir, lists_as)
    return found


def open_evaluation(
    data_dir: Path,
    *,
    exclude: Path | None = None,
    cache_dir: Path | None = None,
    rules: ListRules = BY_NAMES,
) -> ImageDataset:
    """The images to evaluate: the source, its validation split, or its ``val`` folder.

    They may lack classes: ``with_classes`` gives them those of the weights.

    Raises:
        InputError, UsageError: as ``open_training``.
    """
    data_dir = repository_data(data_dir)
    where = evaluation_folder(data_dir)
    found = _open(where, "data_dir", "val", cache_dir, _ListsAs(rules, columns=True))
    if where == data_dir and len(found.class_names) < 2 and not _has_own_splits(where, rules):
        _refuse_single(where, found)
    return without_excluded({"val": found}, exclude)["val"]


@dataclass(frozen=True)
class _ListsAs:
    """How lists are read: by which rules, and whether with their other columns."""

    rules: ListRules
    columns: bool


def _open(
    where: Path, field: str, split: Split, cache_dir: Path | None, lists_as: _ListsAs
) -> ImageDataset:
    partial = split == "val"
    is_list = where.is_file() and where.suffix.lower() in SUFFIXES
    if lists_as.rules.given and not is_list:
        raise UsageError(
            f"`{lists_as.rules.given[0]}` is for a list ({', '.join(SUFFIXES)}), but `{field}` "
            f"{where} is none"
        )
    if where.is_file() or archive.is_archive(where):
        return _open_file(where, field, split, lists_as)
    packed = _packed_in(where)
    if not packed:
        return scan_cached(where, field, cache_dir, partial=partial)
    folders = _folders_with_images(where)
    beside = [f"{kind} ({some(names, 3)})" for kind, names in packed.items()]
    if len(folders) > 1:
        found = scan_cached(where, field, cache_dir, partial=partial)
        return found.with_notes(
            f"{where}: the class folders are read; {' and '.join(beside)} beside them are not"
        )
    kind = next(iter(packed))
    if kind not in _FOLDERS and len(packed) > 1:
        raise UsageError(
            f"`{field}` {where} has {' and '.join(beside)}, and either may be the images; move one "
            "away, or pass a single file"
        )
    if kind in _FOLDERS:
        found = _FOLDERS[kind][1](where, split)
    else:
        reader = next(_READERS[key] for key, (title, _) in PACKED.items() if title == kind)
        found = reader(where, split, partial=partial)
    others = [*beside[1:], *(f"{name}/" for name in folders)]
    if archives := compressed_in(where):
        others.append(f"compressed files ({some(archives, 3)})")
    if others:
        found = found.with_notes(f"{where}: the {kind} are read; {' and '.join(others)} are not")
    return found


def _open_file(where: Path, field: str, split: Split, lists_as: _ListsAs) -> ImageDataset:
    partial = split == "val"
    kind = packed_kind(where.name)
    if archive.is_archive(where):
        return archive.read_archive(where, split, partial=partial)
    if where.suffix.lower() in SUFFIXES:
        return lists.read_list(
            where, split, lists_as.rules, partial=partial, columns=lists_as.columns
        )
    if kind is not None:
        return _READERS[kind](where, split, partial=partial)
    if is_compressed(where.name):
        raise InputError(f"`{field}` {where}: is compressed; unpack it, and pass what was in it")
    refuse_stray(where)
    allowed = ", ".join((*SUFFIXES, archive.SUFFIX, *PACKED))
    raise InputError(
        f"`{field}` {where}: unsupported kind of file; pass a folder or one of {allowed}"
    )


def _refuse_single(where: Path, dataset: ImageDataset) -> None:
    """A split may have images of one class, but a source by itself is rather the wrong one."""
    if where.is_dir() and not _packed_in(where):
        check_names(where, "data_dir", dataset.class_names, partial=False)
    names = "".join(dataset.class_names)
    raise InputError(f"{where}: has only one class ({names}); at least two are needed")


def _packed_in(where: Path) -> dict[str, list[str]]:
    """The kinds of sources besides class folders that lie right inside a folder, with names."""
    if not where.is_dir():
        return {}
    found = {kind: [where.name] for kind, (is_kind, _) in _FOLDERS.items() if is_kind(where)}
    files = packed_files(where).items()
    return found | {PACKED[kind][0]: [file.name for file in named] for kind, named in files}


def _folders_with_images(where: Path) -> list[str]:
    return [name for name in subfolders(where) if has_images(where / name)]


def _has_own_splits(where: Path, rules: ListRules) -> bool:
    """Whether one source has training and validation images, told apart by its own names."""
    if archive.is_archive(where):
        return archive.has_own_splits(where)
    if where.is_file():
        return lists.has_own_splits(where, rules)
    if not where.is_dir() or is_split(where / "train") or not _packed_in(where):
        return False
    if len(_folders_with_images(where)) > 1:
        return False  # the class folders are read
    if is_cifar(where) or has_both_parts(where):
        return True
    files = packed_files(where)
    return any(have_own_splits(files[kind]) for kind in files if kind != ".arrow")


def repository_data(where: Path) -> Path:
    """``where/data`` if the Parquet files are there, as in a repository of the hub."""
    data = where / "data"
    if not data.is_dir() or _packed_in(where) or not packed_in(data, ".parquet"):
        return where
    return data if _folders_with_images(where) == ["data"] else where
