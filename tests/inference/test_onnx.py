"""An exported network obeys the settings that weights obey, and says how it computes."""

import copy
import json
import os
import pickle
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_library
import pytest
import torch

from densenet121.checkpoint.inspect import inspect
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import save_weights
from densenet121.cli import main
from densenet121.commands.export import export
from densenet121.config import ExportConfig
from densenet121.engine.evaluate import evaluate
from densenet121.inference.classifier import Choices, load_classifier
from densenet121.inference.onnx_model import load_onnx
from densenet121.inference.predictor import Predictor
from densenet121.tasks.single_label.calibration import Calibration
from densenet121.utils.errors import InputError, UsageError

from helpers.commands import run_command
from helpers.weights import eval_config, weights_with_statistics

pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    return weights_with_statistics(path, image_folder)


@pytest.fixture(scope="module")
def onnx(weights: Path, image_folder: Path) -> Path:
    return exported(weights, image_folder, "w.onnx")


@pytest.fixture(scope="module")
def int8(weights: Path, image_folder: Path) -> Path:
    return exported(weights, image_folder, "i.onnx", int8=1, min_agreement=0.0)


@pytest.fixture(scope="module")
def native(weights: Path, image_folder: Path) -> Path:
    flags = {"format": "native", "int8": 1, "min_agreement": 0.0}
    return exported(weights, image_folder, "n.safetensors", **flags)


def exported(weights: Path, image_folder: Path, name: str, **flags: Any) -> Path:
    path = weights.with_name(name)
    given: dict[str, Any] = {"pretrained": str(weights), "data_dir": str(image_folder)}
    export(ExportConfig(output=str(path), pictures=8, **given, **flags))
    return path


def log_of(folder: Path) -> str:
    return "".join(file.read_text() for file in folder.glob("*.log"))


def test_eval_resizes_for_the_onnx_file_as_for_the_weights(
    weights: Path, onnx: Path, image_folder: Path, tmp_path: Path
) -> None:
    said, logits = [], []
    for source in (weights, onnx):
        folder = tmp_path / source.suffix[1:]
        settings = eval_config(image_folder, source, folder, interpolation="pillow_bicubic")
        result = evaluate(settings)
        (found,) = result.evaluations.values()
        assert found is not None
        logits.append(found.metrics["loss"])
        (line,) = [line for line in log_of(folder).splitlines() if "images resized to" in line]
        said.append(line[line.index("network densenet40") :])
    assert said[0] == said[1] and "(pillow_bicubic)" in said[0]
    assert logits[0] == pytest.approx(logits[1], abs=1e-4)


def test_an_interpolation_is_that_of_the_weights_pixel_for_pixel(
    weights: Path, onnx: Path, image_folder: Path
) -> None:
    path = min((image_folder / "val").rglob("*.png"))
    choices = Choices(interpolation="pillow_bicubic")
    pixels = []
    for classifier in (load_classifier(weights, choices), load_onnx(onnx, choices)):
        out = np.empty((*classifier.preprocessing.pixels_size, 3), np.uint8)
        classifier.preprocessing.prepare(path.read_bytes(), out)
        pixels.append(out)
    assert (pixels[0] == pixels[1]).all()
    assert (pixels[0] != Predictor(onnx, amp="fp32").prepare(path)).any()


@pytest.mark.parametrize("kind", ["weights", "onnx"])
@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"net": "densenet121"}, "`net` is densenet121, but .* has weights of densenet40"),
        ({"variant": "model_zoo"}, "`variant` is model_zoo, but .* has weights of paper"),
    ],
)
def test_another_network_than_the_recorded_one_is_refused(
    kind: str, choice: dict[str, Any], reason: str, request: pytest.FixtureRequest,
    image_folder: Path, tmp_path: Path,
) -> None:  # fmt: skip
    path = request.getfixturevalue(kind)
    with pytest.raises(UsageError, match=reason):
        Predictor(path, **choice)
    with pytest.raises(UsageError, match=reason):
        evaluate(eval_config(image_folder, path, tmp_path / "eval", **choice))
    assert Predictor(path, net="densenet40", variant="paper").classifier.net == "densenet40"


@pytest.mark.parametrize(
    ("kind", "arithmetic"), [("onnx", "float32"), ("int8", "int8"), ("native", "int8")]
)
def test_the_arithmetic_is_reported_as_it_is(
    kind: str, arithmetic: str, request: pytest.FixtureRequest, image_folder: Path, tmp_path: Path
) -> None:
    path = request.getfixturevalue(kind)
    folder = evaluate(eval_config(image_folder, path, tmp_path / "eval", amp=None)).folder
    assert json.loads((folder / "run.json").read_text())["settings"]["amp"] == arithmetic
    content = json.loads((folder / "eval.json").read_text())
    assert content.get("arithmetic") == (None if arithmetic == "float32" else "int8")
    assert f"{arithmetic} on " in log_of(folder) and "bfloat16" not in log_of(folder)
    predictor = Predictor(path)
    assert predictor.runtime.precision_name == arithmetic
    assert predictor.classifier.is_int8 == (arithmetic == "int8")
    reason = f"`amp` is bf16, but .* computes in {arithmetic}; omit `amp`"
    with pytest.raises(UsageError, match=reason):
        Predictor(path, amp="bf16")
    with pytest.raises(UsageError, match=reason):
        evaluate(eval_config(image_folder, path, tmp_path / "refused", amp="bf16"))
    assert not (tmp_path / "refused").exists()


def test_an_older_onnx_file_says_its_arithmetic_by_its_operators(
    onnx: Path, int8: Path, tmp_path: Path
) -> None:
    for source, expected in ((onnx, "float32"), (int8, "int8")):
        model = onnx_library.load(source)
        (note,) = model.metadata_props
        content = json.loads(note.value)
        assert content.pop("int8") == (expected == "int8")
        note.value = json.dumps(content)
        onnx_library.save(model, tmp_path / source.name)
        assert load_onnx(tmp_path / source.name, Choices()).arithmetic == expected


@pytest.mark.parametrize("name", ["Big.ONNX", "network.bin"])
def test_an_onnx_file_is_known_by_its_suffix_in_any_case_or_its_content(
    name: str, onnx: Path, image_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "given" / name
    path.parent.mkdir()
    path.write_bytes(onnx.read_bytes())
    assert Predictor(path).classifier.arithmetic == "float32"
    evaluate(eval_config(image_folder, path, tmp_path / "one"))
    if name.endswith("ONNX"):
        found = evaluate(eval_config(image_folder, path.parent, tmp_path / "all"))
        assert list(found.evaluations) == [path] and found.complete


@pytest.mark.parametrize("name", ["m.onnx", "M.ONNX", "m.bin"])
def test_weights_are_asked_for_where_an_onnx_file_cannot_be_used(
    name: str, onnx: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(onnx.read_bytes())
    for shapes_only in (False, True):
        with pytest.raises(InputError, match=r"exported network .ONNX., which only eval, predict"):
            read_weights(tmp_path / name, shapes_only=shapes_only)


@pytest.mark.parametrize("kind", ["onnx", "int8"])
def test_inspect_says_of_an_exported_file_what_a_receiver_needs(
    kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    path = request.getfixturevalue(kind)
    capsys.readouterr()  # what the export printed
    assert main(["inspect", str(path)]) == 0
    rows = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert rows["file"].startswith(f"{path} (")
    assert "exported to ONNX" in rows["weights"]
    assert rows["network"] == "densenet40" and rows["classes"].startswith("3: ")
    arithmetic = "int8" if kind == "int8" else "float32"
    assert rows["content"] == f"computes in {arithmetic}; takes float of batch x 3 x 16 x 16"
    assert rows["images"].startswith(
        "resized to 20,20 (opencv_bilinear), central 16 x 16, mean 123."
    )


def test_inspect_names_the_calibration_of_an_exported_file(
    weights: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = read_weights(weights)
    source = tmp_path / "c.safetensors"
    calibration = Calibration(7.18254, (0.1, 0.2), 0.58461, {"tta": "none"}).to_json()
    assert stored.info is not None
    save_weights(source, stored.state_dict, stored.info, {}, calibration)
    path = exported(source, image_folder, "c.onnx")
    assert main(["inspect", str(path)]) == 0
    assert "temperature 7.183; no answer below 0.5846; pred" in capsys.readouterr().out


def test_a_torch_export_file_is_named_and_described_as_one(
    weights: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = exported(weights, image_folder, "w.pt2", format="torch")
    said = {}
    for file in (path, weights):
        capsys.readouterr()
        assert main(["inspect", str(file)]) == 0
        said[file] = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert "exported by torch.export" in said[path]["weights"]
    for row in ("network", "variant", "classes", "images"):
        assert said[path][row] == said[weights][row]
    reason = r"exported network .torch.export., which is for torch.export.load"
    with pytest.raises(InputError, match=reason):
        read_weights(path)
    with pytest.raises(InputError, match=reason):
        Predictor(path)


@pytest.mark.parametrize(
    "note", ["{", "[]", "{}", '{"model": 3}', '{"model": {"net": "densenet40"}, "calibration": 3}']
)
def test_damaged_metadata_of_a_torch_export_file_are_one_line(note: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/models/model.json", "{}")
        archive.writestr("w/extra/densenet121.json", note)
    with pytest.raises(InputError, match=r"w\.pt2: damaged \(.* in its metadata\)$"):
        inspect(path)


def test_maps_of_an_exported_network_are_refused_before_an_image_is_read(
    weights: Path, onnx: Path, native: Path, image_folder: Path, tmp_path: Path
) -> None:
    flags = ["--cam", tmp_path / "maps"]
    for source, more, reason in (
        (onnx, [], "maps need weights in floating point, not int8 or an exported network"),
        (native, [], "maps need weights in floating point, not int8 or an exported network"),
        (weights, ["--cam_layer", "nowhere"], "there is no such layer; did you mean"),
    ):
        done = run_command("predict", image_folder, "--pretrained", source, *flags, *more)
        assert done.returncode in (1, 2) and not done.stdout
        (line,) = done.stderr.splitlines()
        assert reason in line and not (tmp_path / "maps").exists()


@pytest.fixture
def apart(onnx: Path, tmp_path: Path) -> Path:
    """The same network with its tensors in a file of their own."""
    file = tmp_path / "its own" / "w.onnx"
    file.parent.mkdir()
    written_apart(onnx_library.load(onnx), file)
    return file


def written_apart(model: "onnx_library.ModelProto", file: Path) -> None:
    onnx_library.save(model, file, save_as_external_data=True, location="w.data")


def test_tensors_in_another_file_are_those_beside_the_network_wherever_it_is_run(
    onnx: Path, apart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    wanted = Predictor(onnx).logits(pixels)
    other = onnx_library.load(onnx)
    for tensor in other.graph.initializer:
        if tensor.name == "classifier.weight":
            negative = -onnx_library.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx_library.numpy_helper.from_array(negative, tensor.name))
    here = tmp_path / "here"
    here.mkdir()
    written_apart(other, here / "other.onnx")
    for folder in (apart.parent, here, tmp_path):
        monkeypatch.chdir(folder)
        np.testing.assert_allclose(Predictor(apart).logits(pixels), wanted, atol=1e-5)


@pytest.mark.parametrize("bytes_left", [None, 100])
def test_a_network_without_the_file_of_its_tensors_says_so(
    bytes_left: int | None, apart: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = apart.with_name("alone")
    moved.mkdir()
    apart.rename(moved / apart.name)
    if bytes_left is not None:
        (moved / "w.data").write_bytes((apart.parent / "w.data").read_bytes()[:bytes_left])
    monkeypatch.chdir(apart.parent)  # where the tensors still are
    with pytest.raises(InputError, match=r"external data\), which is missing beside it"):
        Predictor(moved / apart.name)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({0: 1}, "float of 1 x 3 x 16 x 16"),
        ({2: 64}, "float of batch x 3 x 64 x 16"),
        ({"type": onnx_library.TensorProto.FLOAT16}, "float16 of batch x 3 x 16 x 16"),
    ],
)
def test_an_input_that_was_changed_after_the_export_is_refused_before_an_image_is_read(
    change: dict[Any, int], found: str, onnx: Path, tmp_path: Path
) -> None:
    model = onnx_library.load(onnx)
    given = model.graph.input[0].type.tensor_type
    for what, value in change.items():
        if what == "type":
            given.elem_type = value
            cast = onnx_library.helper.make_node("Cast", ["images"], ["wide"], to=1)
            model.graph.node[0].input[0] = "wide"
            model.graph.node.insert(0, cast)
        else:
            given.shape.dim[what].dim_value = value
    onnx_library.save(model, tmp_path / "w.onnx")
    with pytest.raises(InputError, match=f"its input was changed after its export: {found}, not"):
        Predictor(tmp_path / "w.onnx")


@pytest.mark.parametrize("name", ["weights", "w.pth", "w.onnx"])
def test_a_pipe_in_place_of_weights_is_refused_without_being_read(
    name: str, tmp_path: Path
) -> None:
    pipe = tmp_path / name
    os.mkfifo(pipe)
    found: list[str] = []

    def read() -> None:
        with pytest.raises(InputError) as refused:
            Predictor(pipe)
        found.append(str(refused.value))

    reader = threading.Thread(target=read, daemon=True)  # opening a pipe would wait for ever
    reader.start()
    reader.join(20)
    assert found == [f"{pipe}: is a pipe or a device; save the weights in a file"]


@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
def test_a_copy_of_a_predictor_loads_the_file_again_and_answers_alike(
    onnx: Path, image_folder: Path, tmp_path: Path, way: str
) -> None:
    file, images = tmp_path / "w.onnx", sorted(image_folder.rglob("*.png"))[:3]
    file.write_bytes(onnx.read_bytes())
    predictor = Predictor(file)
    stored = pickle.dumps(predictor)
    copied = copy.deepcopy(predictor) if way == "deepcopy" else pickle.loads(stored)
    assert images
    assert copied.predict(images) == predictor.predict(images)
    file.write_bytes(onnx.read_bytes() + b"\n\0")  # an empty field more
    with pytest.raises(InputError, match="has changed since it was loaded"):
        pickle.loads(stored)
