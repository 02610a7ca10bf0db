"""HDF5 files of pixels: one file, halves as of PatchCamelyon, labels, splits, damage."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densenet121.commands.pack import pack
from densenet121.config import PackConfig
from densenet121.datasets.sources import hdf5_file
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.open import open_evaluation, open_training
from densenet121.datasets.sources.open_table import (
    open_labelled_evaluation,
    open_labelled_training,
)
from densenet121.utils.errors import InputError, UsageError

from helpers.loading import epoch_bytes, png_list

h5py = pytest.importorskip("h5py", reason="the extra `hdf5` is not installed")

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 9, 7), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 9, 7, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2] * 4)
SEVERAL = np.array([[1, 0], [0, 0], [1, 1]] * 4, dtype=np.uint8)
PLAIN = LabelRules()


def write(file: Path, arrays: dict[str, Any], **settings: Any) -> Path:
    """A file of arrays; ``settings`` are those of the images' storage."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as opened:
        for name, array in arrays.items():
            stored = settings if np.ndim(array) > 2 else {}
            opened.create_dataset(name, data=array, **stored)
    return file


STORED: dict[str, dict[str, Any]] = {
    "in one piece": {},
    "in pieces": {"chunks": (5, 9, 7, 3)},
    "packed across": {"chunks": (4, 3, 2, 1), "compression": "gzip", "shuffle": True},
    "packed by lzf": {"compression": "lzf", "fletcher32": True},
}


@pytest.mark.parametrize("stored", STORED)
def test_the_same_images_give_the_same_bytes_as_from_files(stored: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.h5", {"images": COLOUR, "ans": LABELS}, **STORED[stored])
    found, val = open_training(file)
    listed, _ = open_training(png_list(tmp_path, COLOUR, LABELS.tolist()))
    assert val is None and found.notes == ()
    assert (found.class_names, found.labels.tolist()) == (("0", "1", "2"), LABELS.tolist())
    assert (found.paths[11], found.sizes.tolist()) == ("a.h5/00000011", [9 * 7 * 3] * 12)
    for workers in (0, 2):
        assert torch.equal(epoch_bytes(found, workers), epoch_bytes(listed, 0))


@pytest.mark.parametrize("shape", [(12, 9, 7), (12, 9, 7, 1)])
def test_grey_images_have_three_equal_channels(shape: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "a.hdf5", {"x": GREY.reshape(shape), "y": LABELS})
    found = open_evaluation(file)
    for index, image in enumerate(GREY):
        np.testing.assert_array_equal(found.read(index), np.stack([image] * 3, axis=-1))


def test_few_blocks_of_rows_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_file, "_MOST_CACHED_BYTES", 3 * 9 * 7 * 3)
    file = write(tmp_path / "a.h5", {"x": COLOUR, "y": LABELS}, chunks=(2, 9, 7, 3))
    found = open_evaluation(file)
    for index in [0, 11, 3, 2, 0, 7, *range(12)]:
        np.testing.assert_array_equal(found.read(index), COLOUR[index])
    wide = write(tmp_path / "b.h5", {"x": COLOUR, "y": LABELS}, chunks=(4, 9, 7, 3))
    with pytest.raises(InputError, match=r"b.h5: x is stored in pieces of 4 rows, 756 bytes; at"):
        open_evaluation(wide)


def halves(folder: Path, splits: dict[str, slice]) -> Path:
    """As PatchCamelyon's: labels are (N, 1, 1, 1), and the training images have masks."""
    labels = (LABELS % 2).astype(np.uint8)[:, None, None, None]
    for split, part in splits.items():
        start = folder / f"camelyonpatch_level_2_split_{split}"
        write(start.with_name(f"{start.name}_x.h5"), {"x": COLOUR[part]})
        write(start.with_name(f"{start.name}_y.h5"), {"y": labels[part]})
    return folder


PCAM = {"train": slice(0, 6), "valid": slice(6, 9), "test": slice(9, 12)}


def test_patch_camelyon_is_read_as_it_is(tmp_path: Path) -> None:
    folder = halves(tmp_path / "pcam", PCAM)
    train, val = open_training(folder)
    assert val is not None and (train.notes, val.notes) == ((), ())
    assert train.class_names == val.class_names == ("0", "1")
    assert (train.labels.tolist(), val.labels.tolist()) == ([0, 1, 0, 0, 1, 0], [0, 1, 0])
    assert val.paths[0] == "camelyonpatch_level_2_split_valid_x.h5/00000000"
    test = open_evaluation(folder / "camelyonpatch_level_2_split_test_x.h5")
    np.testing.assert_array_equal([val.read(0), test.read(2)], COLOUR[[6, 11]])
    with pytest.raises(InputError, match=r"valid_y.h5: no images .*\(N, H, W, 3\)\), but y \(uint"):
        open_evaluation(folder / "camelyonpatch_level_2_split_valid_y.h5")


def test_masks_beside_the_images_are_not_read(tmp_path: Path) -> None:
    folder = halves(tmp_path, PCAM)
    write(folder / "camelyonpatch_level_2_split_train_mask.h5", {"mask": GREY[:6]})
    train, _ = open_training(folder)
    assert len(train) == 6
    assert train.notes == (f"{folder}: camelyonpatch_level_2_split_train_mask.h5 is not read",)
    inside = write(tmp_path / "in" / "a.h5", {"images": COLOUR, "mask": GREY, "label": LABELS})
    assert open_evaluation(inside).notes == (f"{inside}: the images are images; mask is not read",)


def test_halves_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = halves(tmp_path, {"train": slice(0, 6)})
    labels = folder / "camelyonpatch_level_2_split_train_y.h5"
    write(labels, {"y": LABELS[:5]})
    with pytest.raises(InputError, match=r"train_y.h5: no array with a row for each of the 6 imag"):
        open_training(folder)
    labels.unlink()
    with pytest.raises(InputError, match=r"train_x.h5: no array with a class of each of the 6 im"):
        open_training(folder)


def test_splits_go_by_the_names_of_the_files(tmp_path: Path) -> None:
    for name, part in (("train_cats.h5", slice(0, 9)), ("test_cats.h5", slice(9, 12))):
        write(tmp_path / name, {"x": COLOUR[part], "y": LABELS[part]})
    train, val = open_training(tmp_path)
    assert val is not None and (len(train), len(val)) == (9, 3)
    assert "no file is named after validation, so the test images are used" in val.notes[0]


def test_classes_are_texts_or_numbers_also_as_floats(tmp_path: Path) -> None:
    texts = [["ant", "bee", "c\u00e4t"][n] for n in LABELS]
    bytes_ = np.array([text.encode() for text in texts])
    fixed = bytes_.astype(h5py.string_dtype("utf-8", 5))
    for number, labels in enumerate((bytes_, fixed, LABELS.astype(np.float32), LABELS[:, None])):
        file = write(tmp_path / f"{number}.h5", {"x": COLOUR, "labels": labels})
        found = open_evaluation(file)
        names = ("ant", "bee", "c\u00e4t") if number < 2 else ("0", "1", "2")
        assert (found.class_names, found.labels.tolist()) == (names, LABELS.tolist())
    (tmp_path / "classes.txt").write_text("one\ntwo\nthree\n")
    assert open_evaluation(tmp_path / "3.h5").class_names == ("one", "two", "three")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": COLOUR}, r"no array with a class of each of the 12 images; call one y or labels"),
        ({"x": COLOUR, "y": LABELS[:11]}, r"no array with a class .*, y \(int64 \[11\]\)"),
        ({"x": COLOUR, "y": LABELS, "label": LABELS}, r"several arrays with a class .*label \(int"),
        ({"x": COLOUR, "a": LABELS, "b": LABELS}, r"several arrays .*a \(int64 \[12\]\), b \(int6"),
        ({"x": COLOUR, "y": SEVERAL}, r"y has 2 labels of each image; pass `task` multilabel"),
        ({"x": COLOUR, "y": LABELS / 2}, r"y has 0.5; a class is a whole number or a text"),
        ({"x": COLOUR, "y": LABELS - 1}, r"row 0: has the label \"-1\", which is no class"),
        ({"x": COLOUR / 255, "y": LABELS}, r"no images .* but x \(float64 \[12, 9, 7, 3\]\), y"),
        ({"x": COLOUR.transpose(0, 3, 1, 2), "y": LABELS}, r"no images .* \[12, 3, 9, 7\]\)"),
        ({"train/x": GREY, "test/x": COLOUR, "y": LABELS}, r"can each be the images; write each "),
        ({"x": COLOUR, "y": LABELS, "split": np.array([b"train", b"test"] * 6)}, r"several splits"),
        (
            {"x": COLOUR, "y": ["ant", "bee", "cat"] * 4},
            r"y has texts of any length, which are",
        ),
        ({}, r"no images \(uint8, \(N, H, W\) or \(N, H, W, 3\)\), but nothing"),
    ],
)
def test_what_cannot_be_used_is_named(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as error:
        open_training(write(tmp_path / "a.h5", arrays))
    assert str(error.value).startswith(str(tmp_path / "a.h5"))


EXPECTED = SEVERAL.tolist()


@pytest.mark.parametrize("form", ["array", "floats", "columns", "chosen"])
def test_several_labels_are_read(form: str, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("nodule\nmass\n")
    patients = np.array([b"p%d" % (n // 2) for n in range(12)])
    forms: dict[str, tuple[dict[str, Any], LabelRules]] = {
        "array": ({"y": SEVERAL}, PLAIN),
        "floats": ({"y": SEVERAL.astype(np.float32)}, PLAIN),
        "columns": (dict(zip(("nodule", "mass"), SEVERAL.T == 1, strict=True)), PLAIN),
        "chosen": ({"a": SEVERAL, "b": 1 - SEVERAL}, LabelRules(label_column="a")),
    }
    arrays, rules = forms[form]
    if form == "columns":
        rules = LabelRules(names=("nodule", "mass"))
    file = write(tmp_path / "a.h5", {"x": COLOUR, "patient": patients} | arrays)
    with h5py.File(file, "a") as opened:
        opened["site"] = ["north"] * 12
    found, val = open_labelled_training(file, None, rules)
    assert found.notes[0].startswith(f"{file}: site is not read: texts of any length; write them")
    assert (val, found.class_names, found.labels.tolist()) == (None, ("nodule", "mass"), EXPECTED)
    assert found.columns["patient"][:3] == ["p0", "p0", "p1"]
    np.testing.assert_array_equal(found.read(7), COLOUR[7])


def test_labels_that_are_not_known_follow_the_rules_of_tables(tmp_path: Path) -> None:
    labels = SEVERAL.astype(np.float64)
    labels[3] = np.nan, -1
    file = write(tmp_path / "a.h5", {"x": COLOUR, "y": labels})
    with pytest.raises(InputError, match=r"of 12 rows these are -1 \(uncertain\): 1"):
        open_labelled_training(file, None, PLAIN)
    rules = LabelRules(missing="ignore", uncertain="1")
    found = open_labelled_evaluation(file, rules)
    assert np.isnan(found.labels[3, 0]) and found.labels[3, 1] == 1
    both = write(tmp_path / "b.h5", {"x": COLOUR, "a": SEVERAL, "b": SEVERAL})
    with pytest.raises(UsageError, match=r"a \(uint8 \[12, 2\]\), b .* could be the labels; pass "):
        open_labelled_training(both, None, PLAIN)
    with pytest.raises(UsageError, match="`path_column` is for tables of text"):
        open_labelled_training(both, None, LabelRules(path_column="p"))


def test_pack_keeps_images_and_labels(tmp_path: Path) -> None:
    folder = halves(tmp_path / "pcam", PCAM)
    pack(PackConfig(source=str(folder), output=str(tmp_path / "shards")))
    packed, source = open_training(tmp_path / "shards"), open_training(folder)
    for one, other in zip(packed, source, strict=True):
        assert one is not None and other is not None
        assert torch.equal(epoch_bytes(one, 0), epoch_bytes(other, 0))


@pytest.mark.parametrize("shape", [(2**22 + 1,), (2**22 + 1, 1, 1, 1), (2**21, 3)])
def test_labels_of_which_few_bytes_unpack_to_many_are_refused(shape: Any, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as opened:
        opened["x"] = COLOUR
        opened.create_dataset("y", shape, np.uint8, chunks=True)
    with pytest.raises(InputError, match=r"a.h5: y unpacks to more than 4194304 bytes, though the"):
        open_training(tmp_path / "a.h5")


def test_a_file_of_which_few_bytes_unpack_to_many_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as opened:
        opened.create_dataset("x", (2**22, 32, 32), np.uint8, chunks=(64, 32, 32))
        opened["y"] = LABELS
    with pytest.raises(InputError, match=r"a.h5: x unpacks to more than 1073741824 bytes, though"):
        open_training(tmp_path / "a.h5")


def test_what_other_files_hold_is_not_read(tmp_path: Path) -> None:
    write(tmp_path / "b.h5", {"x": COLOUR, "y": LABELS})
    with h5py.File(tmp_path / "a.h5", "w") as opened:
        layout = h5py.VirtualLayout(COLOUR.shape, np.uint8)
        layout[:] = h5py.VirtualSource(tmp_path / "b.h5", "x", COLOUR.shape)
        opened.create_virtual_dataset("x", layout)
        opened["y"] = LABELS
    with pytest.raises(InputError, match=r"the numbers of x are in other files"):
        open_training(tmp_path / "a.h5")
    with h5py.File(tmp_path / "c.h5", "w") as opened:
        opened["x"] = h5py.ExternalLink(tmp_path / "b.h5", "x")
        opened["y"] = LABELS
    with pytest.raises(InputError, match=r"c.h5: no images .* but y \(int64 \[12\]\)"):
        open_training(tmp_path / "c.h5")


def test_a_compression_that_is_not_known_is_named(tmp_path: Path) -> None:
    """As of PyTables: Blosc needs a plugin."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((4, *COLOUR.shape[1:]))
    settings.set_filter(32001, h5py.h5z.FLAG_OPTIONAL)
    with h5py.File(tmp_path / "a.h5", "w") as opened:
        space = h5py.h5s.create_simple(COLOUR.shape)
        h5py.h5d.create(opened.id, b"x", h5py.h5t.STD_U8LE, space, dcpl=settings)
        opened["y"] = LABELS
    with pytest.raises(InputError, match=r"a.h5: x is compressed by filter 32001, which is not"):
        open_training(tmp_path / "a.h5")


def test_a_file_that_was_written_anew_is_noticed(tmp_path: Path) -> None:
    file = write(tmp_path / "a.h5", {"x": COLOUR, "y": LABELS})
    found = open_evaluation(file)
    write(file, {"x": COLOUR[::-1], "y": LABELS})
    os.utime(file, (1, 1))
    with pytest.raises(InputError, match="has changed since it was opened"):
        found.read(0)


@pytest.mark.parametrize("cut", [3, 100, 1000])
def test_damage_is_named(cut: int, tmp_path: Path) -> None:
    file = write(tmp_path / "a.h5", {"x": COLOUR, "y": LABELS})
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"a.h5: damaged or not an HDF5 file"):
        open_training(file)
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(InputError, match=r"a.h5: is a git-LFS pointer"):
        open_training(file)


def test_weights_of_keras_beside_class_folders_are_not_taken_for_images(
    image_folder: Path, tmp_path: Path
) -> None:
    weights = write(image_folder / "train" / "model.h5", {"layer/kernel": np.ones((3, 3, 3, 4))})
    try:
        found, _ = open_training(image_folder)
        assert "the class folders are read; HDF5 files (model.h5) beside them" in found.notes[0]
    finally:
        weights.unlink()
    only = write(tmp_path / "w" / "model.h5", {"layer/kernel": np.ones((3, 3, 3, 4))})
    with pytest.raises(InputError, match=r"model.h5: no images .* but layer/kernel \(float64 \[3"):
        open_training(only.parent)
