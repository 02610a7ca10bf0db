"""NumPy archives in MedMNIST's layout: one class or several labels, splits, damage."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densenet121.commands.pack import pack
from densenet121.config import PackConfig
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.open import open_evaluation, open_training
from densenet121.datasets.sources.open_table import (
    open_labelled_evaluation,
    open_labelled_training,
)
from densenet121.utils.errors import InputError, UsageError

from helpers.loading import epoch_bytes, png_list

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 9, 7), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 9, 7, 3), dtype=np.uint8)
LABELS = [0, 1, 2] * 4
SEVERAL = np.array([[1, 0], [0, 0], [1, 1]] * 4, dtype=np.uint8)
PLAIN = LabelRules()


def arrays(images: Any = GREY, labels: Any = None) -> dict[str, Any]:
    """MedMNIST's six arrays."""
    labels = np.array(LABELS, dtype=np.uint8)[:, None] if labels is None else labels
    parts = {"train": slice(0, 6), "val": slice(6, 9), "test": slice(9, 12)}
    found = {f"{name}_images": images[part] for name, part in parts.items()}
    return found | {f"{name}_labels": labels[part] for name, part in parts.items()}


def write(file: Path, content: dict[str, Any], *, packed: bool = True) -> Path:
    (np.savez_compressed if packed else np.savez)(file, **content)
    return file


@pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("packed", [True, False])
def test_the_same_images_give_the_same_bytes_as_from_files(
    images: Any, packed: bool, tmp_path: Path
) -> None:
    train, val = open_training(write(tmp_path / "a.npz", arrays(images), packed=packed))
    assert val is not None
    listed, _ = open_training(png_list(tmp_path, images[:6], LABELS[:6]))
    assert (train.class_names, train.labels.tolist()) == (("0", "1", "2"), LABELS[:6])
    assert train.paths == [f"train/{i:05d}" for i in range(6)]
    assert torch.equal(epoch_bytes(train, 2), epoch_bytes(listed, 0))
    assert (val.notes, val.paths) == ((), [f"val/{i:05d}" for i in range(3)])


def test_a_part_is_named_as_a_folder_would_be(tmp_path: Path) -> None:
    file = write(tmp_path / "a.npz", arrays())
    assert open_evaluation(file).paths[0] == "val/00000"
    assert open_evaluation(file / "test").paths[0] == "test/00000"
    train, val = open_training(file / "train", file / "test")
    assert val is not None and (train.paths[0], val.paths[0]) == ("train/00000", "test/00000")
    assert open_training(file / "train")[1] is None
    with pytest.raises(InputError, match=r"no dev_images in a.npz; it has the parts train, val, t"):
        open_evaluation(file / "dev")


def test_test_images_are_validated_on_only_without_others(tmp_path: Path) -> None:
    content = {name: array for name, array in arrays().items() if not name.startswith("val")}
    _, val = open_training(write(tmp_path / "a.npz", content))
    assert val is not None and val.paths[0] == "test/00000"
    assert "has no val_images, so the test images are used" in val.notes[0]
    only = {name: array for name, array in content.items() if name.startswith("test")}
    file = write(tmp_path / "b.npz", only)
    assert len(open_evaluation(file)) == 3
    with pytest.raises(InputError, match=r"has no train_images, only the parts test; name one"):
        open_training(file)
    assert len(open_training(file / "test")[0]) == 3


def test_several_labels_have_names_and_the_task_is_never_guessed(tmp_path: Path) -> None:
    file = write(tmp_path / "chest.npz", arrays(labels=SEVERAL))
    train, val = open_labelled_training(file, None, PLAIN)
    assert val is not None
    assert (train.class_names, train.labels.tolist()) == (("0", "1"), SEVERAL[:6].tolist())
    assert open_labelled_evaluation(file / "test", PLAIN).labels.tolist() == SEVERAL[9:].tolist()
    (tmp_path / "classes.txt").write_text("Edema\nMass\n")
    chosen = open_labelled_evaluation(file, LabelRules(names=("Mass",)))
    assert (chosen.class_names, chosen.labels.ravel().tolist()) == (("Mass",), [0, 0, 1])
    with pytest.raises(InputError, match=r"train_labels has 2 labels of each image; pass `task` m"):
        open_training(file)
    one = write(tmp_path / "one.npz", arrays())
    with pytest.raises(InputError, match=r"one number for each image, which is its class; pass"):
        open_labelled_training(one, None, PLAIN)
    with pytest.raises(UsageError, match="`label_column` is for tables"):
        open_labelled_training(file, None, LabelRules(label_column="Mass"))
    (tmp_path / "classes.txt").write_text("Edema\n")
    with pytest.raises(InputError, match=r"classes.txt: has 1 names, but .* has 2 labels"):
        open_labelled_training(file, None, PLAIN)


def test_a_label_of_several_that_is_neither_1_nor_0_is_named(tmp_path: Path) -> None:
    wrong = SEVERAL.copy()
    wrong[4, 1] = 7
    with pytest.raises(InputError, match=r'train_labels, row 4, label 1: "7" is not a label'):
        open_labelled_training(write(tmp_path / "a.npz", arrays(labels=wrong)), None, PLAIN)


def test_pack_writes_the_pixels_and_the_labels(tmp_path: Path) -> None:
    file = write(tmp_path / "chest.npz", arrays(COLOUR, SEVERAL))
    output = tmp_path / "shards"
    pack(PackConfig(source=str(file), output=str(output), task="multilabel"))
    packed, val = open_labelled_training(output, None, PLAIN)
    train, _ = open_labelled_training(file, None, PLAIN)
    assert val is not None and packed.labels.tolist() == train.labels.tolist()
    assert torch.equal(epoch_bytes(packed, 0), epoch_bytes(train, 0))


def test_an_archive_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    small = {name: array[:2] for name, array in arrays().items() if name.startswith("train")}
    file = write(tmp_path / "a.npz", small)
    for length in reversed(range(file.stat().st_size)):
        os.truncate(file, length)
        with pytest.raises(InputError, match=r"a.npz") as told:
            open_training(file)
        assert "\n" not in str(told.value)


def test_archives_that_were_put_together_are_refused(tmp_path: Path) -> None:
    """Those before the last were passed over without a word."""
    file = write(tmp_path / "x.npz", arrays())
    whole = file.read_bytes()
    file.write_bytes(whole * 2)
    told = rf"x.npz: has {len(whole)} bytes before its first array, as files do that cat"
    with pytest.raises(InputError, match=told):
        open_training(file)


def test_a_changed_byte_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    small = {name: array[:3] for name, array in arrays().items() if name.startswith("train")}
    file = write(tmp_path / "a.npz", small)
    whole = file.read_bytes()
    expected = open_training(file)[0]
    for at in range(0, len(whole), 3):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            found = open_training(file)[0]
        except InputError as error:
            assert "\n" not in str(error)
            continue
        assert found.labels.tolist() == expected.labels.tolist()
        assert all(np.array_equal(found.read(i), expected.read(i)) for i in range(len(expected)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": GREY.astype(np.float32)}, "train_images are float32 of the shape"),
        ({"train_images": GREY[None]}, r"of the shape \(1, 12, 9, 7\); uint8 of the shape \(N, H"),
        ({"train_images": np.zeros((6, 2, 2, 2, 3), np.uint8)}, r"\(N, H, W, 3\) is needed"),
        ({"train_images": GREY[:5]}, "has 5 train_images, but 6 labels"),
        ({"train_labels": np.zeros((6, 1), np.float32)}, "whole numbers of the shape"),
        ({"train_labels": np.array([{}] * 6)}, "train_labels has Python objects, which are not"),
        ({"train_labels": np.full((6, 1), -1)}, 'has the label "-1", which is no class'),
    ],
)
def test_arrays_that_cannot_be_used_are_one_line(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as told:
        open_training(write(tmp_path / "a.npz", arrays() | change))
    assert "\n" not in str(told.value)


def test_archives_in_other_layouts_are_named_with_what_they_have(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\(MedMNIST's layout\), but x, y"):
        open_training(write(tmp_path / "a.npz", {"x": GREY, "y": GREY}))
    content = arrays()
    del content["train_labels"]
    with pytest.raises(InputError, match="no train_labels beside train_images"):
        open_training(write(tmp_path / "a.npz", content))
    (tmp_path / "a.npz").write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(InputError, match=r"a\.npz: is a web page"):
        open_training(tmp_path / "a.npz")


def test_a_shape_that_claims_more_than_there_is_reads_nothing(tmp_path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 9, 7)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as out:
        out.writestr("train_images.npy", head.getvalue() + b"x" * 63)
        out.writestr("train_labels.npy", head.getvalue())
    with pytest.raises(InputError, match=r"train_images has 63 bytes, but its shape"):
        open_training(tmp_path / "a.npz")
