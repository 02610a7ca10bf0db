"""Parquet files of the hub: labels that are none, splits by file name, repositories."""

import json
from pathlib import Path
from typing import Any

import pytest

from densenet121.datasets.sources.open import open_evaluation, open_training
from densenet121.utils.errors import InputError, UsageError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

FILE = "train-00000-of-00001.parquet"


def write(file: Path, labels: list[Any], names: list[str] | None = None, first: int = 0) -> Path:
    rows = [
        {"image": {"bytes": b"image", "path": f"{first + i}.jpg"}, "label": label}
        for i, label in enumerate(labels)
    ]
    table = pyarrow.Table.from_pylist(rows)
    if names:
        feature = {"names": names, "_type": "ClassLabel"}
        note = json.dumps({"info": {"features": {"label": feature}}})
        table = table.replace_schema_metadata({"huggingface": note})
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, file, row_group_size=3)
    return file


def test_columns_that_may_have_the_classes_too_are_named(tmp_path: Path) -> None:
    images = [{"bytes": b"image", "path": f"{i}.jpg"} for i in range(4)]
    columns = {"class": ["a", "b", "c", "a"], "labels": [0, 1, 2, 0], "label": [0, 1, 1, 0]}
    parquet.write_table(pyarrow.table({"image": images, **columns}), tmp_path / FILE)
    found = open_training(tmp_path)[0]
    assert found.labels.tolist() == [0, 1, 1, 0]
    assert found.notes == (
        f"{tmp_path}: the classes are those of the column label, not of labels, class; rename "
        "label to read labels",
    )


def test_the_classes_of_all_files_are_those_of_one_column(tmp_path: Path) -> None:
    images = [{"bytes": b"image", "path": f"{i}.jpg"} for i in range(4)]
    for name, columns in (("a", {"label": [0, 1, 2, 0]}), ("b", {"class": [2, 0, 0, 1]})):
        parquet.write_table(
            pyarrow.table({"image": images, **columns}), tmp_path / f"{name}.parquet"
        )
    with pytest.raises(InputError, match=r"b\.parquet: no column label; it has image, class"):
        open_training(tmp_path)


def test_the_names_keep_the_order_of_the_file(tmp_path: Path) -> None:
    write(tmp_path / FILE, [0, 1, 2, 0, 1, 2], ["zebra", "ant", "bee"])
    found = open_training(tmp_path)[0]
    assert found.class_names == ("zebra", "ant", "bee")
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("names", [None, ["zebra", "ant"]])
@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, "row 4: the label is (None|nan), which is no class"),
        (-1, "row 4: .*-1"),
        (float("nan"), "row 4: the label is nan, which is no class"),
        (0.5, "row 4: the label is 0.5, which is no class"),
    ],
)
def test_a_label_that_is_none_is_named_with_file_and_row(
    label: Any, message: str, names: list[str] | None, tmp_path: Path
) -> None:
    write(tmp_path / FILE, [0, 1, 0, 1, label, 0], names)
    with pytest.raises(InputError, match=rf"{FILE}, {message}"):
        open_training(tmp_path)


def test_a_number_without_a_name_is_refused_and_not_renamed(tmp_path: Path) -> None:
    write(tmp_path / FILE, [0, 1, 2, 1], ["zebra", "ant"])
    with pytest.raises(InputError, match=r"row 2: the label is 2, but the file names the classes"):
        open_training(tmp_path)


@pytest.mark.parametrize("label", [[0, 1], [0], {"a": 1}])
def test_several_labels_are_another_task(label: Any, tmp_path: Path) -> None:
    write(tmp_path / FILE, [label, label])
    with pytest.raises(InputError, match=r"row 0: the label is a (list|dict) .*one class per"):
        open_training(tmp_path)


@pytest.mark.parametrize("labels", [["cat", "ant"], [b"cat", b"ant"]])
def test_names_may_be_text_or_bytes(labels: list[Any], tmp_path: Path) -> None:
    assert open_training(write(tmp_path / FILE, labels))[0].class_names == ("ant", "cat")
    with pytest.raises(InputError, match=r"row 2: the label is '', which is no class"):
        open_training(write(tmp_path / FILE, [*labels, type(labels[0])()]))


def test_whole_numbers_may_be_stored_as_floats(tmp_path: Path) -> None:
    write(tmp_path / FILE, [0.0, 1.0, 1.0], ["zebra", "ant"])
    assert open_training(tmp_path)[0].labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("below", ["", "data"])
def test_validation_alone_is_validated_on(below: str, tmp_path: Path) -> None:
    names = ["zebra", "ant"]
    write(tmp_path / below / FILE, [0, 1, 0], names)
    write(tmp_path / below / "validation-00000-of-00001.parquet", [1, 0], names, 10)
    write(tmp_path / below / "test-00000-of-00001.parquet", [1], names, 20)
    (tmp_path / "README.md").write_text("# A data set")
    train, val = open_training(tmp_path)
    assert val is not None
    assert (train.paths, val.paths) == (("0.jpg", "1.jpg", "2.jpg"), ("10.jpg", "11.jpg"))
    assert (train.notes, val.notes) == ((), ())
    assert open_evaluation(tmp_path).paths == val.paths


def test_the_test_files_are_used_only_where_there_are_no_others(tmp_path: Path) -> None:
    names = ["zebra", "ant"]
    write(tmp_path / FILE, [0, 1, 0], names)
    with pytest.raises(UsageError, match=rf"no Parquet file is named after val.*{FILE}; pass a"):
        open_evaluation(tmp_path)
    write(tmp_path / "test.parquet", [1, 0], names, 20)
    write(tmp_path / "other.parquet", [1, 0], names, 30)
    train, val = open_training(tmp_path)
    assert val is not None and val.paths == ("20.jpg", "21.jpg")
    assert "no file is named after validation, so the test images are used" in val.notes[0]
    assert "1 files that are not named after a split are not read, first other" in train.notes[0]


def test_a_pointer_or_a_web_page_is_named(tmp_path: Path) -> None:
    for start, word in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a git-LFS pointer"),
        (b"<!DOCTYPE html>\n<html>", "a web page"),
    ):
        (tmp_path / FILE).write_bytes(start)
        with pytest.raises(InputError, match=rf"{FILE}: is {word}"):
            open_training(tmp_path)
