"""export: what other programs run says what the network says, or nothing is written."""

import csv
import json
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import save_weights
from densenet121.commands.export import export
from densenet121.config import ExportConfig
from densenet121.engine.evaluate import evaluate
from densenet121.inference.predictor import Predictor
from densenet121.network import build
from densenet121.tasks.multi_label.calibration import Calibration
from densenet121.utils.errors import InputError

from helpers.commands import no_file_beyond
from helpers.images import write_classes
from helpers.tables import write_label_table
from helpers.weights import eval_config, weights_with_statistics, write_weights

pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    return weights_with_statistics(path, image_folder)


def config(weights: Path, image_folder: Path, output: Path, **flags: object) -> ExportConfig:
    given: dict[str, object] = {"pictures": 8} | flags
    return ExportConfig(
        pretrained=str(weights),
        data_dir=str(image_folder),
        output=str(output),
        **given,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("uint8_input", [0, 1])
def test_eval_says_of_the_onnx_file_what_it_says_of_the_weights(
    uint8_input: int, weights: Path, image_folder: Path, tmp_path: Path
) -> None:
    onnx = tmp_path / "m.onnx"
    found = export(config(weights, image_folder, onnx, uint8_input=uint8_input))
    assert found["top1_agreement"] == 1 and found["largest_logit_difference"] < 1e-3
    assert json.loads((tmp_path / "m.onnx.certificate.json").read_text()) == found
    digests = set()
    for source in (weights, onnx):
        result = evaluate(eval_config(image_folder, source, tmp_path / source.stem))
        digests |= {e.digest for e in result.evaluations.values() if e is not None}
    assert len(digests) == 1
    path = image_folder / "val" / "cat" / "001.png"
    both = [Predictor(source, amp="fp32") for source in (weights, onnx)]
    ours, theirs = (predictor.predict([path])[0] for predictor in both)
    assert ours.classes == theirs.classes
    assert max(map(abs, map(float.__sub__, ours.probabilities, theirs.probabilities))) < 1e-4
    normalised = torch.randn(2, 3, 16, 16)
    if uint8_input:  # it would take them for grey levels
        with pytest.raises(InputError, match=r"must be a tensor of \(N, 16, 16, 3\) uint8, got"):
            both[1].logits(normalised)
    else:
        ours, theirs = (torch.from_numpy(predictor.logits(normalised)) for predictor in both)
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_an_onnx_file_without_class_names_is_evaluated_on_named_classes(
    weights: Path, image_folder: Path, tmp_path: Path
) -> None:
    given = read_weights(weights)
    assert given.info is not None
    nameless = tmp_path / "nameless.safetensors"
    save_weights(nameless, given.state_dict, replace(given.info, class_names=()), {})
    export(config(nameless, image_folder, tmp_path / "m.onnx"))
    results = [
        evaluate(eval_config(image_folder, source, tmp_path / source.stem))
        for source in (weights, tmp_path / "m.onnx")
    ]
    digests = {e.digest for r in results for e in r.evaluations.values() if e is not None}
    assert len(digests) == 1


def test_the_certificate_measures_the_calibrated_probabilities_of_labels_as_eval_does(
    tmp_path: Path,
) -> None:
    table = write_label_table(tmp_path / "data", 16)
    names = ("red", "green")
    state = build("densenet40", num_classes=2).state_dict()
    halved = {n: t / 2 if n.startswith("classifier.") else t for n, t in state.items()}
    known: dict[str, Any] = {"task": "multilabel", "class_names": names}
    learnt = Calibration((2.0, 2.0), (), "", {})
    losses = []
    for name, tensors, calibration in (("a", state, learnt), ("b", halved, None)):
        path = tmp_path / f"{name}.safetensors"
        write_weights(path, state=tensors, calibration=calibration, **known)
        found = export(config(path, table, tmp_path / f"{name}.onnx", missing="ignore"))
        assert found["metrics_after"]["loss"] == pytest.approx(found["metrics_before"]["loss"])
        losses.append(found["metrics_before"]["loss"])
    assert losses[0] == pytest.approx(losses[1])


def test_classes_called_by_numbers_are_matched_by_their_names(tmp_path: Path) -> None:
    names = tuple(str(number) for number in range(11))  # as folders 10 comes before 2
    write_classes(tmp_path / "data", list(names), 2)
    weights = write_weights(tmp_path / "w.safetensors", class_names=names)
    export(config(weights, tmp_path / "data", tmp_path / "m.onnx"))
    for source in (weights, tmp_path / "m.onnx"):
        folder = tmp_path / source.stem
        evaluate(eval_config(tmp_path / "data", source, folder))
        with (folder / "predictions.csv").open() as lines:
            rows = list(csv.DictReader(lines))
        (answer,) = Predictor(weights, amp="fp32")([tmp_path / "data" / rows[-1]["path"]])
        assert rows[-1]["predicted"] == answer.classes[0]
        assert [row["label"] for row in rows] == [row["path"].split("/")[0] for row in rows]


@pytest.mark.slow
def test_torch_export_takes_any_batch(weights: Path, image_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.pt2"
    assert export(config(weights, image_folder, output, format="torch"))["top1_agreement"] == 1
    program = torch.export.load(output).module()
    assert [program(torch.zeros(n, 3, 16, 16)).shape for n in (1, 5)] == [(1, 3), (5, 3)]


def test_int8_runs_in_onnx_runtime_and_is_smaller(
    weights: Path, image_folder: Path, tmp_path: Path
) -> None:
    found = export(config(weights, image_folder, tmp_path / "i.onnx", int8=1, min_agreement=0.5))
    assert found["bytes"] < 0.6 * weights.stat().st_size  # the same numbers in float32
    assert 0 < found["largest_logit_difference"] < found["largest_logit"]


@pytest.mark.parametrize("name", ["m.safetensors", "m.onnx"])
def test_beyond_tolerance_nothing_is_written(
    name: str, weights: Path, image_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="`tolerance`"):
        flags = {"int8": 1, "tolerance": 1e-9, "min_agreement": 0}
        kind = "native" if name == "m.safetensors" else "onnx"
        export(config(weights, image_folder, tmp_path / name, format=kind, **flags))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(
    package: str,
    weights: Path,
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as Python marks what cannot be imported
    with pytest.raises(InputError, match=rf"{package} .*; pip install 'densenet121\[export\]'"):
        export(config(weights, image_folder, tmp_path / "m.onnx"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no network")
    with pytest.raises(InputError, match="ONNX Runtime cannot load it"):
        Predictor(tmp_path / "m.onnx")


@pytest.mark.parametrize("flags", [{}, {"int8": 1}, {"format": "native", "int8": 1}], ids=str)
def test_a_full_temporary_folder_is_named_with_what_to_do(
    flags: dict[str, object], weights: Path, image_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / ("m.safetensors" if "format" in flags else "m.onnx")
    said = rf"^{re.escape(tempfile.gettempdir())}: File too large; .* in the .* TMPDIR$"
    with no_file_beyond(10_000), pytest.raises(InputError, match=said):
        export(config(weights, image_folder, output, **flags))
    assert not output.exists()
