"""Folders of class folders: which pictures there are, and which class each has."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.images import EXTENSIONS, read_file
from densenet121.utils.errors import InputError, UsageError


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of one folder, ordered by class and path.

    Attributes:
        root: the folder that holds the class folders.
        class_names: names of the class folders in byte order, as in the original.
        paths: of each picture, relative to ``root``, with forward slashes.
        labels: ``(num_pictures,)`` int64, index into ``class_names``.
        sizes: ``(num_pictures,)`` int64, bytes.
        ignored: files in class folders whose name is not a picture's.
    """

    root: Path
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]
    ignored: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """What a message calls a picture."""
        return str(self.root / self.paths[index])

    def read(self, index: int) -> bytes:
        """The encoded picture.

        Raises:
            InputError: it cannot be read; the reason only.
        """
        return read_file(self.root / self.paths[index])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of every path, size and class name: it changes when the data does."""
        digest = hashlib.sha256()
        for name in self.class_names:
            digest.update(name.encode(errors="surrogateescape") + b"\0")
        for path, size, label in zip(self.paths, self.sizes, self.labels, strict=True):
            digest.update(path.encode(errors="surrogateescape") + f"\0{size}\0{label}\n".encode())
        return digest.hexdigest()


def split_folders(data_dir: Path, val_dir: Path | None) -> tuple[Path, Path | None]:
    """Where the training and the validation pictures are.

    ``data_dir`` holds class folders, or ``train/`` with or without ``val/``. Without ``val_dir``
    the ``val`` beside ``train`` is taken if there is one.
    """
    train_dir = data_dir / "train" if (data_dir / "train").is_dir() else data_dir
    if val_dir is None and train_dir.name == "train" and (train_dir.parent / "val").is_dir():
        val_dir = train_dir.parent / "val"
    return train_dir, val_dir


def evaluation_folder(data_dir: Path) -> Path:
    """``data_dir/val`` where ``data_dir`` holds ``val/`` beside ``train/``, else ``data_dir``.

    Raises:
        UsageError: there is a ``train/`` but no ``val/``: which folder is meant is not clear.
    """
    if not (data_dir / "train").is_dir():
        return data_dir
    if (data_dir / "val").is_dir():
        return data_dir / "val"
    raise UsageError(
        f"--data_dir {data_dir} holds train/ but no val/; name the folder to evaluate, "
        f"e.g. {data_dir / 'train'}"
    )


def scan(root: Path, flag: str = "--data_dir") -> PictureFolder:
    """Find every picture below the class folders of ``root``.

    Class folders are taken in byte order. Hidden files and folders are passed over; sub-folders of
    a class folder belong to the class; files without a picture's extension are listed in
    ``ignored``.

    Raises:
        InputError: no such folder, no or only one class folder, a class folder without pictures, a
            file or folder that cannot be reached.
    """
    if not root.is_dir():
        found = "it is a file" if root.exists() else "there is no such folder"
        raise InputError(f"{flag} {root}: {found}")
    class_names = sorted(
        (entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != "."),
        key=os.fsencode,
    )
    if len(class_names) < 2:
        found = f"only one class folder ({class_names[0]})" if class_names else "no class folder"
        raise InputError(
            f"{flag} {root}: {found}; at least two are needed, a folder of pictures for each class"
        )
    paths: list[str] = []
    sizes: list[int] = []
    labels: list[int] = []
    ignored: list[str] = []
    for label, name in enumerate(class_names):
        before = len(paths)
        for path, size in _files_below(root, name):
            if os.path.splitext(path)[1].lower() not in EXTENSIONS:  # noqa: PTH122 (hot loop)
                ignored.append(path)
                continue
            paths.append(path)
            sizes.append(size)
            labels.append(label)
        if len(paths) == before:
            raise InputError(
                f"{root / name}: a class folder without pictures; remove it, or put pictures "
                f"({', '.join(sorted(EXTENSIONS))}) into it"
            )
    return PictureFolder(
        root=root,
        class_names=tuple(class_names),
        paths=tuple(paths),
        labels=np.array(labels, dtype=np.int64),
        sizes=np.array(sizes, dtype=np.int64),
        ignored=tuple(ignored),
    )


def check_num_classes(folder: PictureFolder, num_classes: int | None) -> int:
    """The number of classes in the folder, which must be ``num_classes`` where that is given.

    Raises:
        UsageError: another number.
    """
    found = len(folder.class_names)
    if num_classes is not None and num_classes != found:
        raise UsageError(
            f"--num_classes is {num_classes}, but {folder.root} holds {found} class folders; "
            "leave the flag out to take what is there"
        )
    return found


def check_same_classes(
    expected: Sequence[str], expected_by: str, found: Sequence[str], found_in: str
) -> None:
    """Refuse class names that differ, showing the difference.

    Raises:
        InputError: other names, or another order.
    """
    if list(expected) == list(found):
        return
    missing = [name for name in expected if name not in set(found)]
    unknown = [name for name in found if name not in set(expected)]
    parts = []
    if missing:
        parts.append(f"missing: {_some(missing)}")
    if unknown:
        parts.append(f"unknown: {_some(unknown)}")
    difference = "; ".join(parts) or "the same names in another order"
    raise InputError(
        f"{found_in} has {len(found)} classes that are not the {len(expected)} of {expected_by} "
        f"({difference})"
    )


def _some(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _files_below(root: Path, name: str) -> list[tuple[str, int]]:
    """Path relative to ``root`` and bytes of each file that is not hidden, in byte order.

    Raises:
        InputError: a folder cannot be read, a link leads nowhere or in a circle.
    """
    found: list[tuple[str, int]] = []
    pending = [name]
    try:
        while pending:
            relative = pending.pop()
            with os.scandir(root / relative) as entries:
                for entry in entries:
                    if entry.name[0] == ".":
                        continue
                    path = f"{relative}/{entry.name}"
                    if entry.is_dir():
                        pending.append(path)
                    else:
                        found.append((path, entry.stat().st_size))
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from None
    return sorted(found, key=lambda file: os.fsencode(file[0]))
