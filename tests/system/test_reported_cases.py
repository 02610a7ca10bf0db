"""The cases that users of other systems reported, made by ../shared/cases/make.py, end to end."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import SHARED, environment, run_command

CASES = SHARED / "cases" / "make.py"
SMALL = "--net densenet40 --image_size 32 --per_batch_size 8 --max_epoch 1 --device cpu"
FLAGS = [*SMALL.split(), "--is_distributed", "0", "--workers", "0"]

pytestmark = pytest.mark.skipif(not CASES.is_file(), reason="the cases of ../shared are not here")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("pyarrow", "torch"):
        pytest.importorskip(package)
    out = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, str(CASES), str(out)], check=True, env=environment())
    return out


def run(
    where: Path, *arguments: object, encoding: str = "utf-8"
) -> "subprocess.CompletedProcess[str]":
    return run_command(*arguments, cwd=where, PYTHONIOENCODING=encoding)


def train(where: Path, data_dir: str, *flags: object) -> "subprocess.CompletedProcess[str]":
    return run(where, "train", "--data_dir", data_dir, *FLAGS, *flags)


def refused(done: "subprocess.CompletedProcess[str]") -> str:
    """The line of a command that was refused."""
    assert done.returncode in (1, 2), done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


def splits(where: Path, source: str) -> dict[str, Any]:
    """Split to class to number of images, as audit sees them."""
    done = run(where, "audit", source, "--json")
    assert "Traceback" not in done.stderr, done.stderr
    return {split: part["classes"] for split, part in json.loads(done.stdout)["splits"].items()}


@pytest.mark.parametrize(
    ("case", "source", "found"),
    [
        ("01-tar-missing-label", "whole", {"train": dict.fromkeys("0123", 4)}),
        ("01-tar-missing-label", "class_folders", {"train": {"ant": 6, "bee": 6, "cat": 6}}),
        ("02-tar-unsorted", "flat", {"train": dict.fromkeys("0123", 4)}),
        ("02-tar-unsorted", "onefolder", {"train": dict.fromkeys("0123", 4)}),
        ("02-tar-unsorted", "twofolders", {"train": dict.fromkeys("0123", 4)}),
        ("04-parquet-label", "good", {"train": {"zebra": 8, "ant": 8, "bee": 8}}),
        ("19-csv", "quoted_space.csv", {"train": {"ant": 6, "bee": 6, "cat": 6}}),
        ("19-csv", "image_class.csv", {"train": {"image": 6, "bee": 6, "cat": 6}}),
        ("30-tar-dotted-names", "phone", {"train": {"ant": 4, "bee": 4}}),
        ("30-tar-dotted-names", "scanner", {"train": {"ant": 4, "bee": 4}}),
        ("31-list-hash", "hash.txt", {"train": {"food": 6, "salad": 6, "soup": 6}}),
        ("31-list-hash", "comment.txt", {"train": {"salad": 6, "soup": 6}}),
        ("33-class-called-train", "vehicles", {"train": {"tractor": 4, "train": 4, "trout": 4}}),
    ],
)
def test_what_can_be_read_is_read_as_it_is_meant(
    case: str, source: str, found: dict[str, Any], cases: Path
) -> None:
    assert splits(cases / case, source) == found


@pytest.mark.parametrize(
    ("case", "source", "words"),
    [
        ("01-tar-missing-label", "dot", ["0005", "no label"]),
        ("01-tar-missing-label", "folder", ["0005", "no label"]),
        ("01-tar-missing-label", "shards", ["shard-000001.tar", "0008", "no label"]),
        ("04-parquet-label", "null", ["train-00000-of-00001.parquet", "row 17"]),
        ("04-parquet-label", "minus_one", ["train-00000-of-00001.parquet", "row 17", "-1"]),
        ("04-parquet-label", "lists", ["train-00000-of-00001.parquet", "row 0", "list"]),
        ("07-val-empty-class", "reverse", ["dog"]),
        ("29-split-named-classes", "capital", ["Train", "Val", "train and val"]),
        ("29-split-named-classes", "long", ["training", "validation", "train and val"]),
        ("29-split-named-classes", "upper", ["TRAIN", "TEST", "train and val"]),
        ("33-class-called-train", "all", ["test, train, val", "pass a list"]),
    ],
)
def test_what_cannot_be_told_is_refused_with_its_place(
    case: str, source: str, words: list[str], cases: Path
) -> None:
    line = refused(train(cases / case, source))
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize(
    ("source", "val", "word"),
    [("hub", 6, ""), ("repo", 6, ""), ("fallback", 3, "so the test images are used")],
)
def test_05_the_hubs_splits_are_kept_apart(
    source: str, val: int, word: str, cases: Path, tmp_path: Path
) -> None:
    where = cases / "05-parquet-splits"
    done = train(where, source, "--output_dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "training: 18 images" in done.stdout and f"validation: {val} images" in done.stdout
    assert word in done.stdout
    weights = tmp_path / "run" / "last.safetensors"
    done = run(where, "eval", "--data_dir", source, "--pretrained", weights, "--device", "cpu",
               "--output_dir", tmp_path / "eval")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "changed" not in done.stdout and f"tot={val}" in done.stdout


@pytest.mark.parametrize("source", ["empty", "absent"])
def test_07_a_class_may_lack_validation_images(source: str, cases: Path, tmp_path: Path) -> None:
    where = cases / "07-val-empty-class"
    done = train(where, source, "--output_dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "no image of bee" in done.stdout
    weights = tmp_path / "run" / "last.safetensors"
    for data_dir in (source, f"{source}/val"):
        done = run(where, "eval", "--data_dir", data_dir, "--pretrained", weights, "--device",
                   "cpu", "--output_dir", tmp_path / data_dir)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "no image of bee" in done.stdout and "tot=6" in done.stdout


def test_10_a_jpeg_of_441_is_read_as_pillow_reads_it(cases: Path, tmp_path: Path) -> None:
    where = cases / "10-jpeg-441"
    done = train(where, "data", "--output_dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    done = run(where, "predict", "turned.jpg", "pixels.png", "--pretrained",
               tmp_path / "run" / "last.safetensors", "--format", "jsonl")  # fmt: skip
    turned, pixels = map(json.loads, done.stdout.splitlines())
    assert turned | {"path": ""} == pixels | {"path": ""}
    assert run(where, "audit", "data").returncode == 0


@pytest.mark.parametrize(
    ("file", "word"),
    [
        ("hidden_layer.pth", "its head is another (classifier.0.weight"),
        ("backbone.pth", "it has no head"),
    ],
)
def test_11_another_head_is_replaced(file: str, word: str, cases: Path, tmp_path: Path) -> None:
    where = cases / "11-checkpoints"
    done = train(where, "pictures", "--pretrained", file, "--net", "densenet121", "--output_dir",
                 tmp_path / "run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert word in done.stdout and "so the head is new" in done.stdout
    line = refused(run(where, "predict", "pictures/val", "--pretrained", file))
    assert "head" in line and "classifier" in line


def test_11_the_head_of_chexnet_is_read_and_replaced_for_other_classes(
    cases: Path, tmp_path: Path
) -> None:
    where, flags = cases / "11-checkpoints", ["--pretrained", "sigmoid.pth.tar"]
    done = train(where, "pictures", *flags, "--net", "densenet121", "--output_dir",
                 tmp_path / "run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "its 14 classes differ from the 3 of the data, so the head is new" in done.stdout
    done = run(where, "predict", "pictures/val", *flags, "--format", "jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert '"label": "Cardiomegaly"' in done.stdout


def test_12_every_name_can_be_told_apart(cases: Path, tmp_path: Path) -> None:
    where = cases / "12-dollar-classes"
    assert train(where, ".", "--output_dir", tmp_path / "run").returncode == 0
    weights = tmp_path / "run" / "last.safetensors"
    command = ["predict", "val", "--pretrained", weights, "--format"]
    for encoding in ("ascii", "latin-1"):
        done = run(where, *command, "csv", encoding=encoding)
        assert (done.returncode, done.stderr) == (0, "")
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        assert len({row["class"] for row in rows}) == 3
        assert len({row["path"] for row in rows}) == 9
    for kind in ("table", "jsonl"):
        done = run(where, *command, kind, encoding="ascii")
        assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 9)


@pytest.mark.parametrize("source", ["old", "perclass"])
def test_28_the_class_folders_are_read_and_the_log_says_so(
    source: str, cases: Path, tmp_path: Path
) -> None:
    done = train(cases / "28-leftover-tar", source, "--output_dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "training: 18 images of 3 classes" in done.stdout
    assert "the class folders are read; tar files" in done.stdout
