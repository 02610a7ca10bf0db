"""Parquet files with encoded images, the format of datasets on the Hugging Face hub.

An image is a struct {bytes, path} or binary, in a column called image (or img, picture). Its class
is an integer or a name in a column called label (labels, class, fine_label). Class names come from
the schema metadata of the ``datasets`` library, or from ``classes.txt``. An image without a class,
or with several, is refused.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.packed_strings import Names
from densenet121.datasets.sources.file_rows import place_of
from densenet121.datasets.sources.labels import check_labels
from densenet121.datasets.sources.layout import packed_in
from densenet121.datasets.sources.row_groups import RowGroups, encoded_image
from densenet121.datasets.sources.rows import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    Label,
    class_of,
    column_of,
    label_notes,
    numbers_of,
    unique_names,
)
from densenet121.datasets.sources.splits import (
    Split,
    refuse_incomplete,
    refuse_split_rows,
    required_files,
    split_columns,
)
from densenet121.utils.errors import InputError, UsageError, one_line
from densenet121.utils.json_values import parse_json
from densenet121.utils.strays import refuse_stray

_ROWS = 16  # that are unpacked at a time when a file is opened
# A row group may unpack to so many bytes, and to more if the file is large, too.
_MOST_UNPACKED, _MOST_RATIO = 2**30, 100


def read_parquet(where: Path, split: Split, *, partial: bool = False) -> ImageDataset:
    """The images of a Parquet file, or of those of a folder, in their order.

    Of a folder whose files are named after splits, those of ``split`` are read; test files are
    taken for validation only if there are no others.

    A row group is read as a whole and cached. If the files are larger than the cache, a random
    order reads each group many times: ``densenet121 pack`` turns them into shards.

    Args:
        where: the file or the folder.
        split: the files of a folder to read.
        partial: allow missing classes, as validation images may have.

    Raises:
        UsageError: pyarrow is not installed, or the folder has no file of the split.
        InputError: a column is missing, an image has no class, or a file cannot be read.
    """
    rows = _Rows()
    files, notes = read_files(where, split, rows.add)
    if not rows.labels:
        raise InputError(f"{where}: no images")
    for name, values in rows.splits.items():
        refuse_split_rows(where, f"the column {name}", values)
    if rows.names and all(isinstance(label, int) for label in rows.labels):
        class_names, numbers = tuple(rows.names), numbers_of(rows.labels, rows.names, rows.place)
    else:
        class_names, numbers = check_labels(
            rows.labels,
            files[0].parent / "classes.txt",
            str(where),
            partial=partial,
            place=rows.place,
        )
    return ImageDataset(
        where,
        class_names,
        rows.names_of_images(),
        numbers,
        np.array(rows.sizes, dtype=np.int64),
        read_one=rows.reader(),
        notes=(*notes, *label_notes(where, rows.columns, rows.key)),
    )


def read_files(
    where: Path, split: Split | None, add: Callable[[Path, Any], None]
) -> tuple[list[Path], list[str]]:
    """Call ``add`` with each file of a split and its reader; the files, and notes for the log.

    Raises:
        UsageError: pyarrow is not installed, or the folder has no file of the split.
        InputError: a file cannot be read, or is missing in a numbered set.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise UsageError(
            f"{where}: Parquet needs pyarrow; pip install 'densenet121[parquet]'"
        ) from None
    files: list[Path] = [where]
    notes: list[str] = []
    if not where.is_file():
        files, notes = _files(where, split)
    for file in files:
        try:
            add(file, pyarrow.parquet.ParquetFile(file, page_checksum_verification=True))
        except (pyarrow.ArrowException, OSError, TypeError, KeyError, UnicodeDecodeError) as error:
            refuse_stray(file)
            # pyarrow writes several lines
            raise InputError(f"{file}: not a Parquet file of images ({one_line(error)})") from None
    return files, notes


@dataclass
class ImageRows:
    """The images of the files.

    Attributes:
        groups: file and number of each row group.
        starts: the first image of each group.
        paths: the path of each image.
        sizes: its bytes.
        files: each file, and the number of images before it.
    """

    groups: list[tuple[Path, int]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    files: list[tuple[Path, int]] = field(default_factory=list)

    def add_file(self, file: Path, reader: Any, image: str, others: list[str]) -> Iterator[Any]:
        """Add the images of a file; give its rows a few at a time, with these other columns.

        A file may say in a few bytes that one image, or one text, stands in every row.

        Raises:
            InputError: an image has no bytes, or the file unpacks to far more than it has.
        """
        most = max(_MOST_UNPACKED, _MOST_RATIO * file.stat().st_size)
        texts = 0  # bytes that are kept, unlike those of images
        for number in range(reader.num_row_groups):
            self.groups.append((file, number))
            self.starts.append(len(self.paths))
            unpacked = texts
            for packed in reader.iter_batches(_ROWS, row_groups=[number], columns=[image, *others]):
                rows = _without_dictionaries(packed)
                yield rows
                images = self._add_images(file, rows.column(image))
                unpacked += max(rows.nbytes, images)
                texts += max(rows.nbytes - images, 0)
                if unpacked > most:
                    raise InputError(
                        f"{file}: row group {number} unpacks to more than {most} bytes, though the "
                        f"file has {file.stat().st_size}; write its images as they are, once each"
                    )

    def _add_images(self, file: Path, column: Any) -> int:
        """Add some images; their bytes."""
        first = len(self.sizes)
        for value in column.to_pylist():
            try:
                data, path = encoded_image(value)
            except TypeError as error:
                raise InputError(f"{self.place(len(self.paths))}: {error}") from None
            self.sizes.append(len(data))
            self.paths.append(path or f"{file.name}/{len(self.paths):08d}")
        return sum(self.sizes[first:])

    def place(self, index: int) -> str:
        """File and row of an image, for messages."""
        return place_of(self.files, index)

    def names_of_images(self) -> Names:
        """The paths, each different: the hub stores only file names, without folders."""
        return unique_names(self.paths)

    def reader(self) -> Callable[[int], bytes]:
        """The function that reads an image."""
        return RowGroups(self.groups, np.array(self.starts), self.sizes).read


@dataclass
class _Rows(ImageRows):
    """The images with their classes, and the class names of the first file that has them.

    The column ``key`` of the classes is that of the first file, whose columns are ``columns``.
    ``splits`` are the texts in columns that are called like one of splits.
    """

    key: str = ""
    columns: list[str] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    splits: dict[str, set[object]] = field(default_factory=dict)

    def add(self, file: Path, reader: Any) -> None:
        """Add the rows of a file."""
        schema = reader.schema_arrow
        image = column_of(file, schema.names, IMAGE_COLUMNS)
        label = column_of(file, schema.names, (self.key,) if self.key else LABEL_COLUMNS)
        self.key, self.columns = label, self.columns or schema.names
        found = class_names_of(schema.metadata or {}, label)
        self.names = same_names(file, label, self.names, found)
        self.files.append((file, len(self.labels)))
        splits = split_columns(schema.names)
        for rows in self.add_file(file, reader, image, [label, *splits]):
            for name in splits:
                texts = (text for text in rows.column(name).to_pylist() if isinstance(text, str))
                self.splits.setdefault(name, set()).update(texts)
            for value in rows.column(label).to_pylist():
                self.labels.append(class_of(value, self.place(len(self.labels))))


def _without_dictionaries(rows: Any) -> Any:
    """Rows in which each value has its own bytes."""
    decoded = [
        getattr(column, "dictionary_decode", lambda c=column: c)() for column in rows.columns
    ]
    return type(rows).from_arrays(decoded, rows.schema.names)


def _files(where: Path, split: Split | None) -> tuple[list[Path], list[str]]:
    """The files of a folder for a split, or all; and notes."""
    files = packed_in(where, ".parquet")
    if split is not None:
        return required_files(where, files, split, "Parquet")
    refuse_incomplete(where, files)
    return files, []


def class_names_of(metadata: dict[bytes, bytes], label: str) -> list[str]:
    """Names of a column of ClassLabel, or of lists of them, from the metadata of datasets."""
    try:
        features = parse_json(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return []
    return names_in_features(features, label)


def same_names(file: Path, label: str, known: list[str], found: list[str]) -> list[str]:
    """The names of the numbers in a column, which every file that has some must have alike.

    Args:
        file: the file that has ``found``, for messages.
        label: the column.
        known: the names of the files before it.
        found: its own.

    Raises:
        InputError: the same number means another class in this file.
    """
    for number, (before, name) in enumerate(zip(known, found, strict=False)):
        if name != before:
            raise InputError(
                f"{file}: the number {number} in the column {label} is {name}, but {before} in the "
                "files before it; write all files with the same names in the same order"
            )
    return max(known, found, key=len)


def names_in_features(features: Any, label: str) -> list[str]:
    """Names of a column of ClassLabel, or of lists of them, from the features of datasets."""
    try:
        feature = features[label]
        feature = feature[0] if isinstance(feature, list) else feature.get("feature") or feature
        names = feature["names"]
    except (KeyError, TypeError, AttributeError, IndexError):
        return []
    return names if isinstance(names, list) and all(isinstance(n, str) for n in names) else []
