"""Names of classes that look the same are different classes, which a user is told."""

from pathlib import Path

import pytest

from densenet121.datasets.class_names import name_notes
from densenet121.datasets.division import images_with_class
from densenet121.datasets.image_dataset import check_same_classes
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.open import open_training
from densenet121.datasets.sources.open_table import open_labelled_training
from densenet121.utils.errors import InputError


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["Cat", "cat", "dog"], "'Cat' and 'cat'"),
        (["big  cat", "big cat"], "'big  cat' and 'big cat'"),
        ([" lead", "lead"], "' lead' and 'lead'"),
        (["caf\u00e9", "cafe\u0301"], r"'café' and 'cafe\u0301'"),
        ([c + str(n) for n in range(6) for c in "aA"], "'a3' and 'A3' and 2 more"),
    ],
)
def test_names_that_read_alike_are_noted(names: list[str], shown: str) -> None:
    (note,) = name_notes("list.csv", names)
    assert note.startswith("list.csv: names that differ only in case, blanks or the codes")
    assert shown in note


def test_other_names_are_not_noted() -> None:
    assert name_notes("data", ["cat", "cats", "0", "00", "left-lung", "left_lung", "é", "e"]) == []


def test_names_in_another_encoding_are_noted(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"not decoded")
    file = tmp_path / "list.csv"
    file.write_bytes("path,label\na.png,café\nb.png,dog\n".encode("cp1252"))
    (note,) = open_training(file)[0].notes
    assert r"'caf\udce9' has bytes that are not UTF-8 (1 of 2 names)" in note


def test_every_command_that_reads_training_images_is_told(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.png").write_bytes(b"not decoded")
    file = tmp_path / "list.csv"
    rows = ["a.png,Cat,train", "b.png,cat,train", "c.png,Cat,val", "d.png,cat,val"]
    file.write_text("\n".join(["path,label,split", *rows]))
    train, val = open_training(file)
    assert val is not None
    assert ["'Cat' and 'cat'" in note for note in train.notes] == [True]
    assert val.notes == ()  # once is enough
    file.write_text(file.read_text().replace("split", "site"))
    assert "'Cat' and 'cat'" in images_with_class(file).notes[0]
    file.write_text("path,findings\na.png,Edema|X\nb.png,edema\n")
    rules = LabelRules(label_column="findings", separator="|")
    several, _ = open_labelled_training(file, None, rules)
    assert "'Edema' and 'edema'" in several.notes[0]


def test_a_difference_that_cannot_be_seen_is_shown() -> None:
    with pytest.raises(InputError, match=r"\(missing: ' lead', big; unknown: 'lead', old\)"):
        check_same_classes([" lead", "big"], "W", ["lead", "old"], "list.csv")
    with pytest.raises(InputError, match=r"missing: 'café'; unknown: 'cafe\\u0301'\)"):
        check_same_classes(["caf\u00e9", "b"], "W", ["cafe\u0301", "b"], "list.csv")
