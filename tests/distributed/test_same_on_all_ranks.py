"""Ranks that were not given the same are refused: each would work on something else."""

import json
import os
import shutil
from pathlib import Path

import pytest

from densenet121.utils.locks import locked

from helpers.images import write_classes
from helpers.ranks import SMALL, start_ranks
from helpers.weights import NAMES, write_weights

# The last argument has the further flags of rank 1.
START = """
import os, sys
from densenet121.cli import main

*common, own = sys.argv[1:]
sys.exit(main([*common, *(own.split() if os.environ["RANK"] == "1" else ())]))
"""
TRAIN = ("train", *SMALL, "--per_batch_size", 2, "--max_epoch", 1)
EVAL = ("eval", *SMALL[4:], "--per_batch_size", 4)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("images") / "all", list(NAMES), 2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "first.safetensors")


def two_ranks(folder: Path, *common: object, own: str) -> tuple[list[int], str]:
    """The statuses of two ranks that write to ``folder``/run, and what they print."""
    script = folder / "start.py"
    script.write_text(START)
    flags = (*common, "--output_dir", folder / "run", own)
    ranks, output = start_ranks(2, script, *flags, folder=folder)
    return [rank.wait() for rank in ranks], output.read_text()


def test_ranks_that_train_with_other_settings_are_refused(data_dir: Path, tmp_path: Path) -> None:
    own = "--lr 0.02 --per_batch_size 1 --amp bf16"
    statuses, text = two_ranks(tmp_path, *TRAIN, "--data_dir", data_dir, own=own)
    assert statuses == [2, 2], text
    batch, amp = "--per_batch_size is 1 instead of 2", "--amp is bfloat16 instead of float32"
    found = f"rank 1 has other settings than rank 0: --lr is 0.02 instead of 0.1, {batch}, {amp}; "
    assert text.count(f"densenet121: {found}start all ranks with the same ones") == 2
    assert not (tmp_path / "run").exists()


def test_ranks_that_evaluate_with_other_settings_are_refused(
    data_dir: Path, weights: Path, tmp_path: Path
) -> None:
    flags = (*EVAL, "--data_dir", data_dir, "--pretrained", weights)
    statuses, text = two_ranks(tmp_path, *flags, own="--image_size 32")
    assert statuses == [2, 2], text
    assert text.count("rank 1 has other settings than rank 0: --image_size is 32 instead of") == 2
    assert not (tmp_path / "run").exists()


def test_ranks_that_evaluate_other_weights_are_refused(
    data_dir: Path, weights: Path, tmp_path: Path
) -> None:
    other = write_weights(tmp_path / "other.safetensors", seed=1)
    flags = (*EVAL, "--data_dir", data_dir, "--pretrained", weights)
    statuses, text = two_ranks(tmp_path, *flags, own=f"--pretrained {other}")
    assert statuses == [1, 1], text
    names = f"({other} there, {weights} on rank 0)"
    assert text.count(f"the weights of rank 1 differ from those of rank 0 {names}: every") == 2


def test_ranks_of_which_one_has_no_weights_to_start_from_are_refused(
    data_dir: Path, weights: Path, tmp_path: Path
) -> None:
    statuses, text = two_ranks(
        tmp_path, *TRAIN, "--data_dir", data_dir, own=f"--pretrained {weights}"
    )
    assert statuses == [1, 1], text
    assert "the weights of rank 1 differ from those of rank 0 (1 files, rank 0 0)" in text


def test_ranks_that_evaluate_other_images_are_refused(
    data_dir: Path, weights: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(data_dir, tmp_path / "other"))
    (other / "cat" / "001.png").rename(other / "cat" / "002.png")
    flags = (*EVAL, "--data_dir", data_dir, "--pretrained", weights)
    statuses, text = two_ranks(tmp_path, *flags, own=f"--data_dir {other}")
    assert statuses == [1, 1], text
    assert text.count("the val data of rank 1 (6 images) differs from that of rank 0 (6") == 2
    assert not (tmp_path / "run").exists()


def test_ranks_may_have_the_same_content_in_other_places_and_their_own_threads(
    data_dir: Path, weights: Path, tmp_path: Path
) -> None:
    images = shutil.copytree(data_dir, tmp_path / "images")
    same = shutil.copy(weights, tmp_path / "same.safetensors")
    places = f"--data_dir {images} --pretrained {same} --output_dir {tmp_path / 'rank_1'}"
    own = f"{places} --workers 0 --timeout_seconds 300"
    flags = (*EVAL, "--data_dir", data_dir, "--pretrained", weights)
    statuses, text = two_ranks(tmp_path, *flags, own=own)
    assert statuses == [0, 0], text
    assert (tmp_path / "run" / "eval.json").exists()


def test_an_image_that_one_rank_cannot_read_is_the_same_fault_of_each_weights_file_on_all(
    data_dir: Path, weights: Path, tmp_path: Path
) -> None:
    images = Path(shutil.copytree(data_dir, tmp_path / "images"))
    bad = images / "ant" / "001.png"  # the second image is rank 1's first
    bad.write_bytes(b"no image")
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("first", "second"):
        shutil.copy(weights, folder / f"{name}.safetensors")
    flags = (*EVAL[:-1], 1, "--data_dir", images, "--pretrained", folder)
    statuses, text = two_ranks(tmp_path, *flags, own="")
    assert statuses == [1, 1], text
    assert text.count(f"ERROR:rank 1 failed: {bad}: not a readable image (") == 2
    assert "results: " in text, text
    rows = json.loads((tmp_path / "run" / "eval.json").read_text())["results"]
    assert [str(bad) in row["error"] for row in rows] == [True, True]


@pytest.mark.parametrize("command", ["train", "eval"])
def test_ranks_at_a_folder_of_a_process_that_runs_leave_its_logs_alone(
    command: str, data_dir: Path, weights: Path, tmp_path: Path
) -> None:
    flags = TRAIN if command == "train" else (*EVAL, "--pretrained", weights)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "then_rank_1.log").write_text("of the other\n")
    with locked(folder, "output_dir"):
        statuses, text = two_ranks(tmp_path, *flags, "--data_dir", data_dir, own="")
    assert statuses == [1, 1], text
    fault = f"--output_dir {folder}: process {os.getpid()} on"
    assert f"densenet121: {fault}" in text
    assert f"densenet121: rank 0 failed: {fault}" in text
    assert [file.name for file in folder.glob("*.log")] == ["then_rank_1.log"]
    assert (folder / "then_rank_1.log").read_text() == "of the other\n"
