"""A folder of class folders: find its images and their classes."""

import os
from pathlib import Path

import numpy as np

from densenet121.datasets.decoding import EXTENSIONS
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.packed_strings import Names
from densenet121.utils.errors import InputError, UsageError

_SUFFIXES = tuple(os.fsencode(extension) for extension in EXTENSIONS)

# A folder and its mtime in nanoseconds, which changes when a file is added, removed or renamed.
Folder = tuple[str, int]


def split_folders(data_dir: Path, val_dir: Path | None) -> tuple[Path, Path | None]:
    """The folders of the training and the validation images.

    ``data_dir`` has class folders, or ``train/`` with or without ``val/``. Without ``val_dir``
    the ``val`` beside ``train`` is used, if it exists.
    """
    train_dir = data_dir / "train" if (data_dir / "train").is_dir() else data_dir
    if val_dir is None and train_dir.name == "train" and (train_dir.parent / "val").is_dir():
        val_dir = train_dir.parent / "val"
    return train_dir, val_dir


def evaluation_folder(data_dir: Path) -> Path:
    """``data_dir/val`` if ``data_dir`` has ``val/`` beside ``train/``, else ``data_dir``.

    Raises:
        UsageError: there is a ``train/`` but no ``val/``, so the folder is ambiguous.
    """
    if not (data_dir / "train").is_dir():
        return data_dir
    if (data_dir / "val").is_dir():
        return data_dir / "val"
    raise UsageError(
        f"`data_dir` {data_dir} has train/ but no val/; pass the folder to evaluate, "
        f"e.g. {data_dir / 'train'}"
    )


def scan(root: Path, field: str = "data_dir") -> ImageDataset:
    """Find every image below the class folders of ``root``.

    Class folders are sorted in byte order. Hidden files and folders are skipped; subfolders of a
    class folder belong to the class; files without an image extension are listed in ``ignored``.

    Raises:
        InputError: no such folder, fewer than two class folders, a class folder without images, or
            a file or folder that cannot be read.
    """
    return scan_folders(root, field)[0]


def scan_folders(root: Path, field: str = "data_dir") -> tuple[ImageDataset, list[Folder]]:
    """As ``scan``, and every folder that was scanned, ``root`` first.

    Raises:
        InputError: as ``scan``.
    """
    if not root.is_dir():
        found = "it is a file" if root.exists() else "there is no such folder"
        raise InputError(f"`{field}` {root}: {found}")
    folders = [("", root.stat().st_mtime_ns)]
    class_names = sorted(
        (entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != "."),
        key=os.fsencode,
    )
    if len(class_names) < 2:
        found = f"only one class folder ({class_names[0]})" if class_names else "no class folder"
        raise InputError(
            f"`{field}` {root}: {found}; at least two are needed, one folder of images per class"
        )
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
        if len(sizes) == before:
            raise InputError(
                f"{root / name}: this class folder has no images; remove it, or add images "
                f"({', '.join(sorted(EXTENSIONS))})"
            )
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
                        pending.append(path)
                    else:
                        found.append((path, entry.stat().st_size))
    except OSError as error:
        raise InputError(
            f"{os.fsdecode(error.filename)}: cannot be read ({error.strerror})"
        ) from None
    return sorted(found)
