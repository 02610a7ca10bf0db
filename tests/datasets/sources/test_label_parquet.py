"""Several labels in Parquet files: lists, objects, or a column a label."""

import json
from pathlib import Path
from typing import Any

import cv2
import pytest

from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.open_table import (
    open_labelled_evaluation,
    open_labelled_training,
)
from densenet121.utils.errors import InputError, UsageError

from helpers.images import draw

pyarrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
PLAIN = LabelRules()
IGNORE = LabelRules(missing="ignore")


def write(file: Path, metadata: Any = None, **columns: Any) -> Path:
    """A file with an image for each cell of the columns."""
    import pyarrow.parquet

    count = len(next(iter(columns.values())))
    images = [
        {"bytes": cv2.imencode(".png", draw(0, i))[1].tobytes(), "path": f"{i}.png"}
        for i in range(count)
    ]
    table = pyarrow.table({"image": images, **columns})
    if metadata:
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    pyarrow.parquet.write_table(table, file, row_group_size=2)
    return file


def labels_in(source: Path, rules: LabelRules = PLAIN) -> tuple[Any, Any]:
    dataset, _ = open_labelled_training(source, None, rules)
    return dataset.class_names, [
        [None if value != value else value for value in row] for row in dataset.labels.tolist()
    ]


EXPECTED = ("a", "b"), [[1, 1], [0, 0], [0, 1]]


def test_every_form_has_the_same_labels(tmp_path: Path) -> None:
    forms: list[dict[str, Any]] = [
        {"labels": [["b", "a"], [], ["b"]]},
        {"label": [{"a": 1, "b": 1}, {"a": 0, "b": 0}, {"a": 0, "b": 1}]},
        {"a": [True, False, False], "b": [1.0, 0.0, 1.0], "age": [1, 0, 1]},
    ]
    for number, form in enumerate(forms):
        assert labels_in(write(tmp_path / f"{number}.parquet", **form)) == EXPECTED


def test_of_two_columns_with_other_labels_one_has_to_be_named(tmp_path: Path) -> None:
    lists = [["b", "a"], [], ["b"]]
    file = write(tmp_path / "a.parquet", label=lists, labels=[["c"], [], ["d"]])
    with pytest.raises(UsageError, match="the columns label, labels could be the labels; pass one"):
        labels_in(file)
    assert labels_in(file, LabelRules(label_column="label")) == EXPECTED
    assert labels_in(write(tmp_path / "b.parquet", label=lists, labels=lists)) == EXPECTED


def test_a_nan_of_pandas_in_an_object_is_a_label_that_is_not_known(tmp_path: Path) -> None:
    objects = [{"a": 1.0, "b": 1.0}, {"a": float("nan"), "b": 0.0}, {"a": 0.0, "b": 1.0}]
    found = labels_in(write(tmp_path / "a.parquet", labels=objects), IGNORE)
    assert found == (("a", "b"), [[1, 1], [None, 0], [0, 1]])


def test_numbers_have_the_names_of_the_schema(tmp_path: Path) -> None:
    lists = [[1, 0], [], [1]]
    for number, feature in enumerate(
        ({"feature": {"names": ["a", "b"]}, "_type": "Sequence"}, [{"names": ["a", "b"]}])
    ):
        metadata = {"info": {"features": {"labels": feature}}}
        file = write(tmp_path / f"{number}.parquet", metadata, labels=lists)
        assert labels_in(file) == EXPECTED
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert labels_in(write(tmp_path / "plain.parquet", labels=lists)) == EXPECTED


def test_a_text_column_is_read_as_in_a_table(tmp_path: Path) -> None:
    file = write(tmp_path / "f.parquet", found=["b|a", "none", "b"], patient=[3, 3, 4])
    rules = LabelRules(label_column="found", separator="|", negative="none")
    assert labels_in(file, rules) == EXPECTED
    dataset, _ = open_labelled_training(file, None, rules)
    assert dataset.columns["patient"] == ["3", "3", "4"]
    image = dataset.read(1)
    assert image == cv2.imencode(".png", draw(0, 1))[1].tobytes()


def test_null_is_what_the_setting_says_and_files_have_splits(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", labels=[["a"], None, ["b"]])
    write(tmp_path / "validation-0.parquet", labels=[["b"]])
    assert labels_in(tmp_path, IGNORE)[1] == [[1, 0], [None, None], [0, 1]]
    _, val = open_labelled_training(tmp_path, None, IGNORE)
    assert val is not None and val.labels.tolist() == [[0, 1]]
    weights = LabelRules(names=("a", "b"), missing="ignore")
    assert open_labelled_evaluation(tmp_path, weights).labels.tolist() == [[0, 1]]
    with pytest.raises(InputError, match=r"these are blank: labels \(1\); `missing` says"):
        labels_in(tmp_path)


@pytest.mark.parametrize(
    ("columns", "rules", "message"),
    [
        ({"labels": [[0, 0, 1]]}, LabelRules(), r"row 0: the numbers \[0, 0, 1\] repeat"),
        ({"labels": [[4]]}, LabelRules(), r"row 0: the label is the number 4, but there are no"),
        ({"a": [1, 7], "b": [1, 0]}, LabelRules(names=("a",)), r'row 1, label a: "7" is not a l'),
        ({"a": [1, 0]}, LabelRules(names=("c",)), r"no column named c \(`labels`\)"),
        ({"a": [1, 0]}, LabelRules(label_column="c"), r"no column named c \(`label_column`\)"),
    ],
)
def test_labels_that_cannot_be_used_are_one_line(
    columns: Any, rules: LabelRules, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as told:
        labels_in(write(tmp_path / "f.parquet", **columns), rules)
    assert "\n" not in str(told.value)


def test_columns_without_labels_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no column has only labels .* of the columns view, age"):
        labels_in(write(tmp_path / "f.parquet", view=["PA", "AP"], age=[1, 0]))
    with pytest.raises(UsageError, match="`path_column` is for tables of text"):
        labels_in(write(tmp_path / "g.parquet", labels=[["a"]]), LabelRules(path_column="path"))


def test_numbers_of_lists_mean_the_same_in_every_file(tmp_path: Path) -> None:
    def features(*names: str) -> Any:
        feature = {"_type": "Sequence", "feature": {"_type": "ClassLabel", "names": list(names)}}
        return {"info": {"features": {"labels": feature}}}

    write(tmp_path / "a.parquet", features("ant", "bee"), labels=[[0], [0, 1], [1]])
    write(tmp_path / "b.parquet", features("bee", "ant"), labels=[[0], [0, 1], [1]])
    with pytest.raises(InputError, match=r"b.parquet: the number 0 in the column labels is bee, "):
        open_labelled_training(tmp_path, None, PLAIN)
