"""Tar shards as others write them: the samples, their labels, and what cannot be told."""

import io
import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from densenet121.commands.pack import pack
from densenet121.config import PackConfig
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.open import open_evaluation, open_training
from densenet121.datasets.sources.open_table import open_labelled_training
from densenet121.datasets.sources.shard_labels import index_label_shards
from densenet121.datasets.sources.shards import index_beside, index_shards
from densenet121.utils.errors import InputError

from helpers.images import write_classes


def tar_of(file: Path, members: list[tuple[str, bytes]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file


def samples(prefix: str, numbers: range, without: int | None = None) -> list[tuple[str, bytes]]:
    found = []
    for n in numbers:
        found.append((f"{prefix}{n:04d}.jpg", b"image %d" % n))
        if n != without:
            found.append((f"{prefix}{n:04d}.cls", b"%d" % (n // 2 % 2)))
    return found


@pytest.mark.parametrize("prefix", ["", "./", "train/", "a/b/"])
def test_a_sample_that_lost_its_label_is_named(prefix: str, tmp_path: Path) -> None:
    file = tar_of(tmp_path / "x.tar", samples(prefix, range(8), without=5))
    with pytest.raises(InputError, match=r"x.tar: .*0005\.jpg has no label.* \(1 of 8 images\)"):
        open_training(file)
    tar_of(tmp_path / "x.tar", samples(prefix, range(8)))
    assert open_training(file)[0].class_names == ("0", "1")


@pytest.mark.parametrize("lost", [0, 1])
def test_a_shard_without_labels_among_others_is_named(lost: int, tmp_path: Path) -> None:
    for number in (0, 1):
        members = samples("train/", range(4 * number, 4 * number + 4))
        members = [m for m in members if number != lost or m[0].endswith("jpg")]
        tar_of(tmp_path / f"{number}.tar", members)
    with pytest.raises(InputError, match=rf"{lost}\.tar: train/000.*\(4 of 4 images\)"):
        open_training(tmp_path)


def test_an_image_with_a_json_without_label_has_no_label(tmp_path: Path) -> None:
    members = [("a/1.jpg", b"x"), ("a/1.json", b'{"width": 3}'), ("b/1.jpg", b"y")]
    with pytest.raises(InputError, match=r"a/1.jpg has no label"):
        open_training(tar_of(tmp_path / "x.tar", members))
    members = [("a/1.jpg", b"x"), ("b/1.jpg", b"y"), ("about.json", b'{"made": 2024}')]
    assert open_training(tar_of(tmp_path / "x.tar", members))[0].class_names == ("a", "b")


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.permutations(samples("p/", range(6))))
def test_the_files_of_a_sample_need_not_be_adjacent(
    tmp_path: Path, members: list[tuple[str, bytes]]
) -> None:
    found = open_training(tar_of(tmp_path / "x.tar", members))[0]
    images = [name for name, _ in members if name.endswith("jpg")]
    assert found.paths == tuple(images)
    for index, name in enumerate(images):
        number = int(name[2:6])
        assert found.read(index) == b"image %d" % number
        assert found.labels[index] == number // 2 % 2


def test_a_label_without_an_image_is_named(tmp_path: Path) -> None:
    members = [*samples("", range(4)), ("0009.cls", b"1")]
    with pytest.raises(InputError, match=r"0009.cls has a label, but no image beside it"):
        open_training(tar_of(tmp_path / "x.tar", members))


def test_two_labels_of_an_image_are_refused(tmp_path: Path) -> None:
    members = [*samples("", range(4)), ("0002.cls", b"0")]
    with pytest.raises(InputError, match=r"0002.jpg has two labels"):
        open_training(tar_of(tmp_path / "x.tar", members))


@pytest.mark.parametrize(
    "call", ["Photo 2023-01-05 at 10.2{}.33.jpeg", "1.2.840.99.{}.7.jpg", "{}.x.JPG"]
)
def test_names_with_dots_are_whole_keys_in_class_folders(call: str, tmp_path: Path) -> None:
    members = [(f"{c}/{call.format(i)}", b"%d" % i) for c in ("ant", "bee") for i in range(4)]
    found = open_training(tar_of(tmp_path / "x.tar", members))[0]
    assert (found.class_names, found.counts().tolist()) == (("ant", "bee"), [4, 4])
    assert [found.read(i) for i in range(8)] == [data for _, data in members]


def test_names_with_dots_find_their_labels(tmp_path: Path) -> None:
    members = [(f"Photo 10.2{i}.33.jpeg", b"x") for i in range(4)]
    members += [(f"Photo 10.2{i}.33.cls", b"%d" % (i % 2)) for i in range(4)]
    found = open_training(tar_of(tmp_path / "x.tar", members))[0]
    assert found.labels.tolist() == [0, 1, 0, 1]
    short = [("1.seg.png", b"x"), ("1.cls", b"0"), ("2.seg.png", b"x"), ("2.cls", b"1")]
    assert len(open_training(tar_of(tmp_path / "x.tar", short))[0]) == 2


@pytest.mark.parametrize("label", [b'{"label": [0, 1]}', b'{"label": {"a": 1}}'])
def test_several_labels_in_a_json_are_refused(label: bytes, tmp_path: Path) -> None:
    members = [("1.jpg", b"x"), ("1.json", label)]
    with pytest.raises(InputError, match=r"the label in 1.json is a (list|dict); one class"):
        open_training(tar_of(tmp_path / "x.tar", members))


def test_a_label_that_is_no_class_is_named(tmp_path: Path) -> None:
    members = [*samples("", range(4)), ("0009.jpg", b"x"), ("0009.cls", b"-1")]
    with pytest.raises(InputError, match=r'x.tar: 0009.jpg: has the label "-1", which is no'):
        open_training(tar_of(tmp_path / "x.tar", members))


@pytest.mark.parametrize("name", ["@eaDir/1.jpg", "__MACOSX", ".ipynb_checkpoints"])
def test_previews_and_copies_of_systems_are_no_images_in_a_tar(name: str, tmp_path: Path) -> None:
    members = [("cat/1.jpg", b"1"), (f"cat/{name}/2.jpg", b"2"), ("dog/1.jpg", b"3")]
    found = open_training(tar_of(tmp_path / "x.tar", members))[0]
    assert found.class_names == ("cat", "dog")
    assert found.paths == ("cat/1.jpg", "dog/1.jpg")


@pytest.mark.parametrize("second", ["x.tar", "y.tar"])
def test_a_folder_of_images_within_another_is_no_class_of_its_own(
    second: str, tmp_path: Path
) -> None:
    """As class folders, cat/new belongs to cat; in a tar it was a third class without a word."""
    outer = [("data/cat/1.jpg", b"1"), ("data/dog/1.jpg", b"2")]
    inner = [("data/cat/new/2.jpg", b"3")]
    tar_of(tmp_path / "x.tar", outer)
    tar_of(tmp_path / second, inner if second == "y.tar" else outer + inner)
    reason = rf"{second}: data/cat/new/2.jpg is in the class new or, with data/cat/1.jpg, in cat; "
    with pytest.raises(InputError, match=reason):
        open_training(tmp_path)


def test_a_folder_within_one_of_the_same_name_is_of_that_class(tmp_path: Path) -> None:
    members = [("cat/1.jpg", b"1"), ("cat/cat/2.jpg", b"2"), ("dog/1.jpg", b"3")]
    found = open_training(tar_of(tmp_path / "x.tar", members))[0]
    assert (found.class_names, found.labels.tolist()) == (("cat", "dog"), [0, 0, 1])
    tar_of(tmp_path / "x.tar", [*members, ("cat/cat/new/4.jpg", b"5")])
    with pytest.raises(InputError, match=r"cat/cat/new/4.jpg is in the class new or, with cat/cat"):
        open_training(tmp_path / "x.tar")


@pytest.mark.parametrize(("mode", "name"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")])
def test_a_compressed_tar_whose_name_does_not_say_so_is_named(
    mode: Literal["w:gz", "w:bz2", "w:xz"], name: str, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "x.tar", mode) as tar:
        tar.addfile(tarfile.TarInfo("a/1.jpg"))
    with pytest.raises(InputError, match=rf"x\.tar: is compressed \({name}\); unpack it"):
        open_training(tmp_path / "x.tar")


def test_splits_in_one_tar_are_refused(tmp_path: Path) -> None:
    members = [(f"{s}/{c}/1.jpg", b"x") for s in ("train", "val") for c in ("ant", "bee")]
    with pytest.raises(InputError, match=r"holds the folders train, val, which are splits"):
        open_training(tar_of(tmp_path / "x.tar", members))


def test_shards_that_are_named_after_splits_are_not_merged(tmp_path: Path) -> None:
    classes = [("ant/{}.jpg", b"x"), ("bee/{}.jpg", b"y")]
    for number, name in enumerate(("train-0", "train-1", "val-0", "test-0")):
        members = [(path.format(number), data) for path, data in classes]
        tar_of(tmp_path / f"{name}.tar", members)
    train, val = open_training(tmp_path)
    assert val is not None
    assert (len(train), val.paths) == (4, ("ant/2.jpg", "bee/2.jpg"))
    assert open_evaluation(tmp_path).paths == val.paths
    (tmp_path / "val-0.tar").unlink()
    _, val = open_training(tmp_path)
    assert val is not None and val.paths == ("ant/3.jpg", "bee/3.jpg")
    assert "no file is named after validation, so the test images are used" in val.notes[0]
    (tmp_path / "test-0.tar").unlink()  # then train is only a name
    assert open_training(tmp_path)[1] is None
    assert len(open_evaluation(tmp_path)) == 4


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(InputError, match=r"x.tar: is a git-LFS pointer.*git lfs pull"):
        open_training(tmp_path)


def test_a_shard_without_its_end_is_named(tmp_path: Path) -> None:
    file = tar_of(tmp_path / "x.tar", samples("", range(8)))
    assert open_training(file)[0].notes == ()
    data = file.read_bytes()
    file.write_bytes(data[: 512 * 12])  # after the third sample
    found, _ = open_training(file)
    assert len(found) == 3
    assert found.notes == (
        f"{file}: has no end of a tar file, so it may have been cut short (1 of 1 shards)",
    )


def test_a_label_of_two_lines_is_one_line_in_a_message(tmp_path: Path) -> None:
    file = tar_of(tmp_path / "a.tar", [("a.jpg", b"x"), ("a.cls", b"\x1a\n"), ("b.cls", b"")])
    with pytest.raises(InputError) as told:
        open_training(file)
    assert "\n" not in str(told.value)


def test_an_index_that_points_outside_its_shards_is_damaged(tmp_path: Path) -> None:
    file = tar_of(tmp_path / "a.tar", samples("", range(4)))
    index = index_shards(tmp_path)
    beside = tmp_path / "index.npz"
    beside.write_bytes(index.to_npz())
    assert len(open_evaluation(tmp_path)) == 4
    end = file.stat().st_size
    wrong = [
        replace(index, shard=index.shard + 1),
        replace(index, shard=index.shard - 1),
        replace(index, sizes=-index.sizes),
        replace(index, offsets=index.offsets + end),
        replace(index, offsets=index.offsets.astype(np.float64)),
        replace(index, sizes=index.sizes[:, None]),
        replace(index, shard_sizes=index.shard_sizes.repeat(2)),
    ]
    for made in wrong:
        beside.write_bytes(made.to_npz())
        with pytest.raises(InputError, match=r"index.npz: damaged .*; remove it"):
            open_evaluation(tmp_path)


@pytest.mark.parametrize("name", ["shard_sizes.npy", "sizes.npy", "labels_ends.npy"])
def test_an_index_with_a_part_that_is_no_array_is_damaged(name: str, tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", samples("", range(4)))
    good = io.BytesIO(index_shards(tmp_path).to_npz())
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(tmp_path / "index.npz", "w") as new:
        for member in old.namelist():
            new.writestr(member, b"no array" if member == name else old.read(member))
    with pytest.raises(InputError, match=r"index.npz: damaged \(.* is no array\); remove it"):
        open_evaluation(tmp_path)


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_member_of_a_negative_size_is_damage(kind: Any, tmp_path: Path) -> None:
    """Python's tarfile followed it back to the beginning, and never ended (CVE-2025-8194)."""
    member = tarfile.TarInfo("a.jpg")
    if kind == tarfile.GNU_FORMAT:
        member.size = -1024
    else:
        member.pax_headers = {"size": "-1024"}
    data = member.tobuf(kind) + tarfile.TarInfo("b.jpg").tobuf(kind) + bytes(1024)
    (tmp_path / "a.tar").write_bytes(data)
    # Python from 3.13.6 on refuses it, or ends there by itself, as if nothing followed.
    found = "(a.jpg: -1024 bytes|invalid offset|what is at byte 0 is no head)"
    told = rf"a.tar: damaged or not a tar file \({found}"
    with pytest.raises(InputError, match=told):
        open_training(tmp_path / "a.tar")


@pytest.mark.parametrize("last", [True, False])
def test_a_damaged_head_is_not_taken_for_the_end_of_a_shard(last: bool, tmp_path: Path) -> None:
    """Python's tarfile ends there without a word, and all samples after it were lost."""
    file = tar_of(tmp_path / "x.tar", samples("", range(8)))
    data = bytearray(file.read_bytes())
    place = 1024 * (15 if last else 6)
    data[place + 3] ^= 1  # of the name, whose sum is in the head
    file.write_bytes(data)
    told = rf"x.tar: damaged or not a tar file \(what is at byte {place} is no head of a member"
    with pytest.raises(InputError, match=told):
        open_training(file)


def test_tar_files_that_were_put_together_are_refused_and_blocks_at_the_end_are_not(
    tmp_path: Path,
) -> None:
    """Those after the first were passed over without a word."""
    first, second = (tar_of(tmp_path / f"{n}.tar", samples(f"{n}/", range(4))) for n in (1, 2))
    (tmp_path / "x.tar").write_bytes(first.read_bytes() + second.read_bytes())
    told = r"x.tar: goes on after the empty blocks at byte 8192, where a tar file ends, as files do"
    with pytest.raises(InputError, match=rf"{told} .* with tar --ignore-zeros"):
        open_training(tmp_path / "x.tar")
    first.write_bytes(first.read_bytes() + bytes(100_000))
    assert len(open_evaluation(first)) == 4


def linked(file: Path, name: str, kind: bytes) -> Path:
    """A shard whose last member is a link to its first, or another thing without bytes."""
    tar_of(file, samples("a/", range(4)))
    with tarfile.open(file, "a") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "a/0000.jpg"
        tar.addfile(member)
    return file


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
@pytest.mark.parametrize("name", ["a/0009.jpg", "a/0009.CLS"])
def test_an_image_or_label_that_is_a_link_is_refused(
    name: str, kind: bytes, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"x.tar: {name} is a link, .* with --dereference"):
        open_training(linked(tmp_path / "x.tar", name, kind))
    assert len(open_training(linked(tmp_path / "x.tar", "a/notes.txt", kind))[0]) == 4


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    file = linked(tmp_path / "x.tar", "a/0009.jpg", tarfile.GNUTYPE_SPARSE)
    with pytest.raises(InputError, match=r"x.tar: a/0009.jpg is no plain file, .* without"):
        open_training(file)


def test_a_json_that_is_none_is_named(tmp_path: Path) -> None:
    members = [*samples("", range(4)), ("0009.jpg", b"x"), ("0009.json", b"{label: 1}")]
    with pytest.raises(InputError, match=r"x.tar: 0009.json is damaged or no JSON \(Expecting"):
        open_training(tar_of(tmp_path / "x.tar", members))


def test_whole_numbers_in_a_json_may_be_floats(tmp_path: Path) -> None:
    members = [(f"{n}.jpg", b"x") for n in range(4)]
    members += [(f"{n}.json", b'{"label": %d.0}' % (n % 2)) for n in range(4)]
    assert open_training(tar_of(tmp_path / "x.tar", members))[0].labels.tolist() == [0, 1, 0, 1]


def test_a_shard_that_the_index_names_is_not_left_out(tmp_path: Path) -> None:
    for number in range(3):
        tar_of(tmp_path / f"{number}.tar", samples("", range(4 * number, 4 * number + 4)))
    (tmp_path / "index.npz").write_bytes(index_shards(tmp_path).to_npz())
    (tmp_path / "1.tar").rename(tmp_path / "1.tar.part")
    for opened in (open_training, open_evaluation):
        with pytest.raises(InputError, match=r"1.tar is missing, 1 of the 3 .*remove index.npz"):
            opened(tmp_path)
    assert len(open_training(tmp_path / "2.tar")[0]) == 4  # a shard that is passed alone
    for number in (0, 2):  # all have other names, so the index is of other shards
        (tmp_path / f"{number}.tar").rename(tmp_path / f"train-{number}.tar")
    assert len(open_training(tmp_path)[0]) == 8


def test_a_numbered_set_of_shards_that_lacks_one_is_refused(tmp_path: Path) -> None:
    for number in (0, 2):
        tar_of(tmp_path / f"data-{number:04d}-of-0003.tar", samples("", range(4)))
    with pytest.raises(InputError, match=r"of the 3 files data-.*, 1 are missing, first number 1;"):
        open_training(tmp_path)


def test_names_that_begin_anew_in_each_shard_are_told_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tar_of(tmp_path / f"{name}.tar", samples("", range(4)))
    found = open_training(tmp_path)[0]
    assert found.paths == tuple(f"{s}.tar/{n:04d}.jpg" for s in "ab" for n in range(4))
    (tmp_path / "bad.txt").write_text("b.tar/0001.jpg\n")
    assert len(open_training(tmp_path, exclude=tmp_path / "bad.txt")[0]) == 7
    tar_of(tmp_path / "b.tar", samples("", range(4, 8)))
    assert open_training(tmp_path)[0].paths == tuple(f"{n:04d}.jpg" for n in range(8))


@pytest.mark.parametrize("rules", [None, LabelRules()])
def test_labels_of_shards_that_were_written_anew_are_not_those_of_the_old_index(
    rules: LabelRules | None, tmp_path: Path
) -> None:
    labels = b'{"labels": {"a": %d, "b": 1}}' if rules else b'{"label": %d}'

    def write(first: int) -> None:
        members = []
        for number in range(4):
            note = labels % ((number + first) % 2)
            members += [(f"{number}.jpg", b"image"), (f"{number}.json", note)]
        tar_of(tmp_path / "x.tar", members)

    def read() -> ImageDataset:
        return (
            open_labelled_training(tmp_path, None, rules)[0]
            if rules
            else open_training(tmp_path)[0]
        )

    write(0)
    index = index_label_shards if rules else index_shards
    beside = tmp_path / "index.npz"
    beside.write_bytes(index(tmp_path, [tmp_path / "x.tar"]).to_npz())
    before, size = read(), (tmp_path / "x.tar").stat().st_size
    assert not before.notes
    write(1)
    assert (tmp_path / "x.tar").stat().st_size == size
    os.utime(beside, ns=(0, (tmp_path / "x.tar").stat().st_mtime_ns - 1))
    after = read()
    assert (after.labels != before.labels).any()
    (note,) = after.notes
    assert "is older than x.tar (1 of 1 shards)" in note
    beside.unlink()
    beside.write_bytes(index(tmp_path, [tmp_path / "x.tar"]).to_npz())
    again = read()
    assert (again.labels == after.labels).all()
    assert not again.notes


@pytest.mark.parametrize("task", ["single_label", "multilabel"])
def test_an_index_that_a_copy_made_older_is_confirmed_by_the_shards(
    task: Literal["single_label", "multilabel"], tmp_path: Path
) -> None:
    source = tmp_path / "data"
    if task == "single_label":
        write_classes(source, ["a", "b"], 4)
    else:
        write_classes(source, ["x"], 8)
        rows = [f"x/{k:03d}.png,{k % 2},1\n" for k in range(8)]
        (source / "l.csv").write_text("path,a,b\n" + "".join(rows))
        source /= "l.csv"
    shards = tmp_path / "shards"
    pack(PackConfig(source=str(source), output=str(shards), task=task))
    (shard,) = shards.glob("*.tar")

    def read() -> ImageDataset:
        if task == "single_label":
            return open_training(shards)[0]
        return open_labelled_training(shards, None, LabelRules())[0]

    before, newer = read(), shard.stat().st_mtime_ns + 10**9
    os.utime(shard, ns=(newer, newer))
    assert index_beside(shards, [shard]) is None
    after = read()
    assert not after.notes and after.fingerprint == before.fingerprint
    assert (shards / "index.npz").stat().st_mtime_ns == newer
    assert index_beside(shards, [shard]) is not None
