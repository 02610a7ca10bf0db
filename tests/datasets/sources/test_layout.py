"""Which folder is a split and which a class; what is read where several sources lie together."""

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from densenet121.datasets.sources.folder import scan
from densenet121.datasets.sources.open import open_evaluation, open_splits, open_training
from densenet121.datasets.sources.splits import split_of, split_of_file
from densenet121.utils.errors import InputError, UsageError

from helpers.cifar import cifar


def put(root: Path, *paths: str) -> Path:
    """Files below ``root``; sources look at names and sizes only."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"pixels")
    return root


def tar(file: Path, *names: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as out:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 6
            out.addfile(member, io.BytesIO(b"pixels"))


CLASSES = ("a/1.jpg", "a/2.jpg", "b/1.jpg")


def split(name: str, files: tuple[str, ...] = CLASSES) -> list[str]:
    return [f"{name}/{file}" for file in files]


@pytest.mark.parametrize(
    ("name", "found"),
    [("TRAIN", "train"), ("Val", "val"), ("dev", "val"), ("testing", "test"), ("trains", None)],
)
def test_names_of_splits_are_those_of_the_hub(name: str, found: str | None) -> None:
    assert split_of(name) == found
    for rest in ("-00000-of-00001.parquet", ".tar", "_2.tar"):
        assert split_of_file(name + rest) == found


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_images_may_lie_in_valid_or_validation(name: str, tmp_path: Path) -> None:
    put(tmp_path, *split("train"), *split(name))
    _, val = open_training(tmp_path)
    assert val is not None and val.root == tmp_path / name
    assert open_evaluation(tmp_path).root == tmp_path / name
    beside = open_training(tmp_path / "train")[1]
    assert beside is not None and beside.root == val.root


def test_two_folders_of_validation_images_are_ambiguous(tmp_path: Path) -> None:
    put(tmp_path, *split("train"), *split("valid"), *split("val"))
    for read in (open_training, open_evaluation):
        with pytest.raises(UsageError, match=r"has val/ and valid/, .* pass one as `val_dir`"):
            read(tmp_path)
    _, val = open_training(tmp_path, tmp_path / "valid")
    assert val is not None and val.root == tmp_path / "valid"
    shutil.rmtree(tmp_path / "valid")
    (tmp_path / "valid").mkdir()  # nothing to choose from
    assert open_evaluation(tmp_path).root == tmp_path / "val"


def test_test_images_do_not_choose_the_best_weights(tmp_path: Path) -> None:
    put(tmp_path, *split("train"), *split("test"))
    train, val = open_training(tmp_path)
    assert val is None
    assert "test/ is not read" in train.notes[0] and "`val_dir`" in train.notes[0]
    with pytest.raises(UsageError, match=r"has train/ but no val/; pass .*/test$"):
        open_evaluation(tmp_path)
    put(tmp_path, *split("val"))
    assert open_training(tmp_path)[0].notes == ()


def test_a_folder_beside_train_that_is_not_read_is_named(tmp_path: Path) -> None:
    put(tmp_path, *split("train"), *split("Val"), "more/1.jpg", "notes/a.txt")
    train, val = open_training(tmp_path)
    assert val is None
    assert [note.split(": ", 1)[1] for note in train.notes] == [
        "Val/ is not read: validation images are expected in val/",
        "more/ beside train/ is not read",
    ]


@pytest.mark.parametrize(
    "names", [("Train", "Val"), ("training", "validation"), ("TEST", "TRAIN"), ("dev", "test")]
)
def test_splits_under_other_names_are_not_classes(names: tuple[str, str], tmp_path: Path) -> None:
    put(tmp_path, *split(names[0]), *split(names[1]))
    for source in (tmp_path, put(tmp_path, "extra/1.jpg")):
        for read in (open_training, open_evaluation, open_splits):
            with pytest.raises(InputError, match=r"are splits and not classes; call them"):
                read(source)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    put(tmp_path, "tractor/1.jpg", "train/1.jpg", "train/2.jpg", "trout/1.jpg")
    train, val = open_training(tmp_path)
    assert (train.class_names, val) == (("tractor", "train", "trout"), None)
    assert train.counts().tolist() == [1, 2, 1]
    assert open_evaluation(tmp_path).paths == train.paths
    # As a split it holds folders of classes, also with an image beside these.
    put(tmp_path, *split("train"))
    assert open_training(tmp_path)[0].class_names == ("a", "b")


def test_classes_called_as_splits_only_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "test/1.jpg", "train/1.jpg", "val/1.jpg")
    with pytest.raises(InputError, match=r"test, train, val are names of splits.* pass a list"):
        open_training(tmp_path)


def test_classes_with_folders_of_patients_are_classes(tmp_path: Path) -> None:
    put(tmp_path, "test/patient1/1.jpg", "control/patient2/1.jpg")
    assert open_training(tmp_path)[0].class_names == ("control", "test")


@pytest.mark.parametrize(
    "names",
    [
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("training_set/training_set", "test_set/test_set"),
        ("images-val", "images-train"),
    ],
)
def test_splits_are_not_classes_where_their_names_have_other_words(
    names: tuple[str, str], tmp_path: Path
) -> None:
    put(tmp_path, *split(names[0]), *split(names[1]))
    train, val = sorted(names, key=lambda name: "train" not in name)
    pair = f"pass `data_dir` {tmp_path / train} `val_dir` {tmp_path / val}$"
    for source in (tmp_path, put(tmp_path, "seg_pred/seg_pred/1.jpg")):
        for read in (open_training, open_evaluation, open_splits):
            with pytest.raises(InputError, match=f"are splits and not classes; .*{pair}"):
                read(source)


def test_classes_that_have_a_split_in_their_name_are_classes(tmp_path: Path) -> None:
    put(tmp_path, "train_station/p1/1.jpg", "test_track/p1/1.jpg", "test_track/p2/1.jpg")
    assert open_training(tmp_path)[0].class_names == ("test_track", "train_station")


def test_classes_with_splits_within_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "cat/train/1.jpg", "cat/test/2.jpg", "dog/train/1.jpg", "dog/test/2.jpg")
    for read in (open_training, open_evaluation, open_splits):
        with pytest.raises(
            InputError, match=rf"splits within \(test, train\); .*{tmp_path}/train/cat"
        ):
            read(tmp_path)
    put(tmp_path, "bird/1.jpg")  # now the folders within are no splits of all
    assert open_training(tmp_path)[0].class_names == ("bird", "cat", "dog")


def test_folders_that_may_be_the_classes_are_named(tmp_path: Path) -> None:
    put(tmp_path, *split("2023"), *split("2024"))
    train, _ = open_training(tmp_path)
    assert (train.class_names, len(train.notes)) == (("2023", "2024"), 1)
    assert "the classes are 2023, 2024, and each holds the folders a, b" in train.notes[0]
    put(tmp_path, "2024/1.jpg")
    assert open_training(tmp_path)[0].notes == ()


def test_class_folders_one_level_deeper_are_pointed_to(tmp_path: Path) -> None:
    put(tmp_path, *split("data/train"), *split("data/val"), *split("flat/flat"))
    with pytest.raises(InputError, match=f"flat/ holds a, b; .* pass {tmp_path}/flat/flat$"):
        open_training(tmp_path / "flat")
    shutil.rmtree(tmp_path / "flat")
    for read in (open_training, open_evaluation):
        with pytest.raises(InputError, match=f"data/ holds train/, so pass {tmp_path}/data$"):
            read(tmp_path)


def test_class_folders_are_read_and_not_an_archive_beside_them(tmp_path: Path) -> None:
    put(tmp_path, *CLASSES, "c.parquet")
    tar(tmp_path / "backup.tar", "a/1.jpg", "b/1.jpg")
    for found in (open_training(tmp_path)[0], open_evaluation(tmp_path)):
        assert found.paths == CLASSES
        assert found.notes == (
            f"{tmp_path}: the class folders are read; tar files (backup.tar) and Parquet files "
            "(c.parquet) beside them are not",
        )


def test_shards_are_read_where_the_folders_beside_them_are_no_classes(tmp_path: Path) -> None:
    tar(tmp_path / "x.tar", "a/1.jpg", "b/1.jpg")
    put(tmp_path, "thumbs/1.jpg", "notes/a.txt")
    found = open_evaluation(tmp_path)
    assert found.class_names == ("a", "b")
    assert found.notes == (f"{tmp_path}: the tar files are read; thumbs/ are not",)


def test_two_kinds_of_archives_are_ambiguous(tmp_path: Path) -> None:
    tar(tmp_path / "x.tar", "a/1.jpg", "b/1.jpg")
    put(tmp_path, "y.parquet")
    with pytest.raises(UsageError, match=r"tar files \(x.tar\) and Parquet files \(y.parquet\)"):
        open_training(tmp_path)


def test_cifar_is_read_beside_its_archive(tmp_path: Path) -> None:
    where, _, _ = cifar(tmp_path, "binary-10")
    tar(where / "cifar.tar", "a/1.jpg")
    train, val = open_training(where)
    assert val is not None and (len(train), len(val)) == (12, 6)
    assert "tar files (cifar.tar) are not" in train.notes[-1]


def test_a_folder_that_holds_the_source_deeper_is_told_so(tmp_path: Path) -> None:
    tar(tmp_path / "plain" / "x.tar", "a/1.jpg", "b/1.jpg")
    with pytest.raises(InputError, match=rf"plain/ has packed images, so pass {tmp_path}"):
        open_training(tmp_path)


@pytest.mark.parametrize("kind", ["empty", "absent"])
def test_validation_may_lack_a_class_and_training_may_not(kind: str, tmp_path: Path) -> None:
    put(tmp_path, *split("train", (*CLASSES, "c/1.jpg")), *split("val", ("a/1.jpg", "c/1.jpg")))
    if kind == "empty":
        (tmp_path / "val" / "b").mkdir()
    train, val = open_training(tmp_path)
    assert val is not None
    assert (val.class_names, val.labels.tolist()) == (train.class_names, [0, 2])
    assert "no image of b (1 of 3 classes)" in val.notes[0]
    with pytest.raises(InputError, match=rf"b: {'this class folder has no images'}"):
        (tmp_path / "train" / "b").rename(tmp_path / "b")
        (tmp_path / "train" / "b").mkdir()
        open_training(tmp_path)


def test_the_fingerprint_of_validation_is_the_same_for_an_empty_and_an_absent_folder(
    tmp_path: Path,
) -> None:
    put(tmp_path, *split("train"), *split("val", ("a/1.jpg",)))
    absent = open_training(tmp_path)[1]
    (tmp_path / "val" / "b").mkdir()
    empty = open_training(tmp_path)[1]
    assert absent is not None and empty is not None
    assert absent.fingerprint == empty.fingerprint


def test_a_class_that_training_does_not_have_is_refused(tmp_path: Path) -> None:
    put(tmp_path, *split("train"), *split("val", ("a/1.jpg", "dog/1.jpg")))
    with pytest.raises(InputError, match=r"missing: b; unknown: dog"):
        open_training(tmp_path)
    (tmp_path / "val" / "dog" / "1.jpg").unlink()  # an empty folder is no class
    _, val = open_training(tmp_path)
    assert val is not None and val.class_names == ("a", "b")


def test_validation_may_lose_a_class_by_exclusion(tmp_path: Path) -> None:
    put(tmp_path, *split("train", ("a/1.jpg", "b/1.jpg")), *split("val", ("a/7.jpg", "b/7.jpg")))
    listed = tmp_path / "bad.txt"
    listed.write_text("b/7.jpg\n")
    _, val = open_training(tmp_path, exclude=listed)
    assert val is not None and val.paths == ("a/7.jpg",)
    listed.write_text("b/7.jpg\na/7.jpg\n")
    with pytest.raises(InputError, match=r"would have no image left"):
        open_training(tmp_path, exclude=listed)


def test_a_split_that_is_scanned_alone_keeps_its_messages(tmp_path: Path) -> None:
    put(tmp_path, "Train/a/1.jpg")
    with pytest.raises(InputError, match=r"folders of splits are called train and val"):
        scan(tmp_path)
    put(tmp_path / "held", "val/a/1.jpg", "val/b/1.jpg")
    found = rf"only one class folder \(val\).*; val/ holds a, b; .*pass {tmp_path}/held/val$"
    with pytest.raises(InputError, match=found):
        open_evaluation(tmp_path / "held")
    put(tmp_path / "flat", "1.jpg")
    with pytest.raises(InputError, match=r"images right inside flat/, without a class"):
        scan(tmp_path / "flat")
    put(tmp_path / "only", "train/1.jpg", "labels.csv")
    found = r"images right inside train/, without a class; if .*only/labels.csv has paths and"
    with pytest.raises(InputError, match=found):
        open_training(tmp_path / "only")


@pytest.mark.parametrize("name", ["2.tar.gz", "2.TGZ", "rest.zip", "2.tfrecord.gz"])
def test_a_compressed_file_is_not_left_out_without_a_word(name: str, tmp_path: Path) -> None:
    tar(tmp_path / "shards" / "1.tar", *CLASSES)
    (tmp_path / "shards" / name).write_bytes(b"packed")
    notes = open_training(tmp_path / "shards")[0].notes
    assert notes == (
        f"{tmp_path / 'shards'}: the tar files are read; compressed files ({name}) are not",
    )
    (tmp_path / "shards" / "1.tar").unlink()
    with pytest.raises(InputError, match=rf"no class folder; .*; {name} in it would have to"):
        open_training(tmp_path / "shards")
    with pytest.raises(InputError, match=rf"{name}: is compressed; unpack it, and pass what"):
        open_training(tmp_path / "shards" / name)
