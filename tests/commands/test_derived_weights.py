"""Weights made from weights still know which images and which epoch they come from."""

from pathlib import Path

import pytest

from densenet121.checkpoint.convert import convert
from densenet121.checkpoint.load import read_weights
from densenet121.commands.average import average
from densenet121.commands.calibrate import calibrate
from densenet121.commands.convert import run as convert_command
from densenet121.commands.export import export
from densenet121.config import AverageConfig, CalibrateConfig, ConvertConfig, ExportConfig
from densenet121.engine.evaluate import evaluate
from densenet121.engine.train import train

from helpers.training import train_config
from helpers.weights import eval_config


@pytest.fixture(scope="module")
def trained(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("derived")
    train(train_config(image_folder, folder / "run", net="densenet121", image_size=32, max_epoch=1))
    return folder / "run" / "last.safetensors"


@pytest.fixture(scope="module")
def small(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a smaller network, which other programs do not have."""
    folder = tmp_path_factory.mktemp("small")
    train(train_config(image_folder, folder / "run", image_size=16, max_epoch=1))
    return folder / "run" / "last.safetensors"


def derive(kind: str, source: Path, image_folder: Path, target: Path) -> Path:
    data, file, out = str(image_folder), str(source), str(target)
    if kind == "converted":
        convert(source, target, "native")
    elif kind == "hugging face":
        convert_command(
            ConvertConfig(source=file, target=str(target.parent / "hf"), to="huggingface")
        )
        return target.parent / "hf" / "model.safetensors"
    elif kind == "calibrated":
        calibrate(CalibrateConfig(data_dir=data, pretrained=file, output=out, workers=1))
    elif kind == "averaged":
        again = target.with_name("again.safetensors")
        again.write_bytes(source.read_bytes())
        average(AverageConfig(inputs=[file, str(again)], output=out))
    else:
        export(
            ExportConfig(
                pretrained=file,
                data_dir=data,
                output=out,
                format="native",
                int8=1,
                pictures=8,
                min_agreement=0.0,
            )
        )
    return target


@pytest.mark.parametrize("kind", ["converted", "hugging face", "calibrated", "averaged", "int8"])
def test_it_is_said_that_they_were_trained_on_these_images(
    kind: str, trained: Path, image_folder: Path, tmp_path: Path
) -> None:
    made = derive(kind, trained, image_folder, tmp_path / "made.safetensors")
    if kind != "int8":  # which has no weights in float to read
        before, after = read_weights(trained), read_weights(made)
        assert before.data and after.data == before.data
        assert kind == "averaged" or (before.origin and after.origin == before.origin)
    config = eval_config(image_folder / "train", made, tmp_path / "eval")
    log = next(evaluate(config).folder.glob("*.log")).read_text()
    assert "WARNING:the weights were trained on these same images" in log


def test_it_is_said_that_images_to_calibrate_on_were_trained_or_validated_on(
    small: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    derive("calibrated", small, image_folder / "train", tmp_path / "a.safetensors")
    assert "warning: the weights were trained on these same images" in capsys.readouterr().err
    derive("calibrated", small, image_folder, tmp_path / "b.safetensors")
    printed = capsys.readouterr().err
    assert "note: the training run validated on these same images" in printed
    assert "warning" not in printed


@pytest.mark.parametrize("kind", ["weights", "onnx"])
def test_it_is_said_that_weights_were_calibrated_on_the_evaluated_images(
    kind: str, small: Path, image_folder: Path, tmp_path: Path
) -> None:
    made = derive("calibrated", small, image_folder, tmp_path / "made.safetensors")
    if kind == "onnx":
        data, output = str(image_folder), str(tmp_path / "made.onnx")
        export(ExportConfig(pretrained=str(made), data_dir=data, output=output, pictures=8))
        made = Path(output)
    for images, expected in ((image_folder, True), (image_folder / "train", False)):
        config = eval_config(images, made, tmp_path / f"eval_{expected}")
        log = next(evaluate(config).folder.glob("*.log")).read_text()
        assert ("WARNING:the weights were calibrated on these same images" in log) is expected
