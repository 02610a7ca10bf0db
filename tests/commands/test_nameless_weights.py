"""Weights that record no class names, or not even their network, where new weights are made."""

from pathlib import Path
from typing import Any

import pytest
import torch

from densenet121.checkpoint.convert import convert
from densenet121.checkpoint.load import read_weights
from densenet121.cli import main
from densenet121.commands.average import average
from densenet121.commands.calibrate import calibrate
from densenet121.config import AverageConfig, CalibrateConfig

from helpers.weights import weights_with_statistics, write_weights

DATA: dict[str, Any] = {"workers": 0, "amp": "fp32"}


def without_names(path: Path, source: Path) -> Path:
    """The same weights, network and preprocessing."""
    return write_weights(path, class_names=(), state=read_weights(source).state_dict)


def test_a_calibration_of_weights_without_names_is_that_of_the_same_with_names(
    image_folder: Path, tmp_path: Path
) -> None:
    named = weights_with_statistics(tmp_path / "named.safetensors", image_folder)
    plain = without_names(tmp_path / "plain.safetensors", named)
    found = [
        calibrate(CalibrateConfig(data_dir=str(image_folder), pretrained=str(file), **DATA))
        for file in (named, plain)
    ]
    assert found[0].calibration == found[1].calibration
    written = read_weights(found[1].output)
    assert written.info is not None and written.info.class_names == ()


def test_an_average_of_weights_without_names_is_that_of_the_same_with_names(
    image_folder: Path, tmp_path: Path
) -> None:
    named = [write_weights(tmp_path / f"{seed}.safetensors", seed=seed) for seed in (1, 2)]
    plain = [without_names(tmp_path / f"plain{file.name}", file) for file in named]
    results = [
        average(
            AverageConfig(
                inputs=list(map(str, files)),
                output=str(tmp_path / f"of_{files[0].name}"),
                data_dir=str(image_folder),
                **DATA,
            )
        )
        for files in (named, plain)
    ]
    assert results[0].metrics == results[1].metrics
    states = [read_weights(result.output).state_dict for result in results]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("command", ["calibrate", "average"])
def test_weights_without_names_of_more_classes_than_the_images_are_refused(
    command: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for file in files:
        source = write_weights(tmp_path / "4.safetensors", class_names=("a", "b", "c", "d"))
        without_names(file, source)
    data = ["--data_dir", str(image_folder), "--output", str(tmp_path / "o.safetensors")]
    given = list(map(str, files)) if command == "average" else ["--pretrained", str(files[0])]
    assert main([command, *given, *data]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "a.safetensors has 4 classes (without names), but" in error


@pytest.mark.parametrize("command", ["calibrate", "average", "export"])
def test_weights_of_an_unknown_network_say_how_to_get_on(
    command: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_weights(tmp_path / "source.safetensors")
    files = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for file in files:
        torch.save(read_weights(source).state_dict, file)
    given = list(map(str, files)) if command == "average" else ["--pretrained", str(files[0])]
    output = tmp_path / ("o.onnx" if command == "export" else "o.safetensors")
    data = ["--data_dir", str(image_folder), "--output", str(output)]
    assert main([command, *given, *data]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{files[0]}: does not record its network" in error
    assert "densenet121 convert with --to native and its --net writes a file that does" in error
    convert(files[0], tmp_path / "new.safetensors", "native", net="densenet40")
    assert read_weights(tmp_path / "new.safetensors").info is not None
