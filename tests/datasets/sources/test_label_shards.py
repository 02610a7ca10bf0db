"""Several labels in tar shards: the images, labels and order of the table they came from."""

import io
import json
import math
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from densenet121.checkpoint.load import read_weights
from densenet121.cli import main
from densenet121.commands.pack import pack
from densenet121.config import PackConfig
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.open import open_training
from densenet121.datasets.sources.open_table import (
    open_labelled_evaluation,
    open_labelled_training,
)
from densenet121.engine.train import train
from densenet121.utils.errors import InputError, UsageError

from helpers.images import draw
from helpers.training import train_config

PLAIN = LabelRules()
IGNORE = LabelRules(missing="ignore", uncertain="ignore")


def write_table(folder: Path, rows: Sequence[str], header: str) -> Path:
    folder.mkdir(parents=True)
    for row in rows:
        path = folder / row.split(",")[0]
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), draw(0, hash(row) % 1000))
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of -1, blank and two splits; the paths are in no order."""
    root = tmp_path_factory.mktemp("table")
    cells = [("1", "0"), ("0", "1"), ("", "1"), ("1", ""), ("-1", "0"), ("0", "1")]
    for split, count in (("train", 24), ("val", 12)):
        rows = [
            f'b{(7 * i) % count}/x{i}.png,{",".join(cells[i % 6])},p{i % 5},"{i}, or so"'
            for i in range(count)
        ]
        write_table(root / split, rows, "path,Mass,Edema,patient,note")
    return root


def assert_same(found: ImageDataset | None, expected: ImageDataset | None) -> None:
    assert found is not None and expected is not None
    assert found.class_names == expected.class_names
    assert list(found.paths) == list(expected.paths)
    assert np.array_equal(found.labels, expected.labels, equal_nan=True)
    assert found.labels.dtype == expected.labels.dtype
    assert found.fingerprint == expected.fingerprint
    for index in range(len(expected)):
        assert found.read(index) == expected.read(index)


def test_packed_labels_are_those_of_the_table_with_and_without_the_index(
    table: Path, tmp_path: Path
) -> None:
    output = tmp_path / "shards"
    settings: dict[str, Any] = {"task": "multilabel", "missing": "ignore", "uncertain": "ignore"}
    said = pack(PackConfig(source=str(table), output=str(output), **settings))
    assert said.startswith("36 images in 2 shards")
    originals = open_labelled_training(table, None, IGNORE)
    for _ in range(2):
        packed = open_labelled_training(output, None, IGNORE)
        for found, expected in zip(packed, originals, strict=True):
            assert_same(found, expected)
            assert found is not None and expected is not None
            assert found.columns == {name: expected.columns[name] for name in ("patient", "note")}
        assert_same(open_labelled_evaluation(output, IGNORE), originals[1])
        for index in output.rglob("index.npz"):
            index.unlink()
    with tarfile.open(output / "train" / "train-000000.tar") as tar:
        assert tar.getnames()[:3] == ["000000000.png", "000000000.json", "000000001.png"]
        member = tar.extractfile("000000002.json")
        assert member is not None
        content = json.load(member)
    assert content["labels"] == {"Mass": None, "Edema": 1} and content["patient"] == "p2"


def test_a_run_on_shards_is_the_run_on_the_table_also_when_resumed(
    table: Path, tmp_path: Path
) -> None:
    output = tmp_path / "shards"
    settings: dict[str, Any] = {"task": "multilabel", "missing": "ignore", "uncertain": "0"}
    pack(PackConfig(source=str(table), output=str(output), **settings))
    run = settings | {"per_batch_size": 8, "ckpt_interval": 2, "keep_checkpoint_max": 0}
    train(train_config(table, tmp_path / "a", **run))
    train(train_config(output, tmp_path / "b", **run))
    middle = str(next((tmp_path / "a").glob("0-1_2.ckpt")))
    train(train_config(output, tmp_path / "c", **run, resume=middle))
    (expected, rows), *others = (outcome(tmp_path / folder) for folder in "abc")
    for state, found in others:
        assert found == rows
        for name, tensor in expected.items():
            assert torch.equal(state[name], tensor), name


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], bytes]:
    """Weights and predictions; the file of the weights also has a digest of the folder's name."""
    weights = read_weights(folder / "last.safetensors")
    return weights.state_dict, (folder / "predictions.csv").read_bytes()


def shard(file: Path, notes: Sequence[Mapping[str, Any] | None]) -> Path:
    """A shard of small images, each with its .json; None for none."""
    file.parent.mkdir(exist_ok=True, parents=True)
    with tarfile.open(file, "w") as tar:
        for number, note in enumerate(notes):
            data = cv2.imencode(".png", draw(0, number))[1].tobytes()
            members = [("png", data)]
            members += [] if note is None else [("json", json.dumps(note).encode())]
            for suffix, content in members:
                member = tarfile.TarInfo(f"{number:04d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return file


def labels_in(source: Path, rules: LabelRules = PLAIN) -> tuple[Any, Any]:
    dataset, _ = open_labelled_training(source, None, rules)
    rows = [[None if math.isnan(v) else v for v in row] for row in dataset.labels.tolist()]
    return dataset.class_names, rows


def test_lists_and_objects_mean_the_same(tmp_path: Path) -> None:
    lists: list[dict[str, Any]] = [{"labels": ["b", "a"]}, {"labels": []}, {"labels": ["c"]}]
    objects: list[dict[str, Any]] = [
        {"labels": {"a": 1, "b": True, "c": 0}},
        {"labels": {"a": 0, "b": 0, "c": False}},
    ]
    objects += [{"labels": {"a": 0, "b": 0, "c": 1.0}}]
    expected = ("a", "b", "c"), [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    for number, notes in enumerate((lists, objects, [{"label": n["labels"]} for n in lists])):
        assert labels_in(shard(tmp_path / f"{number}.tar", notes)) == expected


def test_of_two_keys_with_other_labels_one_has_to_be_named(tmp_path: Path) -> None:
    file = shard(tmp_path / "a.tar", [{"labels": ["x"], "label": ["y"]}, {"labels": ["z"]}])
    with pytest.raises(UsageError, match=r"labels and label in a \.json could be the labels; pass"):
        labels_in(file)
    assert labels_in(file, LabelRules(label_column="labels")) == (("x", "z"), [[1, 0], [0, 1]])


def test_null_and_absent_labels_are_what_the_setting_says(tmp_path: Path) -> None:
    objects = shard(
        tmp_path / "a.tar",
        [{"labels": {"a": 1, "b": None}}, {"labels": {"a": 0}}, {"labels": {"a": -1, "b": 1}}],
    )
    assert labels_in(objects, IGNORE)[1] == [[1, None], [0, None], [None, 1]]
    assert labels_in(objects, LabelRules(missing="0", uncertain="1"))[1] == [[1, 0], [0, 0], [1, 1]]
    lists = shard(tmp_path / "b.tar", [{"labels": ["a"]}, {"labels": None}, {"labels": ["b"]}])
    assert labels_in(lists, LabelRules(missing="ignore"))[1] == [[1, 0], [None, None], [0, 1]]
    with pytest.raises(InputError, match=r"b\.tar: of 3 rows these are blank: labels \(1\); `mis"):
        labels_in(lists)
    with pytest.raises(InputError, match=r"a\.tar: of 3 rows these are -1 \(uncertain\): a \(1\)"):
        labels_in(objects, LabelRules(missing="0"))


def test_names_order_and_a_word_for_none_can_be_given(tmp_path: Path) -> None:
    source = shard(
        tmp_path / "s" / "a.tar", [{"found": ["No"]}, {"found": ["b"]}, {"found": ["a", "other"]}]
    )
    rules = LabelRules(label_column="found", negative="No", ignored=("other",))
    assert labels_in(source, rules) == (("a", "b"), [[0, 0], [0, 1], [1, 0]])
    (tmp_path / "s" / "classes.txt").write_text("b\na\nnever\nNo\nother\n")
    numbers = shard(tmp_path / "s" / "b.tar", [{"labels": [1, 0]}, {"labels": [0]}])
    names, rows = labels_in(numbers)
    assert names == ("b", "a", "never", "No", "other") and rows[0] == [1, 1, 0, 0, 0]


def test_files_named_after_splits_are_both_read(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.tar", [{"labels": {"a": 1}}, {"labels": {"a": 0}}])
    shard(tmp_path / "val-0.tar", [{"labels": {"a": 0}}])
    found, val = open_labelled_training(tmp_path, None, LabelRules())
    assert (len(found), val and len(val)) == (2, 1)


WRONG: list[tuple[list[Any], str]] = [
    ([{"labels": ["a"]}, None], r"0001\.png has no \.json beside it; several labels are read from"),
    ([{"labels": ["a"]}, {"x": 1}], r'0001\.png: its \.json has no "labels"; it needs the labels'),
    ([{"labels": ["a"]}, {"labels": {"a": 1}}], r"0001\.png: its labels are an object, those of"),
    ([{"labels": "a|b"}], r"0000\.png: its labels are 'a|b'; a list of the labels"),
    ([{"labels": {"a": 2}}], r'0000\.png, label a: "2" is not a label; allowed are 1, 0'),
    ([{"labels": {"a": "maybe"}}], r'0000\.png, label a: "maybe" is not a label'),
    ([{"labels": [3]}], r"0000\.png: the label is the number 3, but there are no names"),
    ([{"labels": [0, 1, 0]}], r"0000\.png: the numbers \[0, 1, 0\] repeat, but a list holds"),
    ([{"labels": [None]}], r"0000\.png: the label None in a list is neither a name nor a number"),
    ([{"labels": []}], r"s\.tar: no image has a label"),
    ([{"labels": {"a": 1, "b": None}}], r"s\.tar: all 1 cells of b are blank"),
    ([{"labels": ["\ud800"]}], r"0000\.png: a label has half a character"),
    ([{"label": 3}, {"label": 1}], r"0000\.png: its labels are 3; a list of the labels"),
]


@pytest.mark.parametrize(("notes", "message"), WRONG, ids=[message for _, message in WRONG])
def test_labels_that_cannot_be_used_are_one_line(
    notes: list[Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as told:
        labels_in(shard(tmp_path / "s.tar", notes))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            LabelRules(separator="|", label_column="labels"),
            "`label_separator` is for tables of tex",
        ),
        (LabelRules(path_column="path"), "`path_column` is for tables of text"),
        (LabelRules(uncertain="0"), "`uncertain` is for objects of 1, 0 and -1"),
    ],
)
def test_settings_of_another_form_are_refused(
    rules: LabelRules, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        labels_in(shard(tmp_path / "s.tar", [{"labels": ["a"]}]), rules)


def test_one_class_per_image_is_not_read_from_them(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"the labels in 0000\.json is a list; one class per imag"):
        open_training(shard(tmp_path / "s.tar", [{"labels": ["a"]}]))
    output = tmp_path / "shards"
    words = ["pack", str(table), "--output", str(output), "--task", "multilabel"]
    assert main([*words, "--missing", "0", "--uncertain", "0"]) == 0
    with pytest.raises(InputError, match=r"several labels per image; pass `task` multilabel"):
        open_training(output)
    capsys.readouterr()
    assert main([*words[:3], str(tmp_path / "other"), "--task", "multilabel"]) == 1
    error = capsys.readouterr().err
    assert "--uncertain" in error or "--missing" in error
    assert error.count("\n") == 1


def test_what_could_be_either_is_refused(tmp_path: Path) -> None:
    shard(tmp_path / "s.tar", [{"labels": ["a"]}])
    (tmp_path / "labels.csv").write_text("path,a\nx.png,1\n")
    with pytest.raises(UsageError, match=r"has labels\.csv and tar files, and either may have"):
        labels_in(tmp_path)


def test_a_column_that_would_be_taken_for_the_labels_is_refused(tmp_path: Path) -> None:
    source = write_table(tmp_path / "t", ["a.png,1,x", "b.png,0,y"], "path,Mass,label")
    with pytest.raises(UsageError, match=r"the column label would be taken for the labels"):
        pack(PackConfig(source=str(source), output=str(tmp_path / "o"), task="multilabel"))
