"""Rows of several files that follow each other: which file has a row, and where."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from densenet121.datasets.sources.read_at import ReadUnchanged

Files = Sequence[tuple[Path, int]]  # each file, and the number of rows before it


def place_of(files: Files, index: int, word: str = "row") -> str:
    """File and row of an image, for messages."""
    file, first = next(found for found in reversed(files) if found[1] <= index)
    return f"{file}, {word} {index - first}"


def places_of(files: Files, count: int, word: str = "row") -> list[str]:
    """``place_of`` each of ``count`` images."""
    return [
        f"{file}, {word} {index - first}"
        for index, (file, first) in enumerate(_file_of_each(files, count))
    ]


def files_of(files: Files, count: int) -> list[Path]:
    """The file of each of ``count`` images."""
    return [file for file, _ in _file_of_each(files, count)]


def file_finder(files: Files) -> Callable[[int], Path]:
    """The function from an image to its file, for any order of images."""
    paths = [file for file, _ in files]
    firsts = np.array([first for _, first in files], dtype=np.int64)
    return lambda index: paths[int(np.searchsorted(firsts, index, side="right")) - 1]


def image_reader(files: Files, positions: Sequence[tuple[int, int]]) -> Callable[[int], bytes]:
    """The function that reads an image; ``positions`` are its first byte and its size."""
    file_of, where = file_finder(files), np.array(positions, dtype=np.int64)
    read_part = ReadUnchanged(file for file, _ in files)
    return lambda index: read_part(file_of(index), *where[index].tolist())


def _file_of_each(files: Files, count: int) -> list[tuple[Path, int]]:
    ends = [first for _, first in files[1:]] + [count]
    return [one for one, end in zip(files, ends, strict=True) for _ in range(one[1], end)]
