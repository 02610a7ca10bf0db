"""Faults that the campaigns of hostile input (tests/campaigns) found, each once, and their kind."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from densenet121.checkpoint.foreign.mindspore import encode
from densenet121.checkpoint.inspect import inspect
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import METADATA_KEY, ModelInfo, _digest
from densenet121.cli import main, parse
from densenet121.datasets.sources.open import open_training
from densenet121.datasets.sources.parquet import read_parquet
from densenet121.distributed.rank_table import read_rank_table
from densenet121.runs.layout import read_record
from densenet121.utils.errors import InputError, UsageError

from helpers.weights import write_weights

DEEP = "[" * 100_000 + "]" * 100_000


def described(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Weights whose description was changed, with a checksum that is right."""
    data = write_weights(path).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    content = json.loads(json.loads(header["__metadata__"][METADATA_KEY])["content"])
    changed = change(content)
    text = changed if isinstance(changed, str) else json.dumps(changed)
    tensors = {"features.conv0.weight": torch.zeros(2)}
    note = {"format": 1, "kind": "weights", "content": text}
    note["sha256"] = _digest("weights", text, tensors)
    path.write_bytes(safetensors.torch.save(tensors, {METADATA_KEY: json.dumps(note)}))
    return path


def model(**given: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {**content, "model": {**content["model"], **given}}


def preprocessing(**given: Any) -> Callable[[dict[str, Any]], Any]:
    def change(content: dict[str, Any]) -> Any:
        return model(preprocessing={**content["model"]["preprocessing"], **given})(content)

    return change


DESCRIPTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "not JSON": lambda content: "{",
    "nested too deeply": lambda content: DEEP,
    "no object": lambda content: [content],
    "no model": lambda content: {"origin": {}},
    "a model that is a list": lambda content: {"model": [1]},
    "an origin that is a number": lambda content: {**content, "origin": 3},
    "data that are text": lambda content: {**content, "data": "x"},
    "data of a split that are text": lambda content: {**content, "data": {"train": "x"}},
    "a calibration that is a list": lambda content: {**content, "calibration": [1]},
    "a network that is a list": model(net=["densenet121"]),
    "classes that are numbers": model(class_names=[1, 2]),
    "half a character": model(class_names=["\ud800"]),
    "a preprocessing that is text": model(preprocessing="x"),
    "three sides": preprocessing(image_size=[1, 2, 3]),
    "a side of text": preprocessing(image_size=["16", 16]),
    "a negative side": preprocessing(image_size=[-16, 16]),
    "a mean of text": preprocessing(mean=["x", 1, 2]),
    "two means": preprocessing(mean=[1, 2]),
    "an infinite std": preprocessing(std=[1, 2, float("inf")]),
    "a std of 0": preprocessing(std=[1, 0, 1]),
    "an interpolation that is a list": preprocessing(interpolation=[1]),
    "a resize that is a number": preprocessing(eval_resize=3),
    "views that are a list": preprocessing(tta=["flip"]),
    "a window that is a number": preprocessing(window=3),
}


@pytest.mark.parametrize("what", DESCRIPTIONS)
def test_weights_of_a_wrong_description_are_refused_in_one_line(what: str, tmp_path: Path) -> None:
    path = described(tmp_path / "w.safetensors", DESCRIPTIONS[what])
    for read in (read_weights, lambda path: read_weights(path, shapes_only=True), inspect):
        with pytest.raises(InputError, match="damaged") as caught:
            read(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_description_that_is_right_is_read(tmp_path: Path) -> None:
    path = described(tmp_path / "w.safetensors", lambda content: content)
    assert isinstance(read_weights(path).info, ModelInfo)


def test_a_damaged_mindspore_file_is_refused_by_its_shapes_too(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(encode({"a.weight": torch.ones(50)})[:-3])
    with pytest.raises(InputError, match="truncated"):
        inspect(path)


@pytest.mark.parametrize("content", ["{", DEEP, '{"model": []}', "[1]", '"x"'])
def test_an_onnx_file_of_a_wrong_description_is_refused(content: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from densenet121.inference.classifier import Choices
    from densenet121.inference.onnx_model import load_onnx

    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    values = [helper.make_tensor_value_info(name, number, ["n", 3]) for name in ("x", "y")]
    node = helper.make_node("Relu", ["x"], ["y"])
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(made, {METADATA_KEY: content})
    path = tmp_path / "x.onnx"
    path.write_bytes(made.SerializeToString())
    with pytest.raises(InputError, match="metadata is damaged"):
        load_onnx(path, Choices())
    # Not UTF-8: ONNX Runtime returns no text for it.
    path.write_bytes(path.read_bytes().replace(content.encode()[:1], b"\xff"))
    with pytest.raises(InputError):
        load_onnx(path, Choices())


def test_json_that_is_nested_too_deeply_is_no_rank_table_and_no_record(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(DEEP)
    with pytest.raises(InputError, match="nested too deeply"):
        read_rank_table(tmp_path / "run.json")
    assert read_record(tmp_path) == {}


@pytest.mark.parametrize("note", [DEEP, '{"label": "\\ud800"}', '{"label": 1, "path": "\\ud800"}'])
def test_a_json_of_a_shard_that_cannot_be_a_label_is_refused(note: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in (("a.png", b"x"), ("a.json", note.encode()[:60_000])):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(InputError):
        open_training(path)


def test_a_damaged_parquet_file_is_refused_in_one_line(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    path = tmp_path / "train-0.parquet"
    pq.write_table(pa.table({"image": [{"bytes": b"x", "path": "a"}], "label": [0]}), path)
    data = bytearray(path.read_bytes())
    data[-30:-8] = b"\xff" * 22
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_parquet(path, "train")
    assert "\n" not in str(caught.value)


def test_a_parquet_file_whose_column_has_no_name_in_utf_8_is_refused(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    path = tmp_path / "train-0.parquet"
    table = pa.table({"image": [{"bytes": b"x", "path": "a"}], "label": [0]})
    pq.write_table(table, path, store_schema=False)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"bytes", b"by\xffes"))
    with pytest.raises(InputError, match=r"train-0.parquet: not a Parquet file"):
        read_parquet(path, "train")


def test_two_dashes_after_an_equals_sign_are_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    """argparse makes an empty list of them."""
    with pytest.raises(UsageError, match="--seed must be a whole number, got --"):
        parse(["train", "--data_dir", "x", "--seed=--"])
    with pytest.raises(UsageError, match="--config --: cannot be read"):
        parse(["train", "--config=--"])
    assert parse(["train", "--data_dir=--"])[1].data_dir == "--"
    assert main(["rank-table", "--devices=--"]) == 2
    assert "Traceback" not in capsys.readouterr().err
