"""The names of classes that weights record: one for each output, all different, or none."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from densenet121.checkpoint.convert import convert
from densenet121.checkpoint.inspect import inspect
from densenet121.checkpoint.load import MODEL_KEY, read_weights
from densenet121.checkpoint.native import METADATA_KEY, ModelInfo, save, save_weights
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.inference.predictor import Predictor
from densenet121.network import build
from densenet121.utils.errors import InputError

from helpers.commands import run_command

OUTPUTS = 5
FITTING: list[tuple[str, ...]] = [(), ("a", "b", "c", "d", "e")]
WRONG = {
    ("a", "b", "c"): "has names for 3 classes, but its network has 5 outputs; write it again with",
    ("a", "b", "c", "d", "e", "f"): "has names for 6 classes, but its network has 5 outputs",
    ("a", "b", "c", "b", "e"): r'"b" is the name of 2 of its classes; write it again with another',
}


def info(names: tuple[str, ...], task: str = "single_label") -> ModelInfo:
    return ModelInfo("densenet40", "paper", names, Preprocessing((16, 16), "20,20"), task)


def state() -> dict[str, Tensor]:
    return build("densenet40", num_classes=OUTPUTS).state_dict()


def native(path: Path, names: tuple[str, ...], task: str) -> None:
    save_weights(path, state(), info(names, task), {})


def checkpoint(path: Path, names: tuple[str, ...], task: str) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in state().items()}
    save(path, "checkpoint", tensors, {"model": info(names, task).to_json()})


def other_program(path: Path, names: tuple[str, ...], task: str) -> None:
    text = json.dumps(info(names, task).to_json())
    safetensors.torch.save_file(state(), path, {"format": "pt", MODEL_KEY: text})


@pytest.mark.parametrize("task", ["single_label", "multilabel"])
@pytest.mark.parametrize("write", [native, checkpoint, other_program])
@pytest.mark.parametrize("names", WRONG)
def test_names_that_do_not_fit_the_outputs_are_refused(
    names: tuple[str, ...], write: Any, task: str, tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    write(path, names, task)
    for use in (read_weights, inspect, Predictor):
        with pytest.raises(InputError, match=rf"w\.safetensors: {WRONG[names]}"):
            use(path)
    with pytest.raises(InputError, match=WRONG[names]):
        convert(path, tmp_path / "new.safetensors", "native")
    assert not (tmp_path / "new.safetensors").exists()


@pytest.mark.parametrize("write", [native, checkpoint, other_program])
@pytest.mark.parametrize("names", FITTING)
def test_names_for_all_outputs_or_none_are_read(
    names: tuple[str, ...], write: Any, tmp_path: Path
) -> None:
    write(tmp_path / "w.safetensors", names, "single_label")
    found = read_weights(tmp_path / "w.safetensors").info
    assert found is not None and found.class_names == names


def test_a_task_of_the_caller_may_have_another_number_of_outputs(tmp_path: Path) -> None:
    native(tmp_path / "w.safetensors", ("a", "b", "c", "d", "e", "f"), "ordinal")
    assert read_weights(tmp_path / "w.safetensors").num_classes == OUTPUTS


def test_the_command_says_so_in_one_line(tmp_path: Path) -> None:
    native(tmp_path / "w.safetensors", ("a", "b", "c"), "single_label")
    done = run_command("predict", "--pretrained", "w.safetensors", "x.png", cwd=tmp_path)
    assert done.returncode != 0
    assert "has names for 3 classes, but its network has 5 outputs" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("names", WRONG)
def test_an_exported_file_with_names_that_do_not_fit_is_refused(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 5, 16, 16])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", OUTPUTS])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    node = helper.make_node("ReduceMean", ["images", "axes"], ["logits"], keepdims=0)
    graph = helper.make_graph([node], "g", [images], [logits], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {METADATA_KEY: json.dumps({"model": info(names).to_json()})})
    onnx.save(model, tmp_path / "w.onnx")
    with pytest.raises(InputError, match=rf"w\.onnx: {WRONG[names]}"):
        Predictor(tmp_path / "w.onnx")


def test_label_names_that_are_twice_in_a_config_are_told_apart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = build("densenet121", num_classes=3).state_dict()
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    content = {"architecture": "densenet121", "label_names": ["crane", "bee", "crane"]}
    (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    found = read_weights(tmp_path)
    assert found.info is not None
    assert found.info.class_names == ("crane (0)", "bee", "crane (2)")
    assert any('"crane" is the name of 2 of its label_names' in note for note in found.notes)
