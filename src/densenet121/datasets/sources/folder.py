"""A folder of class folders: find its images and their classes."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from densenet121.datasets.decoding import EXTENSIONS, format_of
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.packed_strings import Names
from densenet121.datasets.sources.cifar import is_cifar
from densenet121.datasets.sources.hidden_folders import is_system_folder
from densenet121.datasets.sources.idx import is_idx
from densenet121.datasets.sources.layout import (
    compressed_in,
    has_packed,
    images_inside,
    is_split,
    refuse_splits,
    subfolders,
    table_hint,
)
from densenet121.datasets.sources.splits import split_of
from densenet121.utils.errors import InputError, some
from densenet121.utils.strays import broken_link, unopened

_SUFFIXES = tuple(os.fsencode(extension) for extension in EXTENSIONS)
_LISTS = ("train.csv", "train.tsv", "train.txt")  # as `split` writes the first
_MOST_OPENED = 20  # files that are not called images, to see whether they begin like one

# A folder and its mtime in nanoseconds, which changes when a file is added, removed or renamed.
Folder = tuple[str, int]


def scan(root: Path, field: str = "data_dir", *, partial: bool = False) -> ImageDataset:
    """Find every image below the class folders of ``root``.

    Class folders are sorted in byte order. Hidden files and folders, and those that systems put
    among images (``is_system_folder``), are skipped; subfolders of a
    class folder belong to the class; files without an image extension are listed in ``ignored``.

    Args:
        root: the folder of class folders.
        field: what messages call it.
        partial: allow empty class folders and a single one, as validation images may have.

    Raises:
        InputError: no such folder, fewer than two class folders, a class folder without images,
            folders that are splits instead of classes, or a file or folder that cannot be read.
    """
    dataset = scan_folders(root, field, partial=partial)[0]
    check_counts(dataset, field, partial=partial)
    return dataset


def check_names(root: Path, field: str, names: Sequence[str], *, partial: bool) -> None:
    """Refuse too few class folders, and folders that are splits."""
    refuse_splits(root, field, names)
    if len(names) < (1 if partial else 2):
        found = f"only one class folder ({names[0]})" if names else "no class folder"
        raise InputError(
            f"`{field}` {root}: {found}; at least two are needed, one folder of images per "
            f"class{_hint(root, names)}"
        )


def check_counts(dataset: ImageDataset, field: str, *, partial: bool) -> None:
    """Refuse classes without images; if ``partial``, only a dataset without images."""
    counts = dataset.counts()
    if partial and not counts.any():
        names = dataset.class_names
        meant = _hint(dataset.root, names) if len(names) == 1 else ""
        wanted = f"; names of images end in {', '.join(sorted(EXTENSIONS))}"
        raise InputError(
            f"`{field}` {dataset.root}: no image in its class folders{meant or wanted}"
        )
    if not partial and not counts.all():
        name = dataset.class_names[int(np.argmin(counts))]
        others = [path for path in dataset.ignored if path.startswith(f"{name}/")]
        found = f" but {len(others)} other files, first {others[0]}" if others else ""
        advice = _nameless(dataset.root, others) or "remove it, or add images; their names end in"
        raise InputError(
            f"{dataset.root / name}: this class folder has no images{found}; {advice} "
            f"{', '.join(sorted(EXTENSIONS))}"
        )


def _nameless(root: Path, others: Sequence[str]) -> str:
    """What to do with files that begin like images but are not called so, as PACS write DICOM."""
    for path in others[:_MOST_OPENED]:
        try:
            if (root / path).is_file():  # reading a pipe could block forever
                with (root / path).open("rb") as file:
                    kind = format_of(file.read(132))
                if kind and not path.endswith("/DICOMDIR"):
                    return f"{path} begins like {kind}; rename such files to names that end in"
        except OSError:
            continue
    return ""


def _hint(root: Path, names: Sequence[str]) -> str:
    """What a user may have meant, for a folder with fewer than two class folders."""
    packed = _packed_below(root, names)
    if packed:
        return f"; {packed.name}/ has packed images, so pass {packed}"
    if names and split_of(names[0]) and root.name != names[0]:
        split = root / names[0]
        if images_inside(split):
            hint = f"; there are images right inside {names[0]}/, without a class"
            return hint + table_hint([split, root])
        if len(subfolders(split)) < 2:
            return "; folders of splits are called train and val"
    if names and is_split(root / names[0] / "train"):
        return f"; {names[0]}/ holds train/, so pass {root / names[0]}"
    if names and len(inner := subfolders(root / names[0])) > 1:
        below = root / names[0]
        return f"; {names[0]}/ holds {some(inner, 3)}; if these are the classes, pass {below}"
    if not names and (lists := [root / name for name in _LISTS if (root / name).is_file()]):
        val = lists[0].with_name(lists[0].name.replace("train", "val"))
        beside = f" `val_dir` {val}" if val.is_file() else ""
        return f"; for the lists in it pass `data_dir` {lists[0]}{beside}"
    if images_inside(root):
        hint = f"; there are images right inside {root.name}/, without a class"
        return hint + table_hint([root])
    if archives := compressed_in(root):
        return f"; {some(archives, 3)} in it would have to be unpacked first"
    return ""


def _packed_below(root: Path, names: Sequence[str]) -> Path | None:
    """The folder with packed images that a folder of nothing but folders leads to, if it does."""
    while len(names) == 1:
        root /= names[0]
        if has_packed(root) or is_cifar(root) or is_idx(root):
            return root
        names = subfolders(root)
    return None


def scan_folders(
    root: Path, field: str = "data_dir", *, partial: bool = False
) -> tuple[ImageDataset, list[Folder]]:
    """As ``scan`` without ``check_counts``, and every folder that was scanned, ``root`` first.

    Raises:
        InputError: as ``scan``.
    """
    if not root.is_dir():
        missing = f"there is no such {'file or folder' if root.suffix else 'folder'}"
        nothing = f"it is {link}" if (link := broken_link(root)) else missing
        found = "it is a file" if root.exists() else nothing
        raise InputError(f"`{field}` {root}: {found}")
    folders = [("", root.stat().st_mtime_ns)]
    class_names = subfolders(root)
    check_names(root, field, class_names, partial=partial)
    text, lengths = bytearray(), []
    sizes: list[int] = []
    counts: list[int] = []
    ignored: list[str] = []
    for name in class_names:
        before = len(sizes)
        for path, size in _files_below(os.fsencode(root), os.fsencode(name), folders):
            if not path.lower().endswith(_SUFFIXES):
                ignored.append(os.fsdecode(path))
                continue
            text += path
            lengths.append(len(path))
            sizes.append(size)
        counts.append(len(sizes) - before)
    dataset = ImageDataset(
        root=root,
        class_names=tuple(class_names),
        paths=Names(bytes(text), np.cumsum(lengths, dtype=np.int64)),
        labels=np.repeat(np.arange(len(counts), dtype=np.int64), counts),
        sizes=np.array(sizes, dtype=np.int64),
        ignored=tuple(ignored),
    )
    return dataset, folders


def _files_below(root: bytes, name: bytes, folders: list[Folder]) -> list[tuple[bytes, int]]:
    """Path relative to ``root`` and bytes of each file that is not hidden, in byte order.

    Raises:
        InputError: a folder cannot be read, or a link is broken or cyclic.
    """
    found: list[tuple[bytes, int]] = []
    pending = [name]
    try:
        while pending:
            relative = pending.pop()
            here = root + b"/" + relative
            # Before listing it, so that a change in between is noticed later.
            folders.append((os.fsdecode(relative), os.stat(here).st_mtime_ns))  # noqa: PTH116
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.name[:1] == b".":
                        continue
                    path = relative + b"/" + entry.name
                    if entry.is_dir():
                        if not is_system_folder(os.fsdecode(entry.name)):
                            pending.append(path)
                    else:
                        found.append((path, entry.stat().st_size))
    except OSError as error:
        raise InputError(
            f"{os.fsdecode(error.filename)}: cannot be read ({unopened(error)})"
        ) from None
    return sorted(found)
