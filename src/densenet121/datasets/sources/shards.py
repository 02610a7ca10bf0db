"""Tar shards in the WebDataset layout, read by offset: random access to images, as in a folder.

Layout (https://github.com/webdataset/webdataset): the files of a sample are adjacent and share
their file name up to its first dot: ``000017.jpg``, ``000017.cls`` (the label as text),
``000017.json`` ({"path": ..., "label": ...}). ``densenet121 pack`` also writes ``classes.txt`` with
the class names and ``index.npz`` with the offsets beside the shards.
"""

import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.decoding import EXTENSIONS, MAX_BYTES
from densenet121.datasets.image_dataset import ImageDataset, check_labels
from densenet121.datasets.packed_strings import Names, from_npz, to_npz
from densenet121.utils.errors import InputError

INDEX = "index.npz"
CLASSES = "classes.txt"
_MOST_NOTE_BYTES = 2**16  # maximum size of a .cls or .json


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
        labels: its label: a class name or a number.
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
            if len(lengths) != 1 or max(index.sizes) > MAX_BYTES or min(index.offsets) < 0:
                raise ValueError("its parts are inconsistent")
        except Exception as error:  # a damaged zip makes numpy raise exceptions of almost any type
            raise InputError(
                f"{file}: damaged ({error}); remove it, and it will be made again"
            ) from None
        return index

    def fits(self, files: Sequence[Path]) -> bool:
        """Whether it is the index of these shards, by name and size."""
        return self.shards == tuple(file.name for file in files) and self.shard_sizes.tolist() == [
            file.stat().st_size for file in files
        ]


def find_shards(where: Path) -> list[Path]:
    """The shards of a folder in byte order, or the single shard ``where``."""
    if where.is_file():
        return [where] if where.suffix == ".tar" else []
    found = [file for file in where.glob("*.tar") if file.name[0] != "." and file.is_file()]
    return sorted(found, key=lambda file: os.fsencode(file.name))


def read_shards(where: Path, index: Index | None = None) -> ImageDataset:
    """The images of the shards in a folder, or of one shard, in their order.

    Args:
        where: the folder or the file.
        index: the result of ``index_shards`` for these shards.

    Raises:
        InputError: a shard is damaged, or a sample has no label or two images.
    """
    files = find_shards(where)
    index = index or index_shards(where)
    folder = files[0].parent
    class_names, labels = check_labels(list(index.labels), folder / CLASSES, str(where))
    chosen = index

    def read_one(number: int) -> bytes:
        file, size = files[chosen.shard[number]], int(chosen.sizes[number])
        try:
            descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:
                data = os.pread(descriptor, size, int(chosen.offsets[number]))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise InputError(f"{file}: {error.strerror}") from None
        if len(data) != size:
            raise InputError(f"{file} is shorter than when it was indexed")
        return data

    return ImageDataset(where, class_names, index.paths, labels, index.sizes, read_one=read_one)


def index_shards(where: Path) -> Index:
    """Positions of the images: from the index beside the shards, else from all tar headers.

    Raises:
        InputError: as ``read_shards``.
    """
    files = find_shards(where)
    beside = files[0].parent / INDEX
    if beside.is_file():
        index = Index.load(beside)
        if index.fits(files):
            return index
    shard, offsets, sizes, paths, labels = [], [], [], [], []
    for number, file in enumerate(files):
        for sample in _samples(file):
            shard.append(number)
            offsets.append(sample.offset)
            sizes.append(sample.size)
            paths.append(sample.path)
            labels.append(sample.label)
    if not paths:
        raise InputError(f"{where}: no images in {', '.join(file.name for file in files[:8])}")
    return Index(
        tuple(file.name for file in files),
        np.array([file.stat().st_size for file in files], dtype=np.int64),
        np.array(shard, dtype=np.int32),
        np.array(offsets, dtype=np.int64),
        np.array(sizes, dtype=np.int64),
        Names.of(paths),
        Names.of(labels),
    )


@dataclass
class _Sample:
    key: str
    path: str = ""
    label: str = ""
    offset: int = 0
    size: int = -1


def _samples(file: Path) -> list[_Sample]:
    found: list[_Sample] = []
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                folder, _, base = member.name.rpartition("/")
                if not member.isreg() or base.startswith("."):
                    continue
                stem, _, extension = base.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if not found or found[-1].key != key:
                    found.append(_Sample(key))
                _add(found[-1], tar, member, extension.lower())
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise InputError(f"{file}: damaged or not a tar file ({error})") from None
    samples = [sample for sample in found if sample.size >= 0]
    for sample in samples:
        # A sample without a label of its own belongs to the class named by its folder.
        sample.label = sample.label or os.path.dirname(sample.key).rpartition("/")[2]  # noqa: PTH120
        if not sample.label:
            raise InputError(
                f"{file}: {sample.path} has no label: no .cls, no .json with a label, no folder"
            )
    return samples


def _add(sample: _Sample, tar: tarfile.TarFile, member: tarfile.TarInfo, extension: str) -> None:
    if "." + extension.rpartition(".")[2] in EXTENSIONS:
        if sample.size >= 0:
            raise ValueError(f"two images have the name {sample.key}")
        sample.offset, sample.size = member.offset_data, member.size
        sample.path = sample.path or member.name
        if member.size > MAX_BYTES:
            raise ValueError(f"{member.name}: {member.size} bytes; the limit is {MAX_BYTES}")
    elif extension in ("cls", "json") and member.size <= _MOST_NOTE_BYTES:
        content = tar.extractfile(member)
        text = content.read().decode("utf-8", "surrogateescape") if content else ""
        if extension == "cls":
            sample.label = text.strip()
            return
        note = json.loads(text)
        if isinstance(note, dict):
            path, label = note.get("path"), note.get("label")
            sample.path = path if isinstance(path, str) and path else sample.path
            if not sample.label and isinstance(label, int | str) and not isinstance(label, bool):
                sample.label = str(label)
