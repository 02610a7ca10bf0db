"""A compact sequence of strings, and ``.npz`` files of such sequences and of arrays."""

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


class Names(Sequence[str]):
    """Many strings in two arrays, which need a tenth of the memory of Python strings.

    Args:
        text: all strings, concatenated, in the encoding of the file system.
        ends: ``(N,)`` position where each string ends.
    """

    def __init__(self, text: bytes, ends: NDArray[np.int64]) -> None:
        self.text = text
        self.ends = ends

    @classmethod
    def of(cls, names: Iterable[str | bytes]) -> "Names":
        """Make it from strings."""
        encoded = [os.fsencode(name) for name in names]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        return cls(b"".join(encoded), ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = range(len(self))[index]  # handles negative indices and raises IndexError
        start = int(self.ends[at - 1]) if at else 0
        return os.fsdecode(self.text[start : int(self.ends[at])])

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self.ends.tolist():
            yield os.fsdecode(self.text[start:end])
            start = end

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Names):
            return self.text == other.text and bool(np.array_equal(self.ends, other.ends))
        return isinstance(other, tuple | list) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"<{len(self)} names>"


def to_npz(content: Mapping[str, NDArray[Any] | Names]) -> memoryview:
    """Arrays and names as the bytes of an ``.npz`` file."""
    arrays: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Names):
            arrays[f"{name}_text"] = np.frombuffer(value.text, np.uint8)
            arrays[f"{name}_ends"] = value.ends
        else:
            arrays[name] = value
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getbuffer()


def check_integers(arrays: Mapping[str, Any]) -> None:
    """Refuse what is not one row of integers.

    Raises:
        ValueError: naming it.
    """
    for name, array in arrays.items():
        if array.ndim != 1 or array.dtype.kind != "i":
            raise ValueError(f"{name} is not a row of integers")


def from_npz(file: Path) -> dict[str, Any]:
    """Read what ``to_npz`` wrote.

    Raises:
        Exception: of almost any type, if the file is damaged.
    """
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as npz:
        arrays = {name: npz[name] for name in npz.files}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # numpy gives the bytes of what is no array
            raise ValueError(f"{name} is no array")
    for text in [name for name in arrays if name.endswith("_text")]:
        name = text.removesuffix("_text")
        ends = arrays.pop(f"{name}_ends")
        content = arrays.pop(text).tobytes()
        if (
            ends.ndim != 1
            or ends.dtype != np.int64
            or (np.diff(ends, prepend=0) < 0).any()
            or ends[-1:].sum() != len(content)
        ):
            raise ValueError(f"{name} is damaged")
        arrays[name] = Names(content, ends)
    return arrays
