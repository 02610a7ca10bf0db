"""A list of images in a file: one ``path label`` per line, or CSV."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from densenet121.datasets.image_dataset import ImageDataset, check_labels, read_whole
from densenet121.datasets.packed_strings import Names
from densenet121.utils.errors import InputError

SUFFIXES = (".txt", ".lst", ".csv", ".tsv")
PATH_COLUMNS = ("path", "image", "file", "filename", "image_path", "filepath")
LABEL_COLUMNS = ("label", "class", "target", "class_name")


def read_list(file: Path) -> ImageDataset:
    """The images listed in ``file``, in its order.

    Paths are relative to the folder of the list. In ``.txt`` and ``.lst`` the label is the last
    word of the line, so paths may have spaces; empty lines and lines that begin with # are skipped.
    ``.csv`` and ``.tsv`` have a header that names a path and a label column, or two columns.
    ``classes.txt`` beside the list, if it exists, has the class names in order.

    Raises:
        InputError: no label, no such file, or an image is listed twice; the text names the line.
    """
    text = read_whole(file).decode("utf-8-sig", "surrogateescape")
    rows = _table(file, text) if file.suffix.lower() in (".csv", ".tsv") else _lines(file, text)
    root = file.parent
    lines: dict[str, int] = {}
    labels: list[str] = []
    sizes: list[int] = []
    for line, path, label in rows:
        if path in lines:
            raise InputError(f"{file}, line {line}: {path} is already in line {lines[path]}")
        lines[path] = line
        labels.append(label)
        try:
            sizes.append((root / path).stat().st_size)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{file}, line {line}: {root / path}: {reason}") from None
    if not lines:
        raise InputError(f"{file}: has no images; each line needs a path and a label")
    class_names, numbers = check_labels(labels, root / "classes.txt", str(file))
    return ImageDataset(
        root, class_names, Names.of(lines), numbers, np.array(sizes, dtype=np.int64)
    )


def _lines(file: Path, text: str) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.rsplit(maxsplit=1)
        if len(words) != 2:
            raise InputError(f'{file}, line {number}: "{line}" is not a path and a label')
        yield number, words[0].strip(), words[1]


def _table(file: Path, text: str) -> Iterator[tuple[int, str, str]]:
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    path_at, label_at, is_first = 0, 1, True
    try:
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            header = [cell.strip().lower() for cell in row]
            own = [name in header for name in (*PATH_COLUMNS, *LABEL_COLUMNS)]
            if is_first and any(own):
                path_at = _column(file, header, PATH_COLUMNS)
                label_at = _column(file, header, LABEL_COLUMNS)
            elif len(row) <= max(path_at, label_at) or not row[label_at].strip():
                raise InputError(f"{file}, line {rows.line_num}: no path or no label")
            else:
                yield rows.line_num, row[path_at].strip(), row[label_at].strip()
            is_first = False
    except csv.Error as error:
        raise InputError(f"{file}, line {rows.line_num}: {error}") from None


def _column(file: Path, header: list[str], names: tuple[str, ...]) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    raise InputError(f"{file}: no column named {', '.join(names)}; it has {', '.join(header)}")
