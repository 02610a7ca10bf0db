"""Packed images are the same images; a stopped pack leaves nothing."""

import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from densenet121.commands.pack import pack
from densenet121.config import PackConfig
from densenet121.datasets.sources.open import open_evaluation, open_training
from densenet121.datasets.sources.shards import Index, find_shards, index_shards
from densenet121.utils.errors import InputError, UsageError

from helpers.cifar import cifar
from helpers.commands import environment, run_command
from helpers.images import write_classes


def test_the_size_of_few_images_is_not_0(tmp_path: Path) -> None:
    said = pack(PackConfig(source=str(write_classes(tmp_path / "in", ["ant", "bee"], 2)),
                           output=str(tmp_path / "out")))  # fmt: skip
    size = sum(file.stat().st_size for file in (tmp_path / "out").rglob("*.tar"))
    assert said == f"4 images in 1 shard, {size / 1e3:.0f} kB, in {tmp_path / 'out'}"
    assert 1000 < size < 1e7


def test_packed_images_are_the_same_in_the_same_order(image_folder: Path, tmp_path: Path) -> None:
    said = pack(PackConfig(source=str(image_folder), output=str(tmp_path / "shards")))
    assert said.startswith("66 images in 2 shards")
    for original, packed in zip(
        open_training(image_folder), open_training(tmp_path / "shards"), strict=True
    ):
        assert original is not None and packed is not None
        assert packed.class_names == original.class_names
        assert packed.paths == list(original.paths)
        assert packed.fingerprint == original.fingerprint
        assert [packed.read(i) for i in range(len(packed))] == [
            original.read(i) for i in range(len(original))
        ]


def test_shards_have_the_size_asked_for_and_any_tar_program_reads_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(20):
            data = b"\xff\xd8\xff" + rng.bytes(200_000)
            (tmp_path / "data" / name / f"{index:02d}.jpg").write_bytes(data)
    source, output = str(tmp_path / "data"), tmp_path / "shards"
    pack(PackConfig(source=source, output=str(output), shard_megabytes=2))
    files = find_shards(output)
    assert [file.name for file in files] == [f"pictures-{i:06d}.tar" for i in range(4)]
    assert all(file.stat().st_size < 2.3e6 for file in files)
    with tarfile.open(files[0]) as tar:
        assert tar.getnames()[:4] == [f"{0:09d}.{e}" for e in ("jpg", "cls", "json")] + [
            f"{1:09d}.jpg"
        ]
    packed = open_evaluation(output)
    (output / "index.npz").unlink()
    without = open_evaluation(output)
    assert without.fingerprint == packed.fingerprint
    assert [without.read(i) for i in range(40)] == [packed.read(i) for i in range(40)]


def test_the_same_images_give_the_same_shards(image_folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        pack(PackConfig(source=str(image_folder), output=str(tmp_path / name)))
    one, two = (
        {str(f.relative_to(tmp_path / n)): f.read_bytes() for f in (tmp_path / n).rglob("*.tar")}
        for n in ("one", "two")
    )
    assert one == two and len(one) == 2


def test_an_index_of_other_shards_is_not_used_and_a_damaged_one_is_named(
    tmp_path: Path,
) -> None:
    write_classes(tmp_path / "data", ["a", "b"], 5)
    pack(PackConfig(source=str(tmp_path / "data"), output=str(tmp_path / "s")))
    index = tmp_path / "s/index.npz"
    good = index.read_bytes()
    assert index_shards(tmp_path / "s").fits(find_shards(tmp_path / "s"))
    shard = tmp_path / "s/pictures-000000.tar"
    with shard.open("ab") as file:
        file.write(bytes(10240))  # as other programs pad
    assert not Index.load(index).fits([shard])
    assert len(open_evaluation(tmp_path / "s")) == 10  # by its headers
    for damaged in (b"", good[:1000], good[:-30], b"PK" + bytes(500)):
        index.write_bytes(damaged)
        with pytest.raises(InputError, match=r"index.npz: damaged .* remove it"):
            open_evaluation(tmp_path / "s")


@pytest.mark.slow
def test_training_from_shards_equals_training_from_folders(
    image_folder: Path, tmp_path: Path
) -> None:
    pack(PackConfig(source=str(image_folder), output=str(tmp_path / "shards")))
    flags = ["--max_epoch", 1, "--image_size", 32, "--per_batch_size", 15, "--amp", "fp32"]
    flags += ["--net", "densenet40"]
    predictions = []
    for name, source in (("folders", image_folder), ("shards", tmp_path / "shards")):
        output = tmp_path / f"{name}-run"
        result = run_command("train", "--data_dir", source, "--output_dir", output, *flags)
        assert result.returncode == 0, result.stderr
        predictions.append((output / "predictions.csv").read_bytes())
    assert predictions[0] == predictions[1]
    check_what_evaluation_says_of_the_data(tmp_path)


def check_what_evaluation_says_of_the_data(tmp_path: Path) -> None:
    """Of the weights that were trained from shards."""
    weights, shards = tmp_path / "shards-run/best.safetensors", tmp_path / "shards"

    def said(data_dir: Path) -> str:
        output = tmp_path / "evaluated"
        flags = ["--pretrained", weights, "--output_dir", output, "--amp", "fp32"]
        result = run_command("eval", "--data_dir", data_dir, *flags)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert "the training run validated on these same images" in said(shards)
    assert "the weights were trained on these same images" in said(shards / "train")
    write_classes(tmp_path / "other/val", ["ant", "bee", "cat"], 5)
    pack(PackConfig(source=str(tmp_path / "other/val"), output=str(tmp_path / "new")))
    for file in (shards / "val").iterdir():
        file.unlink()
    for file in (tmp_path / "new").iterdir():
        file.rename(shards / "val" / file.name)
    changed = "the val data changed since these weights were written: 21 images then, 15 now"
    assert changed in said(shards)
    assert str(tmp_path).encode() not in weights.read_bytes()  # no path is given away with them


def test_cifar_is_packed_without_loss(tmp_path: Path) -> None:
    (tmp_path / "cifar").mkdir()
    where, pixels, labels = cifar(tmp_path / "cifar", "binary-10")
    pack(PackConfig(source=str(where), output=str(tmp_path / "shards")))
    train, val = open_training(tmp_path / "shards")
    assert val is not None and (len(train), len(val)) == (12, 6)
    assert train.labels.tolist() == labels[:12]
    from densenet121.datasets.decoding import decode

    data = train.read(5)
    assert isinstance(data, bytes)
    np.testing.assert_array_equal(decode(data), pixels[5].transpose(1, 2, 0))


def test_a_stopped_pack_leaves_nothing(tmp_path: Path) -> None:
    write_classes(tmp_path / "data", ["a", "b"], 20)
    for image in list((tmp_path / "data").glob("*/*")):
        for copy in range(500):  # enough work that a signal comes before its end
            os.link(image, image.with_stem(f"{image.stem}_{copy}"))
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "densenet121",
            "pack",
            tmp_path / "data",
            "--output",
            tmp_path / "s",
        ],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, in which these tests may run, ignores the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".s.*.partial/*.tar")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (130, 143), errors
    assert "Traceback" not in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


@pytest.mark.parametrize("name", ["dog ", " dog", "d\nog"])
def test_a_class_whose_name_no_line_can_hold_is_refused(name: str, tmp_path: Path) -> None:
    """Shards of "d, og" had one class more, and those of "dog " another one than the folders."""
    write_classes(tmp_path / "images", [name, "cat", "dog"], 3)
    with pytest.raises(InputError, match=f"the class {re.escape(ascii(name))} begins or ends with"):
        pack(PackConfig(source=str(tmp_path / "images"), output=str(tmp_path / "shards")))
    assert not (tmp_path / "shards").exists()


def test_an_output_that_exists_is_refused(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "x").write_text("mine")
    with pytest.raises(UsageError, match="already exists; choose a new folder"):
        pack(PackConfig(source=str(image_folder), output=str(tmp_path / "s")))
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["x"]


def test_shards_are_not_written_among_class_folders(tmp_path: Path) -> None:
    """They would have been a class without images from then on."""
    images = write_classes(tmp_path / "images", ["cat", "dog"], 2)
    with pytest.raises(UsageError, match=r"`output` .* is among the class folders of"):
        pack(PackConfig(source=str(images), output=str(images / "shards")))
    assert sorted(path.name for path in images.iterdir()) == ["cat", "dog"]
