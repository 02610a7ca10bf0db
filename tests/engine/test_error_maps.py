"""The maps of a run's most confident errors: of the right images, in the right place."""

import base64
import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from densenet121.checkpoint.pretrained import load_model
from densenet121.datasets.decoding import read_image
from densenet121.datasets.eval_resize import parse_eval_resize
from densenet121.datasets.transforms import MEAN, STD, EvalTransform, normalise
from densenet121.inference.cam import evidence_maps, overlay
from densenet121.runs.layout import error_map

from helpers.commands import run_command


@pytest.fixture(scope="module")
def run(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network is wrong about many images."""
    folder = tmp_path_factory.mktemp("run") / "run"
    result = run_command(*flags(image_folder), "--output_dir", folder)
    assert result.returncode == 0, result.stderr
    return folder


def flags(image_folder: Path) -> tuple[object, ...]:
    sizes = ("--image_size", 32, "--max_epoch", 1, "--per_batch_size", 15)
    return ("train", "--data_dir", image_folder, "--lr", 0, "--amp", "fp32", *sizes)


def wrong(folder: Path) -> list[dict[str, str]]:
    lines = (folder / "predictions.csv").read_text(encoding="utf-8").splitlines()
    return [row for row in csv.DictReader(lines) if row["label"] != row["predicted"]]


def test_each_error_has_the_map_of_the_class_that_was_answered(
    run: Path, image_folder: Path
) -> None:
    errors = wrong(run)
    assert 2 < len(errors) <= 21
    files = {error_map(run, row["path"]) for row in errors}
    assert files == set((run / "error_maps").iterdir())
    model = load_model(run / "last.safetensors")
    transform = EvalTransform(32, 32, parse_eval_resize("37,37"))
    for row in errors:
        pixels = np.ascontiguousarray(transform(read_image(image_folder / "val" / row["path"])))
        images = normalise(torch.from_numpy(pixels)[None], MEAN, STD)
        label = torch.tensor([["ant", "bee", "cat"].index(row["predicted"])])
        heat = evidence_maps(model, images, label)[0].numpy()
        expected = overlay(pixels, heat, 128)
        found = cv2.imread(str(error_map(run, row["path"])))
        assert found is not None
        difference = np.abs(found[:, :, ::-1].astype(int) - expected)
        assert difference.mean() < 6  # of the JPEG


@pytest.mark.slow
def test_maps_of_large_images_are_no_larger(image_folder: Path, tmp_path: Path) -> None:
    result = run_command(
        *("train", "--data_dir", image_folder, "--output_dir", tmp_path / "run", "--lr", 0),
        *("--net", "densenet40", "--image_size", "32,64", "--max_epoch", 1, "--amp", "fp32"),
        *("--per_batch_size", 22),
    )
    assert result.returncode == 0, result.stderr
    for file in (tmp_path / "run" / "error_maps").iterdir():
        found = cv2.imread(str(file))
        assert found is not None and found.shape == (64, 128, 3)


def test_the_report_shows_them(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "The map below each image shows the evidence for the predicted class." in page
    for row in wrong(run):
        jpeg = error_map(run, row["path"]).read_bytes()
        assert base64.b64encode(jpeg).decode() in page


def test_an_evaluation_writes_its_own_and_removes_older_ones(
    run: Path, image_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "error_maps").mkdir()
    (tmp_path / "error_maps" / "old.jpg").write_bytes(b"old")
    of_eval = ("--pretrained", run / "last.safetensors", "--amp", "fp32", "--output_dir", tmp_path)
    result = run_command("eval", "--data_dir", image_folder, *of_eval)
    assert result.returncode == 0, result.stderr
    assert {f.name for f in (tmp_path / "error_maps").iterdir()} == {
        f.name for f in (run / "error_maps").iterdir()
    }


def test_a_run_that_goes_on_in_a_new_folder_brings_those_of_its_results(
    run: Path, image_folder: Path, tmp_path: Path
) -> None:
    start = ("--resume", run / "0-1_3.ckpt", "--output_dir", tmp_path / "new")
    result = run_command(*flags(image_folder), *start)
    assert result.returncode == 0, result.stderr
    for file in (run / "error_maps").iterdir():
        assert (tmp_path / "new" / "error_maps" / file.name).read_bytes() == file.read_bytes()
