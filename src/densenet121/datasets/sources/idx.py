"""IDX files, the format of MNIST, Fashion-MNIST and KMNIST, as they are or gzipped.

Layout (http://yann.lecun.com/exdb/mnist): two zeros, the type (8: unsigned bytes), the number of
dimensions, each dimension as a big-endian 32-bit number, then the bytes. Training images are in
``train-images-idx3-ubyte``, test images in ``t10k-images-idx3-ubyte``; some write a dot for the
second dash. Labels are 0, 1, 2 ..., whose names may be in ``classes.txt``.
"""

import gzip
import math
import re
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.image_dataset import ImageDataset, read_whole
from densenet121.datasets.packed_strings import Names
from densenet121.datasets.sources.labels import check_labels
from densenet121.datasets.sources.pixels import is_pixels, reader, sizes
from densenet121.datasets.sources.splits import Split, test_note
from densenet121.utils.errors import InputError, one_line
from densenet121.utils.strays import refuse_stray

_NAME = re.compile(r"(train|t10k)-(images[-.]idx3|labels[-.]idx1)-ubyte(\.gz)?")
_UNSIGNED_BYTES = 8
_MOST_EXPANSION = 1032  # of DEFLATE


def is_idx(folder: Path) -> bool:
    """Whether a folder has such images."""
    return any(part.endswith("images") for part in _parts(folder))


def has_both_parts(folder: Path) -> bool:
    """Whether it has training and test images."""
    return {"train-images", "t10k-images"} <= _parts(folder).keys()


def read_idx(folder: Path, split: Split) -> ImageDataset:
    """The training images, or those of the test set as validation; the only ones there are.

    Raises:
        InputError: a file is missing or damaged, or a label is none.
    """
    parts = _parts(folder)
    name, notes = "train" if split == "train" else "t10k", []
    if not has_both_parts(folder):
        name = "train" if "train-images" in parts else "t10k"
    elif split == "val":
        notes.append(test_note(f"{folder}: IDX files have no validation images"))
    chosen = [_one(folder, parts, f"{name}-{kind}") for kind in ("images", "labels")]
    notes += [
        f"{folder}: {file.name} is read, {parts[key][1].name} beside it is not"
        for key, file in zip((f"{name}-images", f"{name}-labels"), chosen, strict=True)
        if len(parts[key]) > 1
    ]
    images, numbers = _read(chosen[0], 3), _read(chosen[1], 1)
    if len(images) != len(numbers):
        raise InputError(
            f"{chosen[0]}: has {len(images)} images, but {chosen[1].name} has {len(numbers)} labels"
        )
    if not len(images) or not is_pixels(images.shape):
        raise InputError(f"{chosen[0]}: has {' x '.join(map(str, images.shape))} bytes; no images")
    class_names, labels = check_labels(
        numbers.tolist(),
        folder / "classes.txt",
        str(chosen[1]),
        partial=split == "val",
    )
    return ImageDataset(
        folder,
        class_names,
        Names.of(f"{name}/{index:05d}" for index in range(len(images))),
        labels,
        sizes(images),
        read_one=reader(images),
        notes=tuple(notes),
    )


def _parts(folder: Path) -> dict[str, list[Path]]:
    """By "train-images", "t10k-labels" and so on, the files; one that is not gzipped first."""
    found: dict[str, list[Path]] = {}
    for file in sorted(
        folder.glob("t*-ubyte*"), key=lambda file: (file.suffix == ".gz", file.name)
    ):
        match = _NAME.fullmatch(file.name)
        if match and file.is_file():
            found.setdefault(f"{match[1]}-{match[2][:6]}", []).append(file)
    return found


def _one(folder: Path, parts: dict[str, list[Path]], key: str) -> Path:
    if key not in parts:
        dimensions = 3 if key.endswith("images") else 1
        raise InputError(f"{folder}: has no {key}-idx{dimensions}-ubyte, nor one that ends in .gz")
    return parts[key][0]


def _read(file: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array in a file.

    Raises:
        InputError: it is cut short, too long, or of another type.
    """
    start = 4 + 4 * dimensions
    gzipped = file.suffix == ".gz"
    data = _unpack(file, start) if gzipped else read_whole(file)
    if len(data) < start or data[:4] != bytes([0, 0, _UNSIGNED_BYTES, dimensions]):
        refuse_stray(file)
        raise InputError(
            f"{file}: not an IDX file of unsigned bytes in {dimensions} dimensions (it begins with "
            f"{data[:4].hex() or 'nothing'})"
        )
    shape = np.frombuffer(data, ">u4", dimensions, offset=4).tolist()
    expected = math.prod(shape)
    if gzipped and expected <= _MOST_EXPANSION * file.stat().st_size:
        data = _unpack(file, start + expected + 1)
    if len(data) != start + expected:
        raise InputError(
            f"{file}: has {len(data) - start} bytes after its head, which says "
            f"{' x '.join(map(str, shape))} = {expected}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _unpack(file: Path, most: int) -> bytes:
    """At most so many bytes of a gzipped file; if it has no more, its sum is checked."""
    try:
        with gzip.open(file) as opened:
            return opened.read(most)
    except (OSError, EOFError, zlib.error) as error:
        refuse_stray(file)
        raise InputError(f"{file}: damaged or not gzipped ({one_line(error)})") from None
