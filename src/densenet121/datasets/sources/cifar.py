"""CIFAR-10 and CIFAR-100 as published by their authors, in the binary and the Python version.

Layouts: https://www.cs.toronto.edu/~kriz/cifar.html. An image is 3 x 32 x 32 bytes, red plane
first. The Python version is pickled; only numpy arrays and plain values are unpickled.
"""

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.image_dataset import ImageDataset, read_whole
from densenet121.datasets.packed_strings import Names
from densenet121.datasets.sources.splits import Split
from densenet121.datasets.sources.text import names_of
from densenet121.utils.errors import InputError
from densenet121.utils.pickles import check_pickle
from densenet121.utils.strays import refuse_stray

Planes = NDArray[np.uint8]  # (N, 3, 32, 32)
_BYTES = 3 * 32 * 32

# By the file with the class names: the training files, the test files, the number of bytes before
# the pixels in a row of a binary file (the last is the label), the key of the labels in a pickle.
_LAYOUTS = {
    "batches.meta.txt": ([f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"], 1, ""),
    "fine_label_names.txt": (["train.bin"], ["test.bin"], 2, ""),
    "batches.meta": ([f"data_batch_{i}" for i in range(1, 6)], ["test_batch"], 0, "labels"),
    "meta": (["train"], ["test"], 0, "fine_labels"),
}


def is_cifar(folder: Path) -> bool:
    """Whether the folder has one of the four layouts."""
    return _layout(folder) is not None


def read_cifar(folder: Path, split: Split) -> ImageDataset:
    """The training or the test images, without those of missing batches.

    Raises:
        InputError: the split has no batch, or a file is not a CIFAR batch.
    """
    meta = _layout(folder)
    assert meta is not None
    training, test, head, key = _LAYOUTS[meta]
    names = _class_names(folder / meta, key)
    wanted = training if split == "train" else test
    batches = [folder / name for name in wanted if (folder / name).is_file()]
    if not batches:
        raise InputError(f"{folder}: has none of {', '.join(wanted)}")
    parts = [_read_pickle(file, key) if key else _read_binary(file, head) for file in batches]
    labels = np.concatenate([label for _, label in parts]).astype(np.int64)
    if labels.min() < 0 or labels.max() >= len(names):
        raise InputError(
            f"{folder}: labels are {labels.min()} to {labels.max()}, but {meta} has {len(names)} "
            "class names"
        )
    planes = np.concatenate([pixels for pixels, _ in parts])
    paths = [
        f"{file.name}/{i:05d}"
        for file, (p, _) in zip(batches, parts, strict=True)
        for i in range(len(p))
    ]
    return ImageDataset(
        folder,
        names,
        Names.of(paths),
        labels,
        np.full(len(labels), _BYTES, dtype=np.int64),
        read_one=lambda index: np.ascontiguousarray(planes[index].transpose(1, 2, 0)),
        notes=_missing(folder, wanted),
    )


def _missing(folder: Path, wanted: Sequence[str]) -> tuple[str, ...]:
    """A note about batches that are not there, as after a broken copy."""
    names = [name for name in wanted if not (folder / name).is_file()]
    if not names:
        return ()
    return (f"{folder}: {', '.join(names)} is not there, so its images are not read",)


def _layout(folder: Path) -> str | None:
    for meta, (training, test, *_) in _LAYOUTS.items():
        if (folder / meta).is_file() and any((folder / name).is_file() for name in training + test):
            return meta
    return None


def _class_names(meta: Path, key: str) -> tuple[str, ...]:
    if not key:
        return tuple(names_of(meta))
    content = _unpickle(meta)
    found = content.get("label_names" if key == "labels" else "fine_label_names")
    if not isinstance(found, list) or not all(isinstance(name, bytes | str) for name in found):
        raise InputError(f"{meta}: has no class names")
    return tuple(_text(name) for name in found)


def _read_binary(file: Path, head: int) -> tuple[Planes, NDArray[Any]]:
    row = head + _BYTES
    size = file.stat().st_size
    if size == 0 or size % row:
        refuse_stray(file)
        raise InputError(f"{file}: its {size} bytes are not a multiple of {row} bytes per image")
    rows = np.fromfile(file, dtype=np.uint8).reshape(-1, row)
    return rows[:, head:].reshape(-1, 3, 32, 32), rows[:, head - 1]


def _read_pickle(file: Path, key: str) -> tuple[Planes, NDArray[Any]]:
    content = _unpickle(file)
    pixels, labels = content.get("data"), content.get(key)
    good = (
        isinstance(pixels, np.ndarray)
        and pixels.dtype == np.uint8
        and pixels.ndim == 2
        and pixels.shape[1] == _BYTES
        and isinstance(labels, list)
        and len(labels) == len(pixels)
        and all(isinstance(label, int) for label in labels)
    )
    if not good or pixels is None:
        raise InputError(
            f"{file}: not a CIFAR batch (needs data of {_BYTES} bytes a row and {key})"
        )
    return pixels.reshape(-1, 3, 32, 32), np.array(labels)


class _ArraysOnly(pickle.Unpickler):
    """Refuses every name except those of a pickled numpy array of numbers."""

    _ALLOWED = frozenset(
        {(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
        | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it uses {module}.{name}, which is not allowed")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _unpickle(file: Path) -> dict[str, Any]:
    try:
        data = io.BytesIO(read_whole(file))
        check_pickle(data)
        data.seek(0)
        # bytes: the files come from Python 2, whose strings are bytes
        content = _ArraysOnly(data, encoding="bytes").load()
    except InputError:
        raise
    except Exception as error:  # damaged data raises exceptions of almost any type
        refuse_stray(file)
        raise InputError(f"{file}: cannot be unpickled ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: not a CIFAR batch (it is a {type(content).__name__})")
    return {_text(key): value for key, value in content.items()}


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
