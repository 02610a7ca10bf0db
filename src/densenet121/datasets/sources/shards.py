"""Tar shards in the WebDataset layout, read by offset: random access to images, as in a folder.

Layout (https://github.com/webdataset/webdataset): the files of a sample share their folder and
their name up to its first dot: ``000017.jpg``, ``000017.cls`` (the label as text), ``000017.json``
({"path": ..., "label": ...}). They need not be adjacent. Where no sample of all the shards has a
.cls or .json, the folder of an image is its class (``tar_samples.py``). ``densenet121 pack`` also
writes ``classes.txt`` with the class names and ``index.npz`` with the offsets beside the shards.
"""

import os
import tarfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.decoding import MAX_BYTES
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.packed_strings import Names, check_integers, from_npz, to_npz
from densenet121.datasets.sources.labels import check_labels, is_number
from densenet121.datasets.sources.layout import packed_in, refuse_packed_splits
from densenet121.datasets.sources.read_at import ReadUnchanged
from densenet121.datasets.sources.rows import unique_names
from densenet121.datasets.sources.splits import (
    Split,
    files_of_split,
    have_own_splits,
    refuse_incomplete,
)
from densenet121.datasets.sources.tar_samples import label_samples, read_members
from densenet121.utils.errors import InputError

INDEX = "index.npz"
CLASSES = "classes.txt"


@dataclass(frozen=True)
class Index:
    """Positions of the images in shards.

    Attributes:
        shards: file names, in byte order.
        shard_sizes: ``(num_shards,)`` int64, bytes of each file; a changed size is detected.
        shard: ``(N,)`` int32, the shard of each image.
        offsets: ``(N,)`` int64, position of its first byte.
        sizes: ``(N,)`` int64, its size in bytes.
        paths: its path.
        labels: its label: a class name or a number; of several labels, the JSON text of all that
            its .json has but the path.
    """

    shards: tuple[str, ...]
    shard_sizes: NDArray[np.int64]
    shard: NDArray[np.int32]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    paths: Names
    labels: Names

    def to_npz(self) -> memoryview:
        """The bytes of the file that ``load`` reads."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        return to_npz({**content, "shards": Names.of(self.shards)})

    @classmethod
    def load(cls, file: Path) -> "Index":
        """Read an index.

        Raises:
            InputError: it is damaged.
        """
        try:
            content = from_npz(file)
            index = cls(**{**content, "shards": tuple(content["shards"])})
            lengths = {
                len(array)
                for array in (index.shard, index.offsets, index.sizes, index.paths, index.labels)
            }
            numbers = ("shard_sizes", "shard", "offsets", "sizes")
            check_integers({name: getattr(index, name) for name in numbers})
            if len(lengths) != 1 or not index.is_in_shards():
                raise ValueError("its parts are inconsistent")
        except Exception as error:  # a damaged zip makes numpy raise exceptions of almost any type
            raise InputError(
                f"{file}: damaged ({error}); remove it, and it will be made again"
            ) from None
        return index

    def is_in_shards(self) -> bool:
        """Whether every image is a part of its shard, not too large."""
        if len(self.shards) != len(self.shard_sizes):
            return False
        if self.shard.min() < 0 or self.shard.max() >= len(self.shards):
            return False
        rest = self.shard_sizes[self.shard] - self.offsets
        return bool(
            (self.offsets >= 0).all()
            and (self.sizes >= 0).all()
            and (self.sizes <= np.minimum(rest, MAX_BYTES)).all()
        )

    @property
    def has_several_labels(self) -> bool:
        """Whether ``labels`` are JSON texts."""
        return len(self.labels) > 0 and self.labels[0].startswith("{")

    def equals(self, other: "Index") -> bool:
        """Whether both have the same shards, images and labels."""
        arrays = ("shard_sizes", "shard", "offsets", "sizes")
        names = ("shards", "paths", "labels")
        return all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in arrays
        ) and all(tuple(getattr(self, name)) == tuple(getattr(other, name)) for name in names)

    def fits(self, files: Sequence[Path]) -> bool:
        """Whether it is the index of these shards, by name and size."""
        return self.shards == tuple(file.name for file in files) and self.shard_sizes.tolist() == [
            file.stat().st_size for file in files
        ]


def find_shards(where: Path, split: Split | None = None) -> list[Path]:
    """The shards of a folder in byte order, or the single shard ``where``.

    Args:
        where: the folder or the file.
        split: only the shards of this split, if some are named after training and others after
            validation or test.
    """
    return chosen_shards(where, split)[0]


def chosen_shards(where: Path, split: Split | None) -> tuple[list[Path], list[str]]:
    """``find_shards``, and notes for the log.

    Raises:
        InputError: of a numbered set, a shard is missing.
    """
    if where.is_file():
        return [where] if where.suffix == ".tar" else [], []
    files = packed_in(where, ".tar")
    notes: list[str] = []
    if split and have_own_splits(files):
        files, notes = files_of_split(files, split)
    refuse_incomplete(where, files)
    return files, notes


def read_shards(where: Path, split: Split | None = None, *, partial: bool = False) -> ImageDataset:
    """The images of the shards in a folder, or of one shard, in their order.

    Args:
        where: the folder or the file.
        split: as in ``find_shards``.
        partial: allow missing classes, as validation images may have.

    Raises:
        InputError: a shard is damaged, or a sample has no label or two images.
    """
    files, notes = chosen_shards(where, split)
    index = index_shards(where, files)
    if index.has_several_labels:
        raise InputError(
            f"{where}: its shards have several labels per image; pass `task` multilabel"
        )
    folder = files[0].parent
    found = list(index.labels)
    class_names, labels = check_labels(
        [int(label) for label in found] if all(map(is_number, found)) else found,
        folder / CLASSES,
        str(where),
        partial=partial,
        place=lambda i: f"{files[index.shard[i]]}: {index.paths[i]}",
    )

    return ImageDataset(
        where,
        class_names,
        index.paths,
        labels,
        index.sizes,
        read_one=reader(files, index),
        notes=(*notes, *shard_notes(files)),
    )


def reader(files: Sequence[Path], index: Index) -> Callable[[int], bytes]:
    """The function that reads the image of an index."""
    read_part = ReadUnchanged(files)

    def read_one(number: int) -> bytes:
        file, size = files[index.shard[number]], int(index.sizes[number])
        return read_part(file, int(index.offsets[number]), size)

    return read_one


def cut_short(files: Sequence[Path]) -> list[str]:
    """A note on shards without the two empty blocks at the end of a tar file."""
    cut = []
    for file in files:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - 2 * tarfile.BLOCKSIZE))
            if opened.read().strip(b"\0"):
                cut.append(file)
    if not cut:
        return []
    return [
        f"{cut[0]}: has no end of a tar file, so it may have been cut short ({len(cut)} of "
        f"{len(files)} shards)"
    ]


def index_beside(where: Path, files: Sequence[Path]) -> Index | None:
    """The index beside the shards, if it is theirs and no shard is newer.

    Raises:
        InputError: it is damaged, or a shard of a folder is missing.
    """
    beside = files[0].parent / INDEX
    if not beside.is_file():
        return None
    index = Index.load(beside)
    if index.fits(files):
        return None if _newer(files) else index
    missing = [name for name in index.shards if not beside.with_name(name).is_file()]
    if where.is_dir() and 0 < len(missing) < len(index.shards):
        raise InputError(
            f"{where}: {missing[0]} is missing, {len(missing)} of the {len(index.shards)} shards "
            f"that {INDEX} names; to read the others alone, remove {INDEX}"
        )
    return None


def _newer(files: Sequence[Path]) -> list[Path]:
    """The shards that were written after the index beside them.

    Tar files are filled up to a multiple of 10,240 bytes, so one with other labels may have the
    size that the index has.
    """
    time = files[0].with_name(INDEX).stat().st_mtime_ns
    return [file for file in files if file.stat().st_mtime_ns > time]


def confirm(files: Sequence[Path], found: Index, time: int) -> None:
    """Give an index that is older than its shards their time, if they are as it says.

    So are shards that were copied with new times. Else ``shard_notes`` says that it is not used.

    Args:
        files: the shards.
        found: what was read from them.
        time: ``newest`` before they were read; what is written later is newer.
    """
    beside = files[0].with_name(INDEX)
    if beside.is_file() and (old := Index.load(beside)).fits(files) and old.equals(found):
        with suppress(OSError):
            os.utime(beside, ns=(time, time))


def newest(files: Sequence[Path]) -> int:
    """The time at which the last of the shards was written, in nanoseconds."""
    return max(file.stat().st_mtime_ns for file in files)


def shard_notes(files: Sequence[Path]) -> list[str]:
    """Notes on shards that may have been cut short, and on an index that is older than they are."""
    notes = cut_short(files)
    beside = files[0].with_name(INDEX)
    if beside.is_file() and (newer := _newer(files)):
        notes.append(
            f"{beside}: is older than {newer[0].name} ({len(newer)} of {len(files)} shards) and "
            "has other images or labels, or cannot be changed: the shards themselves were read; "
            "remove it"
        )
    return notes


def image_names(files: Sequence[Path], shards: Sequence[int], paths: Sequence[str]) -> Names:
    """The path of each image, each different: names may begin anew in each of the ``shards``."""
    if len(set(paths)) == len(paths):
        return Names.of(paths)
    pairs = zip(shards, paths, strict=True)
    return unique_names([f"{files[shard].name}/{path}" for shard, path in pairs])


def index_shards(where: Path, files: Sequence[Path] | None = None) -> Index:
    """Positions of the images: from the index beside the shards, else from all tar headers.

    Raises:
        InputError: as ``read_shards``.
    """
    files = files or find_shards(where)
    index = index_beside(where, files)
    if index is not None:
        return index
    time = newest(files)
    samples = label_samples(files, map(read_members, files))
    paths = [sample.path for sample in samples]
    if not paths:
        raise InputError(f"{where}: no images in {', '.join(file.name for file in files[:8])}")
    refuse_packed_splits(str(where), [sample.member for sample in samples])
    shards = [sample.shard for sample in samples]
    found = Index(
        tuple(file.name for file in files),
        np.array([file.stat().st_size for file in files], dtype=np.int64),
        np.array(shards, dtype=np.int32),
        np.array([sample.offset for sample in samples], dtype=np.int64),
        np.array([sample.size for sample in samples], dtype=np.int64),
        image_names(files, shards, paths),
        Names.of(sample.label for sample in samples),
    )
    confirm(files, found, time)
    return found
