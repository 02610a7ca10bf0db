"""A label means the same class in every split and from every source, or is refused."""

from pathlib import Path

import numpy as np
import pytest

from densenet121.commands.pack import pack
from densenet121.config import PackConfig
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.sources.labels import check_labels
from densenet121.datasets.sources.open import open_evaluation, open_training
from densenet121.utils.errors import InputError

from helpers.images import write_classes

GRADES = "1\n2\n3\n4\n5\n"


def classes_of(dataset: ImageDataset) -> dict[str, str]:
    """By path, the name of each image's class."""
    return {
        path: dataset.class_names[label]
        for path, label in zip(dataset.paths, dataset.labels, strict=True)
    }


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ([str(number) for number in range(11)], ["10", "2", "1"]),
        (list("12345"), list("2345")),  # no image of the first, so that 2 could be 1's number
    ],
)
def test_packed_classes_that_are_called_by_numbers_stay_what_they_are(
    train: list[str], val: list[str], tmp_path: Path
) -> None:
    write_classes(tmp_path / "data" / "train", train, 2)
    write_classes(tmp_path / "data" / "val", val, 1)
    pack(PackConfig(source=str(tmp_path / "data"), output=str(tmp_path / "shards")))
    for original, packed in zip(
        open_training(tmp_path / "data"), open_training(tmp_path / "shards"), strict=True
    ):
        assert original is not None and packed is not None
        assert classes_of(packed) == classes_of(original)
    alone = classes_of(open_evaluation(tmp_path / "shards" / "val"))
    assert alone == classes_of(open_evaluation(tmp_path / "data" / "val"))


def test_numbers_are_those_of_the_lines_whatever_the_classes_are_called(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text(GRADES)
    for labels in ([0, 1, 2, 3, 4], [1, 2, 3, 4]):  # the second could all be names
        names, found = check_labels(labels, file, "data", partial=True)
        assert names == tuple("12345") and found.tolist() == labels
    with pytest.raises(
        InputError, match=r"that are not in .*: 5; a number is that of a line, 0 to 4"
    ):
        check_labels([1, 2, 3, 4, 5], file, "data")


def test_texts_are_names_where_a_class_is_called_by_a_number(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text(GRADES)
    for labels in (list("12345"), list("1234")):
        _, found = check_labels(labels, file, "data", partial=True)
        assert found.tolist() == [int(label) - 1 for label in labels]
    with pytest.raises(
        InputError, match=r"that are not in .*: 0; its classes are called by numbers"
    ):
        check_labels(list("01234"), file, "data")
    file.write_text("0\n1\n2\n")  # both readings are one
    assert check_labels(["00", "2", "1"], file, "data")[1].tolist() == [0, 2, 1]
    file.write_text("ant\nbee\ncat\n")
    assert check_labels(["00", "2", "bee"][:2], file, "data")[1].tolist() == [0, 2]


def test_validation_images_have_zero_padded_classes_as_training_has(tmp_path: Path) -> None:
    write_classes(tmp_path, ["images"], 6)
    rows = [f"images/{index:03d}.png" for index in range(6)]
    for name, labels in (("train", ["00", "01", "02"]), ("val", ["02", "00", "02"])):
        some = rows[:3] if name == "train" else rows[3:]
        lines = [f"{path},{label}\n" for path, label in zip(some, labels, strict=True)]
        (tmp_path / f"{name}.csv").write_text("path,label\n" + "".join(lines))
    train, val = open_training(tmp_path / "train.csv", tmp_path / "val.csv")
    assert val is not None
    assert train.class_names == val.class_names == ("00", "01", "02")
    assert val.labels.tolist() == [2, 0, 2]
    (tmp_path / "val.csv").write_text(f"path,label\n{rows[3]},2\n{rows[4]},0\n")
    with pytest.raises(InputError, match=r"val\.csv: its 2 classes .* of .*train\.csv"):
        open_training(tmp_path / "train.csv", tmp_path / "val.csv")


@pytest.mark.parametrize("word", ["nan", "NaN", "null", "", "-1", "#N/A", "#BEZUG!"])
def test_no_label_is_no_class_among_names_either(word: str, tmp_path: Path) -> None:
    labels = ["normal", "ill", word, "ill"]
    with pytest.raises(InputError, match=r"row 2: has the label .*1 of 4 images have none"):
        check_labels(labels, tmp_path / "classes.txt", "data", place=lambda row: f"row {row}")
    if word:
        (tmp_path / "classes.txt").write_text(f"ill\n{word}\nnormal\n")
        names, found = check_labels(labels, tmp_path / "classes.txt", "data")
        assert names[1] == word and found.tolist() == [2, 0, 1, 0]


@pytest.mark.parametrize("word", ["none", "unknown", "na"])
def test_words_that_may_be_names_are_classes_among_names_and_none_among_numbers(
    word: str, tmp_path: Path
) -> None:
    names, _ = check_labels(["ill", word], tmp_path / "classes.txt", "data")
    assert set(names) == {"ill", word}
    with pytest.raises(InputError, match="which is no class"):
        check_labels(["0", "1", word], tmp_path / "classes.txt", "data")


def test_an_archive_has_the_same_classes_in_both_parts(tmp_path: Path) -> None:
    images = np.zeros((9, 8, 8), dtype=np.uint8)
    labels = np.array([0, 1, 2, 3, 4, 1, 2, 3, 4])[:, None]
    np.savez(
        tmp_path / "grades.npz",
        train_images=images[:5],
        train_labels=labels[:5],
        val_images=images[5:],
        val_labels=labels[5:],
    )
    (tmp_path / "classes.txt").write_text(GRADES)
    train, val = open_training(tmp_path / "grades.npz")
    assert val is not None
    assert [train.class_names[i] for i in train.labels] == list("12345")
    assert [val.class_names[i] for i in val.labels] == list("2345")
