"""Folders of save_to_disk: names, splits, several labels, what is missing or damaged."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from densenet121.commands.pack import pack
from densenet121.config import PackConfig
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.open import open_evaluation, open_training
from densenet121.datasets.sources.open_table import open_labelled_training
from densenet121.utils.errors import InputError, UsageError

from helpers.arrow import write_arrow

pyarrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
PLAIN = LabelRules()
NAMES = {"label": {"names": ["zebra", "ant", "bee"], "_type": "ClassLabel"}}


def rows(labels: Any, key: str = "label", first: int = 0) -> list[dict[str, Any]]:
    return [
        {"image": {"bytes": b"image %d" % n, "path": f"{n}.jpg"}, key: label}
        for n, label in enumerate(labels, first)
    ]


def test_another_column_that_may_have_the_classes_is_named(tmp_path: Path) -> None:
    own = [row | {"label": n // 2} for n, row in enumerate(rows([0, 1, 2, 0], "class"))]
    found = open_training(write_arrow(tmp_path, own))[0]
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert "those of the column label, not of class; rename label" in found.notes[-1]


@pytest.mark.parametrize("files", [1, 2, 3])
def test_images_of_several_files_and_batches_are_found(files: int, tmp_path: Path) -> None:
    dataset, _ = open_training(write_arrow(tmp_path, rows([0, 1, 2] * 3), NAMES, files))
    assert dataset.class_names == ("zebra", "ant", "bee")
    assert dataset.labels.tolist() == [0, 1, 2] * 3
    assert [dataset.read(n) for n in range(9)] == [b"image %d" % n for n in range(9)]
    assert dataset.paths == [f"{n}.jpg" for n in range(9)]


def test_images_may_be_bytes_without_a_path(tmp_path: Path) -> None:
    content = [{"img": b"x" * n, "label": name} for n, name in enumerate(("cat", "ant"))]
    dataset, _ = open_training(write_arrow(tmp_path, content))
    assert (dataset.class_names, dataset.read(1)) == (("ant", "cat"), b"x")
    assert dataset.paths[1] == "data-00000-of-00001.arrow/00000001"


def test_a_dictionary_of_splits_is_read_as_folders_are(tmp_path: Path) -> None:
    write_arrow(tmp_path / "train", rows([0, 1, 2]), NAMES)
    write_arrow(tmp_path / "test", rows([2, 1], first=9), NAMES)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    train, val = open_training(tmp_path)
    assert val is None and "test/ is not read, because weights that" in train.notes[0]
    with pytest.raises(UsageError, match=r"has train/ but no val/; pass the folder to evaluate"):
        open_evaluation(tmp_path)
    (tmp_path / "test").rename(tmp_path / "validation")
    train, val = open_training(tmp_path)
    assert val is not None and (len(train), val.paths) == (3, ["9.jpg", "10.jpg"])
    assert open_evaluation(tmp_path).paths == val.paths


EXPECTED = ("a", "b"), [[1, 1], [0, 0], [0, 1]]


def test_several_labels_in_lists_and_in_columns(tmp_path: Path) -> None:
    names = {"names": ["a", "b"], "_type": "ClassLabel"}
    forms: list[tuple[Any, Any]] = [
        (rows([["b", "a"], [], ["b"]], "labels"), {}),
        (rows([[1, 0], [], [1]], "labels"), {"labels": {"feature": names, "_type": "List"}}),
        (rows([{"a": 1, "b": 1}, {"a": 0, "b": 0}, {"a": 0, "b": 1}]), {}),
        ([row | {"b": b} for row, b in zip(rows([1, 0, 0], "a"), (1, 0, 1), strict=True)], {}),
    ]
    for number, (form, features) in enumerate(forms):
        folder = write_arrow(tmp_path / str(number), form, features)
        dataset, _ = open_labelled_training(folder, None, PLAIN)
        assert (dataset.class_names, dataset.labels.tolist()) == EXPECTED
        assert dataset.read(2) == b"image 2"
    with pytest.raises(InputError, match=r"row 0: the label is a list .* or `task` multilabel"):
        open_training(tmp_path / "0")


def test_pack_keeps_images_and_labels(tmp_path: Path) -> None:
    folder = write_arrow(tmp_path / "saved", rows([0, 1, 2]), NAMES)
    pack(PackConfig(source=str(folder), output=str(tmp_path / "shards")))
    packed, source = open_training(tmp_path / "shards")[0], open_training(folder)[0]
    assert packed.fingerprint == source.fingerprint
    assert [packed.read(i) for i in range(3)] == [source.read(i) for i in range(3)]


def test_a_file_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    file = write_arrow(tmp_path, rows([0, 1]), NAMES) / "data-00000-of-00001.arrow"
    whole = file.read_bytes()
    for length in reversed(range(len(whole))):
        os.truncate(file, length)
        with pytest.raises(InputError, match=r"arrow: .* cut short") as told:
            open_training(tmp_path)
        assert "\n" not in str(told.value)


def test_streams_that_were_put_together_are_refused(tmp_path: Path) -> None:
    """Those after the first were passed over without a word."""
    file = write_arrow(tmp_path, rows([0, 1]), NAMES) / "data-00000-of-00001.arrow"
    first = file.read_bytes()
    file.write_bytes(first * 2)
    told = rf"arrow: goes on after the end of its Arrow stream at byte {len(first)}, as files do"
    with pytest.raises(InputError, match=told):
        open_training(tmp_path)


def test_a_changed_byte_is_refused_or_read_within_the_file(tmp_path: Path) -> None:
    """Arrow has no sums, so a changed image is found by decoding it, and a label is not."""
    file = write_arrow(tmp_path, rows([0, 1, 2] * 2), NAMES) / "data-00000-of-00001.arrow"
    whole = file.read_bytes()
    for at in range(0, len(whole), 5):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            dataset = open_training(tmp_path)[0]
        except (InputError, UsageError) as error:
            assert "\n" not in str(error)
            continue
        for number in range(len(dataset)):
            found = dataset.read(number)
            assert isinstance(found, bytes) and found in file.read_bytes()


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_what_is_missing_or_damaged_is_named(name: str, tmp_path: Path) -> None:
    file = write_arrow(tmp_path, rows([0, 1]), NAMES) / name
    whole = file.read_bytes()
    for content in (None, b"", b"[]", b"<!DOCTYPE html>", whole[: len(whole) // 2]):
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)
        elif name.endswith("arrow"):
            (tmp_path / "cache-1.arrow").write_bytes(whole)  # state.json names the other
        with pytest.raises(InputError, match=name) as told:
            open_training(tmp_path)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"_data_files": []}, "names no files of data"),
        ({"_data_files": [{"filename": "../../etc/passwd"}]}, "names no files of data"),
        ({"_data_files": [{"filename": 5}]}, "names no files of data"),
        ({"_data_files": 5}, "names no files of data"),
        ({"_data_files": [{"filename": "x" * 400}]}, ""),
        (
            {"_data_files": [{"filename": "data-00000-of-00001.arrow"}] * 2},
            "names a file twice",
        ),
        (
            {"_data_files": [{"filename": "a.arrow"}], "_indices_data_files": [{"filename": "i"}]},
            "has indices of rows, as old versions",
        ),
    ],
)
def test_a_state_that_cannot_be_used_is_one_line(state: Any, message: str, tmp_path: Path) -> None:
    write_arrow(tmp_path, rows([0, 1]), NAMES)
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(
        InputError, match=rf"state.json: {message}|is missing, but state.json names it"
    ):
        open_training(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"pixels": b"x", "label": 0}], "no column image or img or picture; it has pixels, label"),
        ([{"image": b"x", "y": 0}], "no column label or labels or class or fine_label; it has y"),
        (rows([0, 3]), "row 1: the label is 3, but the file names the classes 0 to 2"),
        (rows([0, None]), "row 1: the label is None, which is no class"),
        (
            [*rows([0]), {"image": {"bytes": None, "path": "x"}, "label": 0}],
            "row 1: the image has no bytes",
        ),
        ([{"image": None, "label": 0}, *rows([0])], "an image is null"),
        ([{"image": "x", "label": 0}], "the images are of the type string"),
    ],
)
def test_rows_that_cannot_be_used_are_one_line(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as told:
        open_training(write_arrow(tmp_path, content, NAMES))
    assert "\n" not in str(told.value)


def test_compressed_streams_and_single_files_are_refused(tmp_path: Path) -> None:
    folder = write_arrow(tmp_path, rows([0, 1]), NAMES)
    file = folder / "data-00000-of-00001.arrow"
    with pytest.raises(InputError, match=r"is one file of a folder of datasets; pass"):
        open_training(file)
    content = [{"image": {"bytes": b"x" * 9999, "path": ""}, "label": n} for n in (0, 1)]
    table = pyarrow.Table.from_pylist(content)
    options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
    with pyarrow.ipc.new_stream(str(file), table.schema, options=options) as stream:
        stream.write_table(table)
    with pytest.raises(InputError, match=r"the file is compressed"):
        open_training(folder)
