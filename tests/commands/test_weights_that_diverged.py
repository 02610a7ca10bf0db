"""Weights with nan or infinite numbers are named, with the tensor, before an image is read."""

import math
from pathlib import Path

import pytest
from safetensors.torch import load_file

from densenet121.cli import main

from helpers.weights import write_weights


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize(
    "command",
    [
        ("predict", "DATA", "--pretrained", "WEIGHTS"),
        ("probe", "--data_dir", "DATA", "--pretrained", "WEIGHTS"),
        ("calibrate", "--data_dir", "DATA", "--pretrained", "WEIGHTS"),
        ("train", "--net", "densenet40", "--data_dir", "DATA", "--pretrained", "WEIGHTS"),
        ("serve", "WEIGHTS", "--port", "0"),
    ],
    ids=lambda command: command[0],
)
def test_the_file_and_the_tensor_are_named(
    command: tuple[str, ...],
    number: float,
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    state = load_file(write_weights(tmp_path / "whole.safetensors"))
    state["features.norm5.running_mean"][3] = number
    file = write_weights(tmp_path / "w.safetensors", state=state)
    places = {"DATA": str(image_folder), "WEIGHTS": str(file)}
    assert main([places.get(word, word) for word in command]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"densenet121: {file}: features.norm5.running_mean has nan or infinite numbers, so the "
        "file is damaged or its training diverged; take other weights"
    )
