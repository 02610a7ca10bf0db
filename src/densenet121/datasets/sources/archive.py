"""NumPy archives in the layout of MedMNIST: ``train_images``, ``train_labels``, ``val_images`` ...

Images are ``(N, H, W)`` or ``(N, H, W, 3)`` uint8. Labels are ``(N, 1)`` numbers of classes, or
``(N, L)`` with 1 or 0 for each label (ChestMNIST). ``archive.npz/test`` names one part, as a folder
of it would. Nothing is unpickled.
"""

import math
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.packed_strings import Names
from densenet121.datasets.sources.label_table import LabelRules, labels_of_table
from densenet121.datasets.sources.labels import check_labels
from densenet121.datasets.sources.pixels import Pixels, is_pixels, reader, sizes
from densenet121.datasets.sources.splits import Split, test_note
from densenet121.datasets.sources.text import names_of
from densenet121.datasets.tables import Table
from densenet121.utils.errors import InputError, UsageError, one_line
from densenet121.utils.strays import refuse_stray

SUFFIX = ".npz"
_PARTS = ("train", "val", "test")


def is_archive(where: Path) -> bool:
    """Whether it is an archive, or names a part of one."""
    return _file_of(where) is not None


def has_own_splits(where: Path) -> bool:
    """Whether an archive has training images and others, and no part is named."""
    parts = _parts_in(where) if where.suffix == SUFFIX else []
    return "train" in parts and len(parts) > 1


def read_archive(where: Path, split: Split, *, partial: bool = False) -> ImageDataset:
    """The images of a split, with one class each; test images where there are no validation images.

    Args:
        where: the archive, or a part of it, which is then read whatever the split.
        split: the part to read.
        partial: allow missing classes, as validation images may have.

    Raises:
        InputError: the archive is damaged, or has no such images.
    """
    part, notes = _part(where, split)
    images, labels = _read(where, part)
    if labels.shape[1] != 1:
        raise InputError(
            f"{where}: {part}_labels has {labels.shape[1]} labels of each image; pass `task` "
            "multilabel"
        )
    file = _file(where)
    class_names, numbers = check_labels(
        labels[:, 0].tolist(),
        file.parent / "classes.txt",
        f"{file}, {part}_labels",
        partial=partial,
    )
    return _dataset(where, part, images, class_names, numbers, notes)


def read_label_archive(where: Path, rules: LabelRules, split: Split) -> ImageDataset:
    """As ``read_archive``, with several labels of each image.

    Their names are the lines of ``classes.txt`` beside the archive, or 0, 1, 2 ...

    Raises:
        InputError: the archive is damaged, or has no such images or labels.
        UsageError: a setting does not fit.
    """
    for field in ("path_column", "label_column"):
        if getattr(rules, field) is not None:
            raise UsageError(f"`{field}` is for tables; {where} has a number for each label")
    part, notes = _part(where, split)
    images, labels = _read(where, part)
    if labels.shape[1] == 1:
        raise InputError(
            f"{where}: {part}_labels has one number for each image, which is its class; pass "
            "`task` single_label"
        )
    names = label_names(_file(where), labels.shape[1])
    cells = ([str(cell) for cell in column] for column in labels.T.tolist())
    table = Table(
        where,
        dict(zip(names, cells, strict=True)),
        range(len(labels)),
        [f"{where}: {part}_labels, row {row}" for row in range(len(labels))],
    )
    known, found = labels_of_table(table, replace(rules, names=rules.names or names))
    return _dataset(where, part, images, known, found, notes)


def _dataset(
    where: Path,
    part: str,
    images: Pixels,
    class_names: tuple[str, ...],
    labels: NDArray[Any],
    notes: list[str],
) -> ImageDataset:
    return ImageDataset(
        where,
        class_names,
        Names.of(f"{part}/{index:05d}" for index in range(len(images))),
        labels,
        sizes(images),
        read_one=reader(images),
        notes=tuple(notes),
    )


def _file_of(where: Path) -> Path | None:
    if where.suffix == SUFFIX:
        return where if where.is_file() else None
    parent = where.parent
    return parent if parent.suffix == SUFFIX and parent.is_file() else None


def _file(where: Path) -> Path:
    file = _file_of(where)
    assert file is not None
    return file


def _part(where: Path, split: Split) -> tuple[str, list[str]]:
    """The part to read, and notes for the log."""
    file, parts = _file(where), _parts_in(where)
    if where != file:
        if where.name not in parts:
            raise InputError(
                f"{where}: there are no {where.name}_images in {file.name}; it has the parts "
                f"{', '.join(parts)}"
            )
        return where.name, []
    if split == "val" and "val" not in parts and "test" in parts:
        return "test", [test_note(f"{file}: has no val_images")]
    if split == "val" and parts == ["train"]:
        return "train", []
    if split not in parts:
        raise InputError(
            f"{file}: has no {split}_images, only the parts {', '.join(parts)}; name one, e.g. "
            f"{file / parts[0]}"
        )
    return split, []


def _parts_in(where: Path) -> list[str]:
    """The parts of an archive.

    Raises:
        InputError: it is damaged, or in another layout.
    """
    file = _file(where)
    try:
        with zipfile.ZipFile(file) as opened:
            names = opened.namelist()
            before = min((member.header_offset for member in opened.infolist()), default=0)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        refuse_stray(file)
        raise InputError(f"{file}: damaged or not a NumPy archive ({one_line(error)})") from None
    if before:  # zipfile passes over them
        raise InputError(
            f"{file}: has {before} bytes before its first array, as files do that cat has put "
            "together; write one anew"
        )
    if len(set(names)) < len(names):
        raise InputError(f"{file}: has a name twice")
    known = [name.removesuffix(".npy") for name in names]
    parts = [part for part in _PARTS if f"{part}_images" in known]
    if not parts:
        raise InputError(
            f"{file}: has no train_images, val_images or test_images (MedMNIST's layout), but "
            f"{one_line(', '.join(known[:8])) or 'nothing'}"
        )
    return parts


def _read(where: Path, part: str) -> tuple[Pixels, NDArray[Any]]:
    """The images of a part, and their labels ``(N, L)``.

    Raises:
        InputError: they are damaged, of other shapes or types, or do not fit each other.
    """
    file = _file(where)
    found = []
    try:
        with zipfile.ZipFile(file) as opened:
            if f"{part}_labels.npy" not in opened.namelist():
                raise ValueError(f"there are no {part}_labels beside {part}_images")
            for kind in ("images", "labels"):
                found.append(_array(opened, f"{part}_{kind}"))
    except (
        *(zipfile.BadZipFile, zlib.error, OSError, EOFError, MemoryError, OverflowError),
        *(ValueError, TypeError, NotImplementedError, RuntimeError, SyntaxError),
    ) as error:
        raise InputError(f"{file}: damaged or unsupported ({one_line(error)})") from None
    images, labels = found
    if images.dtype != np.uint8 or not is_pixels(images.shape):
        raise InputError(
            f"{file}: {part}_images are {images.dtype} of the shape {images.shape}; uint8 of the "
            "shape (N, H, W) or (N, H, W, 3) is needed"
        )
    if labels.dtype.kind not in "iub" or labels.ndim not in (1, 2) or not labels.size:
        raise InputError(
            f"{file}: {part}_labels are {labels.dtype} of the shape {labels.shape}; whole numbers "
            "of the shape (N, 1) or (N, labels) are needed"
        )
    if len(images) != len(labels):
        raise InputError(f"{file}: has {len(images)} {part}_images, but {len(labels)} labels")
    return images, labels.astype(np.int64).reshape(len(labels), -1)


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """An array; its bytes are read only if the archive has as many as its shape needs."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as opened:
        version = npy.read_magic(opened)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name} has the format {version}")
        read_head = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, is_fortran, dtype = read_head(opened)
        if dtype.hasobject:
            raise ValueError(f"{name} has Python objects, which are not read")
        expected, there = math.prod(shape) * dtype.itemsize, info.file_size - opened.tell()
        if expected != there or min(shape, default=0) < 0:
            raise ValueError(f"{name} has {there} bytes, but its shape {shape} needs {expected}")
        data = opened.read()  # to its end, where the sum is checked
    if len(data) != expected:
        raise ValueError(f"{name} is cut short")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")


def label_names(file: Path, count: int) -> tuple[str, ...]:
    """The names of the columns of labels of a file: the lines of ``classes.txt``, or 0, 1, 2 ...

    Raises:
        InputError: the lines are not as many, or one is there twice.
    """
    classes = file.parent / "classes.txt"
    if not classes.is_file():
        return tuple(map(str, range(count)))
    names = tuple(names_of(classes))
    if len(names) != count or len(set(names)) < count:
        raise InputError(f"{classes}: has {len(set(names))} names, but {file} has {count} labels")
    return names
