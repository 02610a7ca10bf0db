"""Which images a folder holds, which class each has, and what is said of a folder without."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from densenet121.datasets.image_dataset import ImageDataset, check_num_classes, check_same_classes
from densenet121.datasets.sources.folder import scan
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.layout import evaluation_folder, split_folders
from densenet121.datasets.sources.open_table import open_labelled_training
from densenet121.utils.errors import InputError, UsageError


def put(root: Path, *paths: str, content: bytes = b"pixels") -> Path:
    """Files below ``root``; scanning looks at names and sizes only."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return root


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return put(tmp_path / "data", "cat/1.jpg", "cat/2.jpg", "dog/1.jpg")


def test_classes_come_in_byte_order_as_in_the_original(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/1.jpg", "n9/1.jpg", "n10/1.jpg", "Z/1.jpg", "\xe4/1.jpg")
    assert scan(tmp_path).class_names == ("Z", "a", "b", "n10", "n9", "\xe4")


def test_images_come_by_class_and_then_in_byte_order_of_their_path(tmp_path: Path) -> None:
    put(tmp_path, "a/b/2.jpg", "a/b-c.jpg", "a/10.jpg", "a/9.jpg", "Z/z.png", "a/A.JPEG")
    folder = scan(tmp_path)
    assert folder.root == tmp_path
    # "-" sorts before "/"
    expected = ("Z/z.png", "a/10.jpg", "a/9.jpg", "a/A.JPEG", "a/b-c.jpg", "a/b/2.jpg")
    assert folder.paths == expected
    assert folder.labels.tolist() == [0, 1, 1, 1, 1, 1]
    assert folder.labels.dtype == folder.sizes.dtype == np.int64
    assert len(folder) == 6


def test_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", content=b"")
    put(tmp_path, "b/1.jpg", content=b"12345")
    assert scan(tmp_path).sizes.tolist() == [0, 5]


def test_sub_folders_belong_to_their_class_at_any_depth(tmp_path: Path) -> None:
    put(tmp_path, "cat/x/y/z/1.jpg", "dog/1.jpg", "dog/1.jpg.d/2.jpg")
    folder = scan(tmp_path)
    assert folder.class_names == ("cat", "dog")
    assert folder.paths == ("cat/x/y/z/1.jpg", "dog/1.jpg", "dog/1.jpg.d/2.jpg")


def test_hidden_files_and_folders_are_passed_over(small: Path) -> None:
    before = scan(small)
    put(small, ".git/1.jpg", "cat/.1.jpg.swp", "cat/.DS_Store", "cat/.thumbs/1.jpg", "cat/._1.jpg")
    after = scan(small)
    assert (after.class_names, after.paths, after.ignored) == (
        before.class_names,
        before.paths,
        (),
    )


@pytest.mark.parametrize("name", ["@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "lost+found"])
def test_previews_and_removed_images_of_systems_are_no_images(name: str, small: Path) -> None:
    before = scan(small)
    put(
        small, f"{name}/cat/1.jpg/THUMB_M.jpg", f"cat/{name}/1.jpg/THUMB_M.jpg", f"dog/{name}/3.jpg"
    )
    after = scan(small)
    assert (after.class_names, after.paths) == (before.class_names, before.paths)


def test_files_that_are_no_images_are_listed(small: Path) -> None:
    put(small, "cat/notes.txt", "cat/jpg", "dog/x/a.mp4", "readme.md")
    folder = scan(small)
    assert folder.ignored == ("cat/jpg", "cat/notes.txt", "dog/x/a.mp4")
    assert len(folder) == 3


def test_every_format_that_is_read_is_found(tmp_path: Path) -> None:
    names = "jpg JPG jpeg jpe jfif png PNG bmp webp gif tif tiff ppm pgm pbm pnm"
    files = [f"{name}/1.{name}" for name in names.split()]
    put(tmp_path, *files)
    assert sorted(scan(tmp_path).paths) == sorted(files)


def test_names_that_are_not_utf8_are_taken_as_they_are(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    put(tmp_path, f"{name}/1.jpg", f"dog/{name}.jpg")
    folder = scan(tmp_path)
    assert folder.paths == (f"{name}/1.jpg", f"dog/{name}.jpg")
    assert len(folder.fingerprint) == 64


def test_linked_files_and_folders_are_followed(small: Path, tmp_path: Path) -> None:
    elsewhere = put(tmp_path / "elsewhere", "a.jpg", "b.jpg", content=b"1234567")
    (small / "cat" / "link.jpg").symlink_to(elsewhere / "a.jpg")
    (small / "eel").symlink_to(elsewhere, target_is_directory=True)
    folder = scan(small)
    assert folder.class_names == ("cat", "dog", "eel")
    linked = [folder.paths.index(path) for path in ("cat/link.jpg", "eel/a.jpg", "eel/b.jpg")]
    assert folder.sizes[linked].tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    ("link", "target", "message"),
    [
        ("cat/3.jpg", "/gone", r"cat/3\.jpg: is a link to /gone, which is not there; remove "),
        ("cat/a/3.jpg", "/gone", r"cat/a/3\.jpg: cannot be read \(a link to /gone, which is "),
        ("cat/3.jpg", "../.git/annex/objects/x/3.jpg", "which is not there; run git annex get "),
        # A class on a disk that is not mounted was left out.
        ("eel", "/mnt/eel", "eel: is a link to /mnt/eel, which is not there; remove .*, or mount"),
    ],
)
def test_a_link_that_leads_nowhere_is_an_error_that_names_it(
    link: str, target: str, message: str, small: Path
) -> None:
    (small / link).parent.mkdir(exist_ok=True)
    (small / link).symlink_to(target)
    with pytest.raises(InputError, match=message):
        scan(small)


def test_a_split_that_is_not_mounted_is_no_missing_split(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.jpg", "train/b/1.jpg")
    (tmp_path / "val").symlink_to("/mnt/val")
    for place in (tmp_path, tmp_path / "train"):
        with pytest.raises(InputError, match=r"/val: is a link to /mnt/val, which is not there"):
            split_folders(place, None)


def test_a_link_in_a_circle_ends(small: Path) -> None:
    (small / "cat" / "again").symlink_to(small / "cat", target_is_directory=True)
    with pytest.raises(InputError, match=r"again: cannot be read \(Too many levels"):
        scan(small)


def test_a_folder_that_cannot_be_used_is_named_with_its_setting(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(InputError, match=f"^`data_dir` {missing}: there is no such folder$"):
        scan(missing)
    with pytest.raises(InputError, match=f"^`val_dir` {missing}: there is no such folder$"):
        scan(missing, "val_dir")
    with pytest.raises(InputError, match=r"list.csv: there is no such file or folder$"):
        scan(tmp_path / "list.csv")
    put(tmp_path, "file")
    with pytest.raises(InputError, match=f"^`data_dir` {tmp_path / 'file'}: it is a file$"):
        scan(tmp_path / "file")


@pytest.mark.parametrize(
    ("table", "advice"),
    [
        ("metadata.csv", "if .*metadata.csv has paths and labels, pass it"),
        ("metadata.jsonl", "write .*metadata.jsonl as a .csv with the columns file_name and label"),
    ],
)
def test_a_table_beside_images_without_classes_is_pointed_to(
    table: str, advice: str, tmp_path: Path
) -> None:
    put(tmp_path / "train", "1.jpg", table)
    put(tmp_path / "test", "2.jpg", table)
    with pytest.raises(InputError, match=f"right inside train/, without a class; {advice}"):
        scan(tmp_path / "train")
    with pytest.raises(InputError, match=f"are names of splits.*lines; {advice}"):
        scan(tmp_path)
    with pytest.raises(InputError, match=f"has no labels.csv; .*; {advice}"):
        open_labelled_training(tmp_path / "train", None, LabelRules())


def test_a_class_of_files_without_the_name_of_an_image_says_so(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.jpg", "dog/scan.nii.gz", "dog/IM000001")
    with pytest.raises(InputError, match=r"no images but 2 other files, first dog/IM000001; "):
        scan(tmp_path)


def test_a_folder_that_leads_to_packed_images_says_where_they_are(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    put(raw, "train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    with pytest.raises(InputError, match=f"raw/ has packed images, so pass {raw}"):
        scan(tmp_path)


def test_validation_images_that_are_packed_one_folder_below_are_pointed_to(tmp_path: Path) -> None:
    raw = put(tmp_path / "all" / "raw", "part.tar")
    with pytest.raises(InputError, match=f"no image in its .*packed images, so pass {raw}$"):
        scan(tmp_path / "all", partial=True)
    put(tmp_path / "hollow", "cat/notes.txt", "dog/notes.txt")
    with pytest.raises(InputError, match=r"no image in its .*; names of images end in \.bmp, "):
        scan(tmp_path / "hollow", partial=True)


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        ((), "no class folder"),
        (("1.jpg", "2.jpg"), "no class folder"),
        ((".hidden/1.jpg",), "no class folder"),
        (("cat/1.jpg",), r"only one class folder \(cat\)"),
        (("cat/1.jpg", "1.jpg"), r"only one class folder \(cat\)"),
    ],
)
def test_less_than_two_classes_are_refused(
    paths: tuple[str, ...], found: str, tmp_path: Path
) -> None:
    put(tmp_path, *paths)
    with pytest.raises(InputError, match=f"{tmp_path}: {found}; at least two are needed"):
        scan(tmp_path)


@pytest.mark.parametrize("inside", [(), ("notes.txt",), (".1.jpg",), ("x/y/",)])
def test_a_class_without_images_is_refused(inside: tuple[str, ...], small: Path) -> None:
    (small / "bat").mkdir()
    for name in inside:
        if name.endswith("/"):
            (small / "bat" / name).mkdir(parents=True)
        else:
            put(small, f"bat/{name}")
    with pytest.raises(InputError, match=f"{small / 'bat'}: this class folder has no images"):
        scan(small)


@pytest.mark.parametrize("name", ["IM0001", "1.2.840.7", "scan.IMA"])
def test_a_class_of_dicom_files_without_its_extension_is_told_to_rename_them(
    name: str, small: Path
) -> None:
    put(small, "bat/notes.txt")
    for file in ("DICOMDIR", name):
        (small / "bat" / file).write_bytes(bytes(128) + b"DICM" + bytes(9))
    reason = rf"but 3 other files, .*; bat/{name} begins like DICOM; rename such files to names"
    with pytest.raises(InputError, match=reason) as caught:
        scan(small)
    assert "remove" not in str(caught.value) and ".dcm" in str(caught.value)


def test_training_and_validation_images_under_one_root(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg")
    train, val = tmp_path / "train", tmp_path / "val"
    assert split_folders(tmp_path, None) == (train, val)
    assert split_folders(train, None) == (train, val)  # the val beside train
    assert split_folders(tmp_path, tmp_path / "other") == (train, tmp_path / "other")
    assert split_folders(val, None) == (val, None)
    assert evaluation_folder(tmp_path) == val
    assert evaluation_folder(train) == train
    assert evaluation_folder(val) == val


def test_training_images_without_validation(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.jpg", "train/b/1.jpg")
    assert split_folders(tmp_path, None) == (tmp_path / "train", None)
    with pytest.raises(UsageError, match=r"has train/ but no val/; pass the folder to evaluate"):
        evaluation_folder(tmp_path)


def test_a_folder_of_classes_is_taken_as_it_is(small: Path) -> None:
    assert split_folders(small, None) == (small, None)
    assert evaluation_folder(small) == small
    put(small, "val/1.jpg")  # a class of that name, for there is no train
    assert split_folders(small, None) == (small, None)
    assert evaluation_folder(small) == small


def test_the_fingerprint_stays_where_the_data_does(small: Path, tmp_path: Path) -> None:
    before = scan(small).fingerprint
    assert scan(small).fingerprint == before
    os.utime(small / "cat" / "1.jpg", (0, 0))
    put(small, "cat/1.jpg", content=b"PIXELS")  # of the same size
    put(small, "cat/notes.txt", ".hidden/1.jpg")
    assert scan(small).fingerprint == before
    moved = tmp_path / "elsewhere"
    shutil.copytree(small, moved)
    assert scan(moved).fingerprint == before


def test_the_fingerprint_changes_with_every_path_size_label_and_class(small: Path) -> None:
    folder = scan(small)
    changed: list[ImageDataset] = [
        folder,
        replace(folder, paths=("cat/1.jpg", "cat/3.jpg", "dog/1.jpg")),
        replace(folder, sizes=np.array([6, 7, 6])),
        replace(folder, labels=np.array([0, 1, 1])),
        replace(folder, class_names=("cat", "dot")),
        replace(folder, paths=folder.paths[:2], labels=folder.labels[:2], sizes=folder.sizes[:2]),
        replace(folder, class_names=("catdog",)),
    ]
    assert len({one.fingerprint for one in changed}) == len(changed)
    assert replace(folder, root=Path("/"), ignored=("x",)).fingerprint == folder.fingerprint


def test_the_number_of_classes_must_fit_if_it_is_given(small: Path) -> None:
    folder = scan(small)
    assert check_num_classes(folder, None) == check_num_classes(folder, 2) == 2
    with pytest.raises(UsageError, match=f"`num_classes` is 3, but {small} has 2 classes"):
        check_num_classes(folder, 3)


@pytest.mark.parametrize(
    ("found", "difference"),
    [
        (["ant", "bee"], r"its 2 classes differ from the 3 of W \(missing: cat\)"),
        (["ant", "bee", "cat", "dog"], r"its 4 classes .* \(unknown: dog\)"),
        (["ant", "bee", "dog"], r"\(missing: cat; unknown: dog\)"),
        (["cat", "bee", "ant"], r"\(the same names in another order\)"),
        ([str(i) for i in range(10)], r"unknown: 0, 1, 2, 3, 4, 5, 6, 7 and 2 more\)"),
    ],
)
def test_other_classes_are_refused_with_the_difference(found: list[str], difference: str) -> None:
    check_same_classes(["ant", "bee", "cat"], "W", ["ant", "bee", "cat"], "data")
    with pytest.raises(InputError, match=f"^data: .*{difference}"):
        check_same_classes(["ant", "bee", "cat"], "W", found, "data")


@pytest.mark.parametrize(
    "names", [("train.csv", "val.csv"), ("train.csv",), ("train.txt", "val.txt")]
)
def test_a_folder_of_lists_says_how_to_pass_them(names: tuple[str, ...], tmp_path: Path) -> None:
    """As `split` writes it."""
    for name in names:
        (tmp_path / name).write_text("path,label\n")
    fields = ("data_dir", "val_dir")[: len(names)]
    passed = " ".join(f"`{f}` {tmp_path / n}" for f, n in zip(fields, names, strict=True))
    with pytest.raises(InputError, match=rf"no class folder; .*; for the lists .* pass {passed}$"):
        scan(tmp_path)
