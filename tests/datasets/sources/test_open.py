"""Sources: the same images in the same order, whatever they are kept in; and damaged ones."""

import io
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from densenet121.datasets.decoding import decode
from densenet121.datasets.eval_resize import parse_eval_resize
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.packed_strings import Names
from densenet121.datasets.preparation import evaluation_images, training_images
from densenet121.datasets.sources.folder import scan
from densenet121.datasets.sources.open import open_evaluation, open_training
from densenet121.datasets.transforms import EvalTransform, TrainTransform
from densenet121.utils.errors import InputError, UsageError

from helpers.arrow import write_arrow
from helpers.cifar import cifar
from helpers.commands import SHARED
from helpers.images import draw
from helpers.loading import epoch_bytes
from helpers.mindrecord import write_mindrecord
from helpers.tfrecord import write_tfrecord


def as_list(folder: ImageDataset, where: Path) -> Path:
    """Beside the images, as paths are relative to it."""
    file = folder.root / "list of images.txt"
    names = folder.class_names
    rows = [f"{p} {names[n]}" for p, n in zip(folder.paths, folder.labels, strict=True)]
    file.write_text("# a comment\n\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return file


def as_csv(folder: ImageDataset, where: Path) -> Path:
    file = where / "list.csv"
    rows = ["label,width,path"]
    for path, label in zip(folder.paths, folder.labels, strict=True):
        rows.append(f'{label},7,"{folder.root / path}"')
    file.write_text("\n".join(rows), encoding="utf-8")
    (where / "classes.txt").write_text("\n".join(folder.class_names), encoding="utf-8")
    return file


def as_shards(folder: ImageDataset, where: Path) -> Path:
    """Two shards, written with the standard library alone, without an index."""
    (where / "shards").mkdir()
    half = len(folder) // 2
    for number, part in enumerate((range(half), range(half, len(folder)))):
        with tarfile.open(where / "shards" / f"train-{number:04d}.tar", "w") as tar:
            for index in part:
                path = folder.paths[index]
                note = json.dumps({"path": path}).encode()
                for extension, data in (
                    (path.rpartition(".")[2], folder.read(index)),
                    ("cls", str(folder.labels[index]).encode()),
                    ("json", note),
                ):
                    member = tarfile.TarInfo(f"{index:08d}.{extension}")
                    assert isinstance(data, bytes)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    (where / "shards" / "classes.txt").write_text("\n".join(folder.class_names), encoding="utf-8")
    return where / "shards"


def as_parquet(folder: ImageDataset, where: Path) -> Path:
    """As the datasets library writes it, in groups of four rows."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        {"image": {"bytes": folder.read(i), "path": path}, "label": int(folder.labels[i])}
        for i, path in enumerate(folder.paths)
    ]
    feature = {"names": list(folder.class_names), "_type": "ClassLabel"}
    note = json.dumps({"info": {"features": {"label": feature}}})
    table = pyarrow.Table.from_pylist(rows).replace_schema_metadata({"huggingface": note})
    (where / "parquet").mkdir()
    parquet.write_table(table, where / "parquet" / "train-00000-of-00001.parquet", row_group_size=4)
    return where / "parquet"


def as_tfrecord(folder: ImageDataset, where: Path) -> Path:
    """Two files with ImageNet's features."""
    for number in range(2):
        rows = [
            {
                "image/encoded": folder.read(index),
                "image/class/label": int(folder.labels[index]) + 1,
                "image/class/synset": folder.class_names[folder.labels[index]],
                "image/filename": folder.paths[index],
            }
            for index in range(len(folder) * number // 2, len(folder) * (number + 1) // 2)
        ]
        write_tfrecord(where / "tfrecord" / f"train-{number:05d}-of-00002", rows)
    return where / "tfrecord"


def as_mindrecord(folder: ImageDataset, where: Path) -> Path:
    """Two files of one set."""
    names = [f"train.mindrecord{number}" for number in range(2)]
    for number, name in enumerate(names):
        rows = [
            {
                "data": folder.read(index),
                "label": int(folder.labels[index]),
                "file_name": folder.paths[index],
            }
            for index in range(len(folder) * number // 2, len(folder) * (number + 1) // 2)
        ]
        write_mindrecord(where / "mindrecord" / name, rows, shard=number, names=names)
    (where / "mindrecord" / "classes.txt").write_text("\n".join(folder.class_names))
    return where / "mindrecord"


def as_arrow(folder: ImageDataset, where: Path) -> Path:
    """Two files, as datasets writes them."""
    pytest.importorskip("pyarrow")
    rows = [
        {"image": {"bytes": folder.read(i), "path": path}, "label": int(folder.labels[i])}
        for i, path in enumerate(folder.paths)
    ]
    features = {"label": {"names": list(folder.class_names), "_type": "ClassLabel"}}
    return write_arrow(where / "arrow", rows, features, files=2)


KEPT_AS: dict[str, Callable[[ImageDataset, Path], Path]] = {
    "list": as_list,
    "csv": as_csv,
    "shards": as_shards,
    "parquet": as_parquet,
    "tfrecord": as_tfrecord,
    "mindrecord": as_mindrecord,
    "arrow": as_arrow,
}


@pytest.mark.parametrize("kept_as", KEPT_AS)
def test_the_same_images_give_the_same_bytes_from_any_source_and_any_number_of_threads(
    kept_as: str, image_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(image_folder / "train", tmp_path / "train")
    folder = scan(tmp_path / "train")
    (tmp_path / "other").mkdir()
    source, val = open_training(KEPT_AS[kept_as](folder, tmp_path / "other"))
    assert val is None
    assert source.class_names == folder.class_names
    assert source.labels.tolist() == folder.labels.tolist()
    assert source.sizes.tolist() == folder.sizes.tolist()
    if kept_as != "csv":  # where the paths are absolute
        assert source.paths == list(folder.paths)
        assert source.fingerprint == folder.fingerprint
    expected = epoch_bytes(folder, 0)
    for workers in (0, 1, 2, 5):
        assert torch.equal(epoch_bytes(source, workers), expected)


@pytest.mark.parametrize("kept_as", ["folder", "shards"])
def test_real_photographs_give_the_same_bytes_from_shards(kept_as: str, tmp_path: Path) -> None:
    if not (SHARED / "data/photos/val").is_dir():
        pytest.skip("the photographs of ../shared are not here")
    folder = scan(SHARED / "data/photos/val")
    source = folder if kept_as == "folder" else open_evaluation(as_shards(folder, tmp_path))
    expected = epoch_bytes(folder, 0)
    assert torch.equal(epoch_bytes(source, 2), expected)


@pytest.mark.parametrize("kind", ["binary-10", "binary-100", "python-10", "python-100"])
def test_cifars_own_files_are_read(kind: str, tmp_path: Path) -> None:
    where, pixels, labels = cifar(tmp_path, kind)
    train, val = open_training(where)
    assert val is not None
    for part, first in ((train, 0), (val, 12), (open_evaluation(where), 12)):
        assert part.class_names == ("airplane", "bird", "cat")
        assert part.labels.tolist() == labels[first : first + len(part)]
        for index in range(len(part)):
            planes = pixels[first + index]
            np.testing.assert_array_equal(part.read(index), planes.transpose(1, 2, 0))
    assert (len(train), len(val)) == (12, 6)
    out = np.empty((32, 32, 3), np.uint8)
    training_images(train, TrainTransform(32, 32), 1, 0)(3, out)


@pytest.mark.parametrize(("kind", "end"), [("binary-10", ".bin"), ("python-10", "")])
def test_cifar_names_the_batches_that_are_not_there(kind: str, end: str, tmp_path: Path) -> None:
    where, _, _ = cifar(tmp_path, kind)
    for number in (2, 3, 5):
        shutil.copy(where / f"data_batch_1{end}", where / f"data_batch_{number}{end}")
    train, val = open_training(where)
    assert train.notes == (f"{where}: data_batch_4{end} is not there, so its images are not read",)
    assert val is not None and val.notes == ()


def test_a_pickle_that_wants_more_than_arrays_is_refused(tmp_path: Path) -> None:
    where, _, _ = cifar(tmp_path, "python-10")

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/executed",)

    (where / "data_batch_1").write_bytes(pickle.dumps({b"data": Hostile()}))
    with pytest.raises(InputError, match=r"data_batch_1: cannot be unpickled .*not allowed"):
        open_training(where)
    assert not (tmp_path / "executed").exists()


def test_a_pickle_that_would_crash_the_reader_or_be_written_out_is_refused(tmp_path: Path) -> None:
    where, _, _ = cifar(tmp_path, "python-10")
    (where / "data_batch_1").write_bytes(b"\x80\2})" + b"\x85" * 2_000_000 + b"K\1s.")
    with pytest.raises(InputError, match=r"data_batch_1: cannot be unpickled .*values within"):
        open_training(where)
    name = ["a"]
    for _ in range(60):
        name = [name, name]  # type: ignore[list-item]
    (where / "batches.meta").write_bytes(pickle.dumps({b"label_names": [name]}, 2))
    with pytest.raises(InputError, match=r"batches\.meta: has no class names"):
        open_training(where)


@pytest.mark.parametrize("kind", ["binary-10", "python-100"])
def test_a_pointer_in_place_of_a_batch_is_named(kind: str, tmp_path: Path) -> None:
    where, _, _ = cifar(tmp_path, kind)
    file = where / ("data_batch_1.bin" if kind == "binary-10" else "train")
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(InputError, match=rf"{file.name}: is a git-LFS pointer"):
        open_training(where)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "its 0 bytes are not a multiple of 3073"),
        (b"\0" * 3000, "its 3000 bytes are not a multiple of 3073"),
        (b"\7" + b"\0" * 3072, "labels are 7 to 7, but batches.meta.txt has 3 class names"),
    ],
)
def test_damaged_cifar_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    where, _, _ = cifar(tmp_path, "binary-10")
    (where / "data_batch_1.bin").write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_training(where)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.txt", "", "has no images; each line needs a path and a label"),
        ("l.txt", "a.png cat\nb.png\n", 'line 2: "b.png" is not a path and a label'),
        ("l.txt", "a.png cat\nc.png dog\n", "line 2: .*c.png: No such file"),
        ("l.txt", "a.png cat\na.png dog\n", "line 2: a.png is already in line 1"),
        ("l.txt", "a.png cat\nb.png cat\n", r"only one class \(cat\)"),
        (
            "l.txt",
            "a.png 0\nb.png 2\n",
            "not all of 0 to 2 occur; write the class names into .*classes",
        ),
        ("l.csv", "path,width\na.png,3\n", "no column named label, class"),
        ("l.csv", "a.png,cat\nb.png\n", "line 2: no path or no label"),
        ("l.csv", 'a.png,cat\n"b.png,dog\n', "line 2"),
        ("l.jpeg", "x", "unsupported kind of file; pass a folder or"),
    ],
)
def test_a_list_that_cannot_be_used_is_named_with_its_line(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    for file in ("a.png", "b.png"):
        (tmp_path / file).write_bytes(b"x")
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        open_training(tmp_path / name)


def test_a_list_takes_paths_with_spaces_and_classes_that_have_no_image(tmp_path: Path) -> None:
    for file in ("my cat.png", "b.png"):
        (tmp_path / file).write_bytes(b"x")
    (tmp_path / "l.lst").write_text("my cat.png\tcat\nb.png ant\n")
    assert open_evaluation(tmp_path / "l.lst").class_names == ("ant", "cat")
    (tmp_path / "classes.txt").write_text("dog\ncat\nant\n")
    found = open_evaluation(tmp_path / "l.lst")
    assert found.paths == ("my cat.png", "b.png")
    assert (found.class_names, found.labels.tolist()) == (("dog", "cat", "ant"), [1, 2])
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    with pytest.raises(InputError, match=r"labels that are not in .*classes.txt: ant"):
        open_evaluation(tmp_path / "l.lst")


def tar_of(file: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(file, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_shards_of_others_take_the_class_from_the_folder(tmp_path: Path) -> None:
    tar_of(tmp_path / "x.tar", {"a/cat/1.x.jpg": b"one", "a/dog/1.jpg": b"two", "readme": b""})
    found = open_evaluation(tmp_path / "x.tar")
    assert found.class_names == ("cat", "dog")
    assert found.paths == ("a/cat/1.x.jpg", "a/dog/1.jpg")
    assert [found.read(0), found.read(1)] == [b"one", b"two"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.jpg": b"x"}, "1.jpg has no label: no .cls"),
        ({"c/1.jpg": b"x", "c/1.png": b"y"}, "two images have the name c/1"),
        ({"1.txt": b"x"}, "no images in"),
        ({"1.jpg": b"x", "1.json": b"{"}, "damaged"),
    ],
)
def test_shards_that_cannot_be_used_are_named(
    members: dict[str, bytes], message: str, tmp_path: Path
) -> None:
    tar_of(tmp_path / "x.tar", members)
    with pytest.raises(InputError, match=message):
        open_evaluation(tmp_path / "x.tar")


def test_a_shard_cut_anywhere_is_an_error_or_a_shorter_set_never_a_wrong_image(
    tmp_path: Path,
) -> None:
    tar_of(tmp_path / "whole.tar", {"a/1.jpg": b"1" * 700, "b/2.jpg": b"2" * 100})
    data = (tmp_path / "whole.tar").read_bytes()
    for length in range(0, 2600, 37):
        (tmp_path / "x.tar").write_bytes(data[:length])
        try:
            found = open_evaluation(tmp_path / "x.tar")
            read = [found.read(i) for i in range(len(found))]
        except InputError:
            continue
        assert read == [b"1" * 700, b"2" * 100]


def test_excluded_images_are_left_out_and_unknown_names_refused(
    image_folder: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "bad.txt"
    listed.write_text("ant/003.png\n\ncat/000.png\n")
    folder = scan(image_folder / "train")
    train, val = open_training(image_folder, exclude=listed)
    assert val is not None
    assert len(train) == len(folder) - 2 and len(val) == 21 - 2
    assert "ant/003.png" not in train.paths
    out, expected = np.empty((2, 40, 48, 3), np.uint8)
    transform = EvalTransform(40, 48, parse_eval_resize("40,48"))
    evaluation_images(train, transform)(3, out)
    evaluation_images(folder, transform)(4, expected)
    np.testing.assert_array_equal(out, expected)
    listed.write_text("ant/999.png\n")
    with pytest.raises(UsageError, match=r"`exclude` .*: there is no image ant/999.png"):
        open_training(image_folder, exclude=listed)
    listed.write_text("\n".join(path for path in folder.paths if path.startswith("bee")))
    with pytest.raises(InputError, match="class bee would have no image left"):
        open_training(image_folder, exclude=listed)


def test_exclusion_from_other_sources_reads_the_right_images(tmp_path: Path) -> None:
    where, pixels, _ = cifar(tmp_path, "binary-10")
    listed = tmp_path / "bad.txt"
    listed.write_text("data_batch_1.bin/00001\n")
    train, _ = open_training(where, exclude=listed)
    np.testing.assert_array_equal(train.read(1), pixels[2].transpose(1, 2, 0))


def test_names_are_a_sequence_of_strings() -> None:
    odd = ["", "a", "caf\udce9", "\u732b/1.jpg", "a"]
    names = Names.of(odd)
    assert list(names) == odd == [names[i] for i in range(5)] == list(names[:])
    assert (names[-1], names[1:3], len(names)) == ("a", odd[1:3], 5)
    assert names == tuple(odd) and names != odd[:-1] and names == Names.of(odd)
    with pytest.raises(IndexError):
        names[5]
    assert list(Names.of([])) == []


def test_a_file_that_was_changed_in_place_is_noticed(image_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(image_folder / "train", tmp_path / "train")
    folder = scan(tmp_path / "train")
    file = tmp_path / "train" / folder.paths[2]
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(InputError, match="when the folder was scanned: the file has changed"):
        folder.read(2)
    again = scan(tmp_path / "train").read(2)
    assert isinstance(again, bytes)
    assert decode(again).shape == draw(0, 0).shape
