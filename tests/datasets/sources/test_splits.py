"""Rows of several splits in a source that is read as a whole are not trained on together."""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.open import open_evaluation, open_training
from densenet121.datasets.sources.open_table import open_labelled_training
from densenet121.utils.errors import InputError

from helpers.arrow import write_arrow
from helpers.mindrecord import write_mindrecord
from helpers.tfrecord import write_tfrecord

parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")
import pyarrow  # noqa: E402


def as_parquet(folder: Path, column: str, splits: Sequence[str]) -> None:
    images = [b"image"] * len(splits)
    labels = ["ant", "bee"] * (len(splits) // 2)
    table = pyarrow.table({"image": images, "label": labels, column: splits})
    parquet.write_table(table, folder / "a.parquet")


def as_arrow(folder: Path, column: str, splits: Sequence[str]) -> None:
    rows = [
        {"image": {"bytes": b"image", "path": f"{n}.jpg"}, "label": "ab"[n % 2], column: split}
        for n, split in enumerate(splits)
    ]
    write_arrow(folder, rows)


def as_tfrecord(folder: Path, column: str, splits: Sequence[str]) -> None:
    rows = [
        {"image": b"image", "label": n % 2, column: split.encode()}
        for n, split in enumerate(splits)
    ]
    write_tfrecord(folder / "a.tfrecord", rows)


def as_mindrecord(folder: Path, column: str, splits: Sequence[str]) -> None:
    rows = [{"data": b"image", "label": n % 2, column: split} for n, split in enumerate(splits)]
    write_mindrecord(folder / "a.mindrecord", rows)


def as_shards(folder: Path, column: str, splits: Sequence[str], *, several: bool = False) -> None:
    with tarfile.open(folder / "a.tar", "w") as tar:
        for n, split in enumerate(splits):
            label = "ab"[n % 2]
            note = json.dumps({"label": [label] if several else label, column: split}).encode()
            for name, data in ((f"{n}.jpg", b"image"), (f"{n}.json", note)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def as_shards_of_lists(folder: Path, column: str, splits: Sequence[str]) -> None:
    as_shards(folder, column, splits, several=True)


WRITERS = (as_parquet, as_arrow, as_tfrecord, as_mindrecord, as_shards)


@pytest.mark.parametrize("write", WRITERS)
def test_rows_of_several_splits_are_refused(
    write: Callable[[Path, str, Sequence[str]], None], tmp_path: Path
) -> None:
    """Test rows were trained on, though tables and several labels obey such a column."""
    write(tmp_path, "split", ["train", "train", "Test", "test"])
    for opened in (open_training, open_evaluation):
        with pytest.raises(InputError, match=r"split.* several splits \(Test, test, train\)") as e:
            opened(tmp_path)
        assert str(e.value).endswith("if the files are the splits already, call it otherwise")


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("split", ["train"] * 4),
        ("subset", ["north", "south", "north", "train"]),
        ("name", ["train", "train", "test", "test"]),
    ],
)
def test_other_columns_and_rows_of_one_split_are_read(
    write: Callable[[Path, str, Sequence[str]], None],
    column: str,
    cells: Sequence[str],
    tmp_path: Path,
) -> None:
    write(tmp_path, column, cells)
    if write is as_tfrecord:
        (tmp_path / "classes.txt").write_text("ant\nbee\n")
    assert len(open_training(tmp_path)[0]) == 4


def test_a_column_of_splits_that_is_called_otherwise_is_named(tmp_path: Path) -> None:
    cells = ["train", "train", "Test", "val"]
    for n in range(4):
        (tmp_path / f"{n}.jpg").write_bytes(b"image")
    rows = [f"{n}.jpg,{n % 2},phase 1,{cell}\n" for n, cell in enumerate(cells)]
    for name, named in (("set", True), ("split", False)):
        file = tmp_path / "labels.csv"
        file.write_text(f"path,label,notes,{name}\n" + "".join(rows))
        classes = open_training(file)[0]
        several = open_labelled_training(file, None, LabelRules(names=("label",)))[0]
        for found in (classes, several):
            notes = [note for note in found.notes if "the column set names splits" in note]
            assert (len(notes), len(found)) == ((1, 4) if named else (0, 2))
            assert not named or "(Test, train, val), but the rows of all of them are" in notes[0]


@pytest.mark.parametrize("write", (*WRITERS[:-1], as_shards_of_lists))
def test_a_column_of_splits_of_several_labels_that_is_called_otherwise_is_named(
    write: Callable[[Path, str, Sequence[str]], None], tmp_path: Path
) -> None:
    write(tmp_path, "set", ["train", "test"] * 2)
    rules = LabelRules(label_column="label")
    found = open_labelled_training(tmp_path, None, rules)[0]
    notes = [note for note in found.notes if "the column set names splits (test, train)" in note]
    assert (len(notes), len(found)) == (1, 4)
