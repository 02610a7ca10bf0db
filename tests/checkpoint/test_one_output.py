"""Weights with one output: a label with a sigmoid, never a class that every image has."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from densenet121.checkpoint.convert import convert
from densenet121.checkpoint.foreign.labels import ONE_OUTPUT
from densenet121.checkpoint.foreign.medical import to_monai
from densenet121.checkpoint.inspect import inspect
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import METADATA_KEY, ModelInfo, save_weights
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.engine.evaluate import evaluate
from densenet121.inference.predictor import Predictor
from densenet121.network import build
from densenet121.utils.errors import InputError

from helpers.commands import run_command
from helpers.weights import eval_config

PROBABILITY = 1 / (1 + math.exp(3))  # of the logit -3, which every image gets


def state(net: str) -> dict[str, Tensor]:
    torch.manual_seed(2)
    tensors = build(net, num_classes=1).state_dict()
    zeros = torch.zeros_like(tensors["classifier.weight"])
    return tensors | {"classifier.weight": zeros, "classifier.bias": torch.tensor([-3.0])}


def torchvision(path: Path) -> Path:
    torch.save(state("densenet121"), path / "w.pth")
    return path / "w.pth"


def after_dropout(path: Path) -> Path:
    named = {n.replace("classifier.", "classifier.1."): t for n, t in state("densenet121").items()}
    torch.save(named, path / "w.pth")
    return path / "w.pth"


def monai(path: Path) -> Path:
    torch.save({to_monai(n): t for n, t in state("densenet121").items()}, path / "w.pth")
    return path / "w.pth"


def timm(path: Path) -> Path:
    safetensors.torch.save_file(state("densenet121"), path / "model.safetensors")
    content = {"architecture": "densenet121", "num_classes": 1, "label_names": ["pneumonia"]}
    (path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    return path / "model.safetensors"


def network_by_flag(path: Path) -> Path:
    """Torchvision's names of a network that it does not have: nothing is recorded."""
    torch.save(state("densenet40"), path / "w.pth")
    return path / "w.pth"


@pytest.mark.parametrize("write", [torchvision, after_dropout, monai, timm, network_by_flag])
def test_one_output_of_another_program_is_a_label_and_is_said_to_be_assumed(
    write: object, tmp_path: Path
) -> None:
    assert callable(write)
    path, net = write(tmp_path), "densenet40" if write is network_by_flag else "densenet121"
    assert ONE_OUTPUT in inspect(path)
    assert "one class per image" not in inspect(path)
    image = np.full((40, 50, 3), 90, np.uint8)
    predictor = Predictor(path, net=net, amp="fp32")
    (answer,) = predictor.predict([image])
    (found,) = answer.to_json()["labels"]
    assert found["probability"] == pytest.approx(PROBABILITY, abs=1e-6)
    done = convert(path, tmp_path / "native.safetensors", "native", net=net)
    assert ONE_OUTPUT in done.notes and done.info.task == "multilabel"
    (kept,) = Predictor(tmp_path / "native.safetensors", amp="fp32").predict([image])
    assert kept.to_json() == answer.to_json()
    assert read_weights(tmp_path / "native.safetensors").notes == ()  # now it is recorded


def test_a_hidden_layer_before_one_output_is_another_head_without_a_note(tmp_path: Path) -> None:
    tensors = state("densenet121") | {"classifier.weight": torch.zeros(1, 64)}
    torch.save(tensors | {"hidden.weight": torch.zeros(64, 1024)}, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").notes == ()


def test_predict_and_eval_say_what_they_assume(tmp_path: Path) -> None:
    torchvision(tmp_path)
    for name in ("a", "b"):
        Image.new("RGB", (50, 40), (90, 80, 70)).save(tmp_path / f"{name}.png")
    done = run_command("predict", "--pretrained", "w.pth", "a.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"densenet121: note: {ONE_OUTPUT}\n" in done.stderr
    assert "4.74 %" in done.stdout and "100" not in done.stdout
    table = tmp_path / "t.csv"
    table.write_text("path,pneumonia,age\na.png,1,40\nb.png,0,50\n", encoding="utf-8")
    config = eval_config(table, tmp_path / "w.pth", tmp_path / "out", labels="pneumonia")
    (found,) = evaluate(config).evaluations.values()
    assert (
        found is not None and found.metrics["auroc"] == 0.5
    )  # all images have the same probability
    log = next((tmp_path / "out").rglob("*.log")).read_text(encoding="utf-8")
    assert f"note: {ONE_OUTPUT}" in log


def test_a_native_file_of_one_class_per_image_with_one_output_is_refused(tmp_path: Path) -> None:
    info = ModelInfo("densenet40", "paper", (), Preprocessing((16, 16), "20,20"))
    path = tmp_path / "w.safetensors"
    save_weights(path, state("densenet40"), info, {})
    said = r"w\.safetensors: says one class per image, but its network has one output.*convert the"
    with pytest.raises(InputError, match=said):
        Predictor(path)
    with pytest.raises(InputError, match=said):
        convert(path, tmp_path / "new.safetensors", "native")
    assert "so it cannot classify" in inspect(path)
    assert read_weights(path).num_classes == 1  # its features are still read


def test_an_exported_file_of_one_class_per_image_with_one_output_is_refused(
    tmp_path: Path,
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    info = ModelInfo("densenet40", "paper", ("a",), Preprocessing((16, 16), "20,20"))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 16, 16])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    node = helper.make_node("ReduceMean", ["images", "axes"], ["logits"], keepdims=0)
    graph = helper.make_graph([node], "g", [images], [logits], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {METADATA_KEY: json.dumps({"model": info.to_json()})})
    onnx.save(model, tmp_path / "w.onnx")
    with pytest.raises(InputError, match=r"w\.onnx: says one class per image, but its network"):
        Predictor(tmp_path / "w.onnx")
