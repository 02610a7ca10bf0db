"""The kept index of a large folder: the same images, noticed changes, no trust in damage."""

import time
from pathlib import Path

import numpy as np
import pytest

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.packed_strings import Names, from_npz, to_npz
from densenet121.datasets.sources import index_cache
from densenet121.datasets.sources.folder import scan
from densenet121.datasets.sources.index_cache import scan_cached
from densenet121.utils.errors import InputError


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes with a sub-folder, just large enough to be worth an index."""
    root = tmp_path_factory.mktemp("large") / "data"
    for name in ("a/sub", "b"):
        folder = root / name
        folder.mkdir(parents=True)
        first = folder / "0.jpg"
        first.write_bytes(name.encode())
        for number in range(1, index_cache._LEAST_CACHED // 2):
            (folder / f"{number}.jpg").hardlink_to(first)
    (root / "a" / "notes.txt").write_text("x")
    return root


def kept(cache: Path) -> list[Path]:
    return list((cache / ".index").glob("*.npz"))


def check_same(found: ImageDataset, expected: ImageDataset) -> None:
    for name in ("root", "class_names", "paths", "ignored", "fingerprint"):
        assert getattr(found, name) == getattr(expected, name)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.sizes, expected.sizes)


def test_the_index_gives_what_the_folder_gives(large: Path, tmp_path: Path) -> None:
    expected = scan(large)
    check_same(scan_cached(large, "", tmp_path), expected)
    assert len(kept(tmp_path)) == 1
    found = scan_cached(large, "", tmp_path)
    check_same(found, expected)
    assert found.known_fingerprint is not None  # it does come from the index
    assert found.read(0) == expected.read(0)


def test_adding_removing_and_renaming_are_noticed(large: Path, tmp_path: Path) -> None:
    scan_cached(large, "", tmp_path)
    file, other = large / "a/sub/new.jpg", large / "a/sub/newer.jpg"
    for change in (
        lambda: file.write_bytes(b"x"),
        lambda: file.rename(other),
        other.unlink,
    ):
        time.sleep(0.02)
        change()
        check_same(scan_cached(large, "", tmp_path), scan(large))


def test_another_root_has_another_index(large: Path, tmp_path: Path) -> None:
    scan_cached(large, "", tmp_path)
    (tmp_path / "link").symlink_to(large)
    assert scan_cached(tmp_path / "link", "", tmp_path).root == tmp_path / "link"
    moved = large.with_name("moved")
    large.rename(moved)
    try:
        assert scan_cached(moved, "", tmp_path).root == moved
    finally:
        moved.rename(large)


def test_a_damaged_index_is_made_again(large: Path, tmp_path: Path) -> None:
    expected = scan_cached(large, "", tmp_path)
    (file,) = kept(tmp_path)
    good = file.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [b"", b"x", good[:100], good[: len(good) // 2]]
    for _ in range(10):
        changed = bytearray(good)
        changed[rng.integers(len(changed))] ^= 255
        damaged.append(bytes(changed))
    for content in damaged:
        file.write_bytes(content)
        check_same(scan_cached(large, "", tmp_path), expected)


def test_an_index_with_labels_that_are_no_classes_is_made_again(
    large: Path, tmp_path: Path
) -> None:
    expected = scan_cached(large, "", tmp_path)
    (file,) = kept(tmp_path)
    good = from_npz(file)
    for labels in (good["labels"] + 1, good["labels"] - 1, good["labels"] * 1.0):
        file.write_bytes(to_npz({**good, "labels": labels}))
        check_same(scan_cached(large, "", tmp_path), expected)


def test_a_folder_for_the_index_that_cannot_be_written_is_no_error(
    large: Path, tmp_path: Path
) -> None:
    (tmp_path / ".index").write_text("a file")
    check_same(scan_cached(large, "", tmp_path), scan(large))


def test_small_folders_leave_no_index(image_folder: Path, tmp_path: Path) -> None:
    scan_cached(image_folder / "train", "", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_arrays_and_names_survive_a_file(tmp_path: Path) -> None:
    odd = Names.of(["", "caf\udce9", "x"])
    (tmp_path / "x.npz").write_bytes(
        to_npz({"names": odd, "none": Names.of([]), "a": np.arange(3)})
    )
    found = from_npz(tmp_path / "x.npz")
    assert found["names"] == odd and len(found["none"]) == 0
    assert found["a"].tolist() == [0, 1, 2]


def test_an_index_of_validation_does_not_pass_for_one_of_training(
    large: Path, tmp_path: Path
) -> None:
    """Validation may lack the images of a class, training may not."""
    (large / "c").mkdir()
    try:
        for _ in range(2):  # written, and read
            found = scan_cached(large, "val_dir", tmp_path, partial=True)
            assert found.class_names == ("a", "b", "c") and found.counts()[2] == 0
            assert len(kept(tmp_path)) == 1
            with pytest.raises(InputError, match="c: this class folder has no images"):
                scan_cached(large, "data_dir", tmp_path)
    finally:
        (large / "c").rmdir()
