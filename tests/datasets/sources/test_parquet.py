"""Parquet files of the hub: labels that are none, splits by file name, repositories."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest

from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.open import open_evaluation, open_training
from densenet121.datasets.sources.parquet import read_parquet
from densenet121.datasets.sources.parquet_labels import read_label_parquet
from densenet121.utils.errors import InputError, UsageError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

LABEL_READERS: dict[str, Any] = {
    "single_label": lambda file: read_parquet(file, "train"),
    "multi_label": lambda file: read_label_parquet(file, LabelRules()),
}
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


def test_a_number_that_means_another_class_in_another_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [0, 1, 2], ["ant", "bee", "cat"])
    write(tmp_path / "b.parquet", [0, 1, 2], ["ant", "cat", "bee"], 10)
    with pytest.raises(InputError, match=r"b\.parquet: the number 1 .* label is cat, but bee in"):
        open_training(tmp_path)
    write(tmp_path / "b.parquet", [3, 1, 2], ["ant", "bee", "cat", "dog"], 10)
    found = open_training(tmp_path)[0]
    assert found.class_names == ("ant", "bee", "cat", "dog")
    assert found.labels.tolist() == [0, 1, 2, 3, 1, 2]


def test_numbers_in_a_file_and_names_in_another_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [0, 1])
    write(tmp_path / "b.parquet", ["ant", "bee"], first=10)
    for names in (None, ["ant", "bee"]):
        write(tmp_path / "a.parquet", [0, 1], names)
        with pytest.raises(
            InputError, match=r'b.parquet, row 0: the label is the name "ant", but the number 0 in '
        ):
            open_training(tmp_path)


@pytest.mark.parametrize(
    "call", ["train-{:05d}-of-00003", "train-{:05d}-of-00003-1a2b3c4d5e6f7a8b"]
)
def test_a_numbered_set_that_lacks_a_file_is_refused(call: str, tmp_path: Path) -> None:
    files = [write(tmp_path / f"{call.format(n)}.parquet", [0, 1], first=10 * n) for n in range(4)]
    files[3].rename(tmp_path / "validation.parquet")
    assert len(open_training(tmp_path)[0]) == 6
    files[1].unlink()
    with pytest.raises(InputError, match=r"of the 3 files train-.*, 1 are missing, first number"):
        open_training(tmp_path)
    assert len(open_training(files[2])[0]) == 2  # a file that is passed alone
    files[0].rename(tmp_path / f"{call.format(3)}.parquet")  # counted from 1
    write(files[1], [0, 1], first=20)
    assert len(open_training(tmp_path)[0]) == 6


def test_an_image_without_bytes_is_named_with_file_and_row(tmp_path: Path) -> None:
    images = [{"bytes": None if i == 2 else b"image", "path": f"{i}.jpg"} for i in range(4)]
    parquet.write_table(pyarrow.table({"image": images, "label": [0, 1, 0, 1]}), tmp_path / FILE)
    with pytest.raises(InputError, match=rf"{FILE}, row 2: the image has no bytes; they are"):
        open_training(tmp_path)


@pytest.mark.parametrize("sizes", [(5, 4, 3, 2), (2, 3), (2, 3, 4, None)])
def test_a_file_that_changes_while_it_is_read_is_named(sizes: Any, tmp_path: Path) -> None:
    def put(sizes: Any) -> None:
        images = [{"bytes": None if size is None else b"x" * size, "path": ""} for size in sizes]
        labels = [i % 2 for i in range(len(sizes))]
        parquet.write_table(pyarrow.table({"image": images, "label": labels}), tmp_path / FILE)

    put((2, 3, 4, 5))
    kept, changed = open_training(tmp_path)[0], open_training(tmp_path)[0]
    assert [len(kept.read(i)) for i in range(4)] == [2, 3, 4, 5]
    put(sizes)
    for index in range(4):
        with pytest.raises(InputError, match=rf"{FILE} has changed since it was opened"):
            changed.read(index)


def test_a_changed_byte_is_noticed_where_the_file_has_sums(tmp_path: Path) -> None:
    images = [{"bytes": b"image" * 50 + bytes([i]), "path": f"{i}.jpg"} for i in range(4)]
    table = pyarrow.table({"image": images, "label": [0, 1, 0, 1]})
    parquet.write_table(
        table, tmp_path / FILE, compression="none", write_statistics=False, write_page_checksum=True
    )
    found = open_training(tmp_path)[0]
    data = bytearray((tmp_path / FILE).read_bytes())
    data[data.index(b"imageimage") + 20] ^= 1
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises(InputError, match=rf"{FILE}.*CRC"):
        found.read(0)


@pytest.mark.parametrize("form", ["struct", "binary", "dictionary"])
@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_an_image_that_stands_in_every_row_is_not_unpacked_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, task: str
) -> None:
    """A dictionary has it once, so that 2 kB are 90 MB here, and could be any number."""
    monkeypatch.setattr("densenet121.datasets.sources.parquet._MOST_UNPACKED", 2**22)
    count = 300
    images = pyarrow.array([bytes(300_000)] * count, pyarrow.binary())
    if form == "struct":
        images = pyarrow.StructArray.from_arrays([images], ["bytes"])
    elif form == "dictionary":
        images = images.dictionary_encode()
    table = pyarrow.table({"image": images, "label": [0, 1, 2] * (count // 3)})
    file = tmp_path / FILE
    parquet.write_table(table, file, compression="zstd", dictionary_pagesize_limit=2**30)
    assert file.stat().st_size < 5000
    reader = LABEL_READERS[task]
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"row group 0 unpacks to more than 4194304 bytes"):
        reader(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 60_000  # kB


def test_a_label_that_stands_in_every_row_is_not_unpacked_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("densenet121.datasets.sources.parquet._MOST_UNPACKED", 2**24)
    labels = pyarrow.array(["a" * 1_000_000] * 100).dictionary_encode()
    table = pyarrow.table({"image": [b"image"] * 100, "label": labels})
    parquet.write_table(table, tmp_path / FILE, row_group_size=10, compression="zstd")
    with pytest.raises(InputError, match=r"row group 1 unpacks to more than 16777216 bytes"):
        open_training(tmp_path)
