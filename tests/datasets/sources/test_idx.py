"""IDX files: MNIST's layout, its splits, and damaged files."""

import gzip
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from densenet121.commands.pack import pack
from densenet121.config import PackConfig
from densenet121.datasets.sources.open import open_evaluation, open_training
from densenet121.utils.errors import InputError

from helpers.loading import epoch_bytes, png_list

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 9, 7), dtype=np.uint8)
LABELS = [0, 1, 2, 3] * 3
TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array: NDArray[np.uint8]) -> bytes:
    """By the description on MNIST's page."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def write(
    folder: Path,
    names: tuple[str, str] = TRAIN,
    part: slice = slice(None),
    suffix: str = "",
    images: NDArray[np.uint8] = IMAGES,
) -> Path:
    folder.mkdir(exist_ok=True)
    arrays = (images[part], np.array(LABELS[part], dtype=np.uint8))
    for name, array in zip(names, arrays, strict=True):
        data = idx(array)
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(data) if suffix else data)
    return folder


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_same_images_give_the_same_bytes_as_from_files(suffix: str, tmp_path: Path) -> None:
    source, val = open_training(write(tmp_path / "idx", suffix=suffix))
    assert val is None
    listed, _ = open_training(png_list(tmp_path, IMAGES, LABELS))
    assert (source.class_names, source.labels.tolist()) == (("0", "1", "2", "3"), LABELS)
    assert source.paths[:2] == ["train/00000", "train/00001"]
    for workers in (0, 2):
        assert torch.equal(epoch_bytes(source, workers), epoch_bytes(listed, 0))


def test_the_test_images_are_validated_on_and_the_log_says_so(tmp_path: Path) -> None:
    write(tmp_path, part=slice(0, 8))
    write(tmp_path, TEST, slice(8, 12), ".gz")
    (tmp_path / "classes.txt").write_text("shirt\nbag\nboot\nsandal\n")
    train, val = open_training(tmp_path)
    assert val is not None
    assert (len(train), len(val), train.notes) == (8, 4, ())
    assert train.class_names == val.class_names == ("shirt", "bag", "boot", "sandal")
    assert "no validation images, so the test images are used" in val.notes[0]
    assert open_evaluation(tmp_path).paths == val.paths == [f"t10k/{i:05d}" for i in range(4)]
    np.testing.assert_array_equal(val.read(1), cv2.cvtColor(IMAGES[9], cv2.COLOR_GRAY2RGB))


def test_names_may_have_a_dot_and_a_gzipped_copy_beside(tmp_path: Path) -> None:
    write(tmp_path, ("train-images.idx3-ubyte", "train-labels.idx1-ubyte"))
    write(tmp_path, suffix=".gz")
    dataset, _ = open_training(tmp_path)
    assert len(dataset) == 12 and len(dataset.notes) == 2
    assert "train-images.idx3-ubyte is read, train-images-idx3-ubyte.gz" in dataset.notes[0]


def test_pack_writes_the_pixels(tmp_path: Path) -> None:
    write(tmp_path / "idx")
    pack(PackConfig(source=str(tmp_path / "idx"), output=str(tmp_path / "shards")))
    packed, _ = open_training(tmp_path / "shards")
    source, _ = open_training(tmp_path / "idx")
    assert packed.labels.tolist() == LABELS
    assert torch.equal(epoch_bytes(packed, 0), epoch_bytes(source, 0))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_file_cut_at_any_byte_is_refused(suffix: str, tmp_path: Path) -> None:
    write(tmp_path, suffix=suffix, part=slice(4), images=IMAGES[:, :3, :3])
    for name in TRAIN:
        file = tmp_path / f"{name}{suffix}"
        whole = file.read_bytes()
        for length in range(len(whole)):
            file.write_bytes(whole[:length])
            with pytest.raises(InputError, match=name) as told:
                open_training(tmp_path)
            assert "\n" not in str(told.value)
        file.write_bytes(whole)
    assert len(open_training(tmp_path)[0]) == 4


def test_a_changed_byte_of_a_gzipped_file_or_a_head_is_never_a_wrong_image(tmp_path: Path) -> None:
    write(tmp_path, suffix=".gz", part=slice(4), images=IMAGES[:, :3, :3])
    file = tmp_path / f"{TRAIN[0]}.gz"
    whole = file.read_bytes()
    expected = open_training(tmp_path)[0]
    for at in range(10, len(whole)):  # the head of a gzipped file has a time and a name
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        try:
            found = open_training(tmp_path)[0]
        except InputError:
            continue
        assert all(np.array_equal(found.read(i), expected.read(i)) for i in range(4))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (idx(IMAGES) + b"x", "has 757 bytes after its head, which says 12 x 9 x 7 = 756"),
        (b"\0\0\x0d\3" + idx(IMAGES)[4:], "not an IDX file of unsigned bytes in 3 dimensions"),
        (idx(IMAGES[0]), r"in 3 dimensions \(it begins with 00000802\)"),
        (b"\0\0\x08\3" + b"\xff" * 12, "which says 4294967295 x 4294967295 x 4294967295"),
        (idx(IMAGES[:5]), "has 5 images, but train-labels-idx1-ubyte has 12 labels"),
        (idx(IMAGES[:, :0]), "no images|12 images, but"),
        (b"", r"begins with nothing"),
    ],
)
def test_images_that_cannot_be_used_are_one_line(data: bytes, message: str, tmp_path: Path) -> None:
    write(tmp_path)
    for suffix in ("", ".gz"):
        (tmp_path / TRAIN[0]).unlink(missing_ok=True)
        (tmp_path / f"{TRAIN[0]}{suffix}").write_bytes(gzip.compress(data) if suffix else data)
        with pytest.raises(InputError, match=message) as told:
            open_training(tmp_path)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_pointer_in_place_of_images_is_named(suffix: str, tmp_path: Path) -> None:
    file = write(tmp_path, suffix=suffix) / f"{TRAIN[0]}{suffix}"
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(InputError, match=rf"{file.name}: is a git-LFS pointer"):
        open_training(tmp_path)


def test_labels_that_are_missing_or_beyond_the_names_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(InputError, match=r"train-labels-idx1-ubyte: labels that are not in .*: 3"):
        open_training(tmp_path)
    (tmp_path / TRAIN[1]).unlink()
    with pytest.raises(InputError, match=r"has no train-labels-idx1-ubyte, nor one that ends in"):
        open_training(tmp_path)
