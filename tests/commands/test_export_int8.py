"""Native int8 weights: eval, predict and serve use them, everything else refuses them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from densenet121.checkpoint.convert import convert
from densenet121.checkpoint.inspect import inspect
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import save_weights
from densenet121.checkpoint.pretrained import load_model
from densenet121.commands.average import average
from densenet121.commands.calibrate import calibrate
from densenet121.commands.export import export
from densenet121.commands.probe import probe
from densenet121.config import (
    AverageConfig,
    CalibrateConfig,
    ExportConfig,
    ProbeConfig,
    TrainConfig,
)
from densenet121.engine.evaluate import evaluate
from densenet121.engine.train import train
from densenet121.inference.predictor import Predictor
from densenet121.utils.errors import InputError, UsageError

from helpers.weights import eval_config, weights_with_statistics, write_weights


def config(weights: Path, image_folder: Path, output: Path, **flags: object) -> ExportConfig:
    given: dict[str, Any] = {"pictures": 8, "format": "native", "int8": 1} | flags
    return ExportConfig(
        pretrained=str(weights), data_dir=str(image_folder), output=str(output), **given
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    made = read_weights(weights_with_statistics(path, image_folder))
    assert made.info is not None
    save_weights(path, made.state_dict, made.info, {"epoch": 0, "top1_correct": 7})
    return path


@pytest.fixture(scope="module")
def int8(weights: Path, image_folder: Path) -> Path:
    path = weights.with_name("int8.safetensors")
    export(config(weights, image_folder, path, min_agreement=0.0))
    return path


def test_eval_and_predict_take_int8_weights_and_say_so(
    weights: Path, int8: Path, image_folder: Path, tmp_path: Path
) -> None:
    parity = json.loads(int8.with_name("int8.safetensors.certificate.json").read_text())
    assert parity["format"] == "native" and parity["int8"] and parity["pictures"] == 8
    assert 0 < parity["largest_probability_difference"] < 0.1
    assert parity["bytes"] == int8.stat().st_size < 0.5 * weights.stat().st_size
    assert {"metrics_before", "metrics_after"} <= set(parity)
    result = evaluate(eval_config(image_folder, int8, tmp_path / "eval"))
    content = json.loads((result.folder / "eval.json").read_text())
    assert content["arithmetic"] == "int8"
    assert "int8 weights: 8-bit arithmetic" in next(result.folder.glob("*.log")).read_text()
    path = image_folder / "val" / "cat" / "001.png"
    exact, near = (Predictor(source, amp="fp32").predict([path])[0] for source in (weights, int8))
    by_class = dict(zip(exact.classes, exact.probabilities, strict=True))
    for name, probability in zip(near.classes, near.probabilities, strict=True):
        assert abs(by_class[name] - probability) < 0.1
    described = inspect(int8)
    assert "calibrated on 8 images" in described and "densenet40" in described
    (content,) = (line for line in described.splitlines() if line.startswith("content"))
    assert content.endswith(" numbers, float32, int16, int32, int8")
    assert "scores are of the float weights" in described
    assert inspect(weights).count("float32") == 1 and "int" not in inspect(weights)


def test_equal_weights_and_images_give_equal_files(
    weights: Path, int8: Path, image_folder: Path, tmp_path: Path
) -> None:
    export(config(weights, image_folder, tmp_path / "again.safetensors", min_agreement=0.0))
    assert (tmp_path / "again.safetensors").read_bytes() == int8.read_bytes()


def test_whatever_needs_a_network_in_float_refuses_int8_weights(
    int8: Path, image_folder: Path, tmp_path: Path
) -> None:
    data, file, out = str(image_folder), str(int8), str(tmp_path / "out.safetensors")
    reason = "has int8 weights, which only eval, predict, serve and inspect take; pass the weights"
    for use in (
        lambda: load_model(int8),
        lambda: convert(int8, tmp_path / "t.pth", "torchvision"),
        lambda: calibrate(CalibrateConfig(pretrained=file, data_dir=data, output=out)),
        lambda: average(
            AverageConfig(
                inputs=[file, f"{tmp_path}/../{int8.parent.name}/int8.safetensors"], output=out
            )
        ),
        lambda: probe(ProbeConfig(pretrained=file, data_dir=data, output=out)),
        lambda: export(config(int8, image_folder, Path(out))),
        lambda: train(
            TrainConfig(
                data_dir=data, pretrained=file, net="densenet40", output_dir=str(tmp_path / "run")
            )
        ),
    ):
        with pytest.raises(InputError, match=reason):
            use()
    assert not Path(out).exists()


def test_weights_whose_training_diverged_are_named_themselves(
    image_folder: Path, tmp_path: Path
) -> None:
    source = write_weights(tmp_path / "w.safetensors")
    state = read_weights(source).state_dict
    state["classifier.bias"][1] = float("nan")
    write_weights(source, state=state)
    output = tmp_path / "int8.safetensors"
    with pytest.raises(InputError, match=rf"^{source}: classifier\.bias has nan or infinite"):
        export(config(source, image_folder, output))
    assert not output.exists()


def test_a_file_that_somebody_changed_is_refused(int8: Path, tmp_path: Path) -> None:
    given = read_weights(int8, int8=True)
    assert given.info is not None and given.int8 is not None
    name = "features.denseblock1.denselayer1.conv1.scale"
    harmed = given.state_dict | {name: torch.full_like(given.state_dict[name], 100.0)}
    path = tmp_path / "harmed.safetensors"
    save_weights(path, harmed, given.info, {}, int8=given.int8)
    with pytest.raises(InputError, match=f"damaged \\({name}: a scale is out of range"):
        Predictor(path)
    save_weights(path, given.state_dict, given.info, {}, int8={"version": "x"})
    with pytest.raises(InputError, match="int8 weights of version 'x'"):
        Predictor(path)
    with pytest.raises(InputError, match="damaged"):
        inspect(path)


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    for flags, reason in (
        ({"int8": 0}, "--format native needs --int8 1"),
        ({"uint8_input": 1}, "--uint8_input 1 needs --format onnx or torch, got native"),
        ({"format": "torch"}, "--int8 1 needs --format onnx or native"),
    ):
        with pytest.raises(UsageError, match=reason):
            config(tmp_path, tmp_path, tmp_path / "x", **flags)


@pytest.mark.parametrize(
    ("name", "flags", "other"),
    [
        ("m.onnx", {}, "onnx"),
        ("m.pt2", {"format": "onnx"}, "torch"),
        ("m.SAFETENSORS", {"format": "onnx"}, "native"),
        ("m.onnx", {"format": "torch", "int8": 0}, "onnx"),
    ],
)
def test_a_file_named_as_another_format_is_refused(
    name: str, flags: dict[str, Any], other: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"pass --format {other} or another name"):
        config(tmp_path, tmp_path, tmp_path / name, **flags)


@pytest.mark.parametrize(
    ("name", "flags", "reason"),
    [
        ("m.xyz", {"format": "onnx"}, "must be a .onnx file for --format onnx"),
        ("m", {"format": "torch", "int8": 0}, "must be a .pt2 file for --format torch"),
        ("m.pth", {}, "must be a .safetensors file for --format native"),
    ],
)
def test_a_file_whose_name_does_not_say_its_format_is_refused(
    name: str, flags: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"{reason}, got .*{name}"):
        config(tmp_path, tmp_path, tmp_path / name, **flags)
