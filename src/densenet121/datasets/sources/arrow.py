"""Folders that ``save_to_disk`` of Hugging Face datasets writes: ``state.json`` and Arrow streams.

``state.json`` names the files in their order, ``dataset_info.json`` has the features with the names
of the classes. Images and labels are as in Parquet files. The place of every image in its file is
found when the folder is opened, so any order reads only what it needs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from densenet121.datasets.decoding import MAX_BYTES
from densenet121.datasets.image_dataset import ImageDataset, read_whole
from densenet121.datasets.sources.file_rows import image_reader, place_of
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.labels import check_labels
from densenet121.datasets.sources.parquet import names_in_features
from densenet121.datasets.sources.rows import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    LabelColumns,
    class_of,
    column_of,
    label_notes,
    numbers_of,
    unique_names,
)
from densenet121.datasets.sources.splits import Split, refuse_split_rows, split_columns
from densenet121.utils.errors import InputError, UsageError, one_line
from densenet121.utils.json_values import parse_json
from densenet121.utils.strays import refuse_stray

STATE, _INFO = "state.json", "dataset_info.json"
_END = b"\xff\xff\xff\xff\0\0\0\0"  # of a stream


def read_arrow(where: Path, split: Split, *, partial: bool = False) -> ImageDataset:
    """The images of a folder, in their order.

    Args:
        where: the folder.
        split: not used: a folder is one split.
        partial: allow missing classes, as validation images may have.

    Raises:
        UsageError: pyarrow is not installed.
        InputError: a file is missing or damaged, or an image has no class or no bytes.
    """
    rows = _read(where)
    key = column_of(where, rows.names, LABEL_COLUMNS)
    labels = [
        class_of(value, rows.place(index)) for index, value in enumerate(rows.values(where, key))
    ]
    for name in split_columns(rows.names):
        refuse_split_rows(where, f"the column {name}", rows.values(where, name))
    known = names_in_features(rows.features, key)
    if known and all(isinstance(label, int) for label in labels):
        class_names, numbers = tuple(known), numbers_of(labels, known, rows.place)
    else:
        class_names, numbers = check_labels(
            labels,
            where / "classes.txt",
            str(where),
            partial=partial,
            place=rows.place,
        )
    notes = label_notes(where, rows.names, key)
    return rows.dataset(where, class_names, numbers).with_notes(*notes)


def read_label_arrow(where: Path, rules: LabelRules, split: Split) -> ImageDataset:
    """As ``read_arrow``, with several labels of each image, as in Parquet files.

    Raises:
        InputError, UsageError: as ``read_arrow``; or a label cannot be used.
    """
    from pyarrow import types

    rows = _read(where)
    columns = LabelColumns()
    for column in rows.tables[0].schema:
        if column.name != rows.image and not (
            types.is_binary(column.type) or types.is_large_binary(column.type)
        ):
            target = columns.nested if types.is_nested(column.type) else columns.cells
            target[column.name] = rows.values(where, column.name)
            columns.names[column.name] = names_in_features(rows.features, column.name)
    places = [rows.place(index) for index in range(len(rows.paths))]
    class_names, labels, cells = columns.labels(where, places, where / "classes.txt", rules)
    return rows.dataset(where, class_names, labels, cells)


def _read(where: Path) -> "_Rows":
    """The rows of a folder.

    Raises:
        UsageError, InputError: as ``read_arrow``.
    """
    try:
        import pyarrow
    except ImportError:
        raise UsageError(
            f"{where}: Arrow needs pyarrow; pip install 'densenet121[parquet]'"
        ) from None
    if where.is_file():
        raise InputError(f"{where}: is one file of a folder of datasets; pass {where.parent}")
    features = _json(where / _INFO).get("features")
    rows = _Rows(features if isinstance(features, dict) else {})
    for file in _files(where):
        try:
            rows.add(file, pyarrow)
        except (pyarrow.ArrowException, OSError, TypeError, ValueError) as error:
            refuse_stray(file)
            raise InputError(f"{file}: damaged or unsupported ({one_line(error)})") from None
    if not rows.paths:
        raise InputError(f"{where}: no images")
    return rows


def _files(where: Path) -> list[Path]:
    """The files of a folder, in their order.

    Raises:
        InputError: it is not a folder of save_to_disk, has indices of rows, or lacks a file.
    """
    state = _json(where / STATE)
    listed = state.get("_data_files")
    listed = listed if isinstance(listed, list) else []
    names = [one.get("filename") if isinstance(one, dict) else None for one in listed]
    # A name with a folder in it could be any file of the machine.
    if not names or not all(isinstance(n, str) and n and Path(n).name == n for n in names):
        raise InputError(f"{where / STATE}: names no files of data")
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise InputError(
            f"{where / STATE}: has indices of rows, as old versions of datasets wrote; load it "
            "there, call flatten_indices and save it again"
        )
    files = [where / str(name) for name in names]
    there = {file.name for file in where.iterdir()}
    if missing := [file for file in files if file.name not in there]:
        raise InputError(f"{one_line(missing[0])[:200]}: is missing, but {STATE} names it")
    if len(set(files)) < len(files):
        raise InputError(f"{where / STATE}: names a file twice")
    return files


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(
            f"{file}: is missing; Arrow files are read from folders that save_to_disk of datasets "
            "wrote"
        )
    try:
        content = parse_json(read_whole(file))
    except ValueError as error:
        content = error
    if not isinstance(content, dict):
        refuse_stray(file)
        raise InputError(f"{file}: is no JSON object ({content!s:.60})")
    return content


@dataclass
class _Rows:
    """The rows of the files.

    Attributes:
        features: those of ``dataset_info.json``.
        tables: the rows of each file.
        files: each file, and the number of rows before it.
        image: the column of images.
        positions: of each image its first byte and its size.
        paths: its path.
    """

    features: dict[str, Any]
    tables: list[Any] = field(default_factory=list)
    files: list[tuple[Path, int]] = field(default_factory=list)
    image: str = ""
    positions: list[tuple[int, int]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The columns."""
        return list(self.tables[0].column_names)

    def add(self, file: Path, pyarrow: Any) -> None:
        """Add the rows of a file.

        Raises:
            InputError: it is cut short, or an image has no bytes.
            pyarrow.ArrowException, OSError, TypeError, ValueError: it is damaged.
        """
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - len(_END)))
            if opened.read() != _END:
                refuse_stray(file)
                raise InputError(f"{file}: has no end of an Arrow stream, so it is cut short")
        with pyarrow.memory_map(str(file)) as mapped:
            whole = mapped.read_buffer()
            source = pyarrow.BufferReader(whole)
            table = pyarrow.ipc.open_stream(source).read_all()
            if source.tell() < whole.size:
                raise InputError(
                    f"{file}: goes on after the end of its Arrow stream at byte {source.tell()}, "
                    "as files do that cat has put together; save the dataset again"
                )
        table.validate(full=True)  # before any offset is used
        if len(set(table.column_names)) < len(table.column_names):
            raise ValueError("a column occurs twice")
        self.image = column_of(file, table.column_names, IMAGE_COLUMNS)
        self.files.append((file, len(self.paths)))
        for chunk in table.column(self.image).chunks:
            data, paths = _parts(chunk, pyarrow)
            for (start, size), path in zip(_positions(data, whole), paths, strict=True):
                if size < 0 or size > MAX_BYTES:
                    problem = "has no bytes" if size < 0 else f"has {size} bytes"
                    raise InputError(
                        f"{self.place(len(self.paths))}: the image {problem}; up to {MAX_BYTES} "
                        "are needed in the file itself, not only a path"
                    )
                self.positions.append((start, size))
                self.paths.append(path or f"{file.name}/{len(self.paths):08d}")
        self.tables.append(table.drop_columns([self.image]))

    def values(self, where: Path, name: str) -> list[Any]:
        """A column of all files.

        Raises:
            InputError: a file lacks it.
        """
        found: list[Any] = []
        for (file, _), table in zip(self.files, self.tables, strict=True):
            column_of(file, table.column_names, (name,))
            found += table.column(name).to_pylist()
        return found

    def place(self, index: int) -> str:
        """File and row of an image, for messages."""
        return place_of(self.files, index)

    def dataset(
        self, where: Path, class_names: tuple[str, ...], labels: Any, columns: Any = None
    ) -> ImageDataset:
        """The images with these labels."""
        return ImageDataset(
            where,
            class_names,
            unique_names(self.paths),
            labels,
            np.array([size for _, size in self.positions], dtype=np.int64),
            read_one=image_reader(self.files, self.positions),
            columns=columns or {},
        )


def _parts(chunk: Any, pyarrow: Any) -> tuple[Any, list[str | None]]:
    """The array of the bytes of images, and their paths.

    Raises:
        TypeError: the column is of another type.
    """
    if chunk.offset:
        raise TypeError("the images do not begin where their array does")
    if pyarrow.types.is_struct(chunk.type):
        names = [chunk.type.field(index).name for index in range(chunk.type.num_fields)]
        if "bytes" not in names or chunk.null_count:
            raise TypeError("an image is null, or has no bytes")
        paths = chunk.field("path").to_pylist() if "path" in names else [None] * len(chunk)
        return chunk.field("bytes"), paths
    return chunk, [None] * len(chunk)


def _positions(data: Any, whole: Any) -> Iterator[tuple[int, int]]:
    """First byte in the file and size of each value; a size of -1 for null.

    Raises:
        TypeError: they are of another type, or compressed.
    """
    kinds = {"binary": np.int32, "large_binary": np.int64}
    kind = kinds.get(str(data.type))
    if kind is None or data.offset:
        raise TypeError(f"the images are of the type {data.type}")
    _, offsets, values = data.buffers()
    if offsets is None:
        return
    ends = np.frombuffer(offsets, kind)[: len(data) + 1].astype(np.int64)
    first = values.address - whole.address if values is not None else 0
    if len(data) and not 0 <= first <= first + int(ends[-1]) <= whole.size:
        raise TypeError("the file is compressed")
    missing = data.is_null().to_pylist() if data.null_count else [False] * len(data)
    for start, end, is_missing in zip(ends, ends[1:], missing, strict=False):
        yield first + int(start), -1 if is_missing else int(end - start)
