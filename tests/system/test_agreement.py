"""predict, eval, the exported file and the server say the same of real photographs."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from densenet121.bench.serve import running_server
from densenet121.checkpoint.convert import convert
from densenet121.checkpoint.native import ModelInfo, save_weights
from densenet121.commands.export import export
from densenet121.config import EvalConfig, ExportConfig
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.transforms import MEAN, STD
from densenet121.engine.evaluate import evaluate
from densenet121.inference.predictor import Predictor
from densenet121.native.network import Kernels, kernels
from densenet121.network import build

from helpers.commands import SHARED, environment
from helpers.serving import ask

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
CHECKPOINT = SHARED / "weights" / "densenet-bc-100-12-cifar10.pth"
IMAGES = SHARED / "data" / "cifar10" / "test"
BATCH = 16


@pytest.mark.slow
@pytest.mark.skipif(not CHECKPOINT.exists() or not IMAGES.exists(), reason="no ../shared here")
def test_predict_eval_onnx_and_server_agree_on_photographs(tmp_path: Path) -> None:
    """With a third party's weights of 94 % on CIFAR-10, 6 images of each class."""
    for folder in sorted(IMAGES.iterdir()):
        for path in sorted(folder.iterdir())[:6]:
            target = tmp_path / "photos" / folder.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    weights, onnx = tmp_path / "w.safetensors", tmp_path / "m.onnx"
    convert(CHECKPOINT, weights, "native", net="densenet100", variant=None)
    given = ExportConfig(
        pretrained=str(weights),
        data_dir=str(tmp_path / "photos"),
        output=str(onnx),
        pictures=30,
    )
    certificate = export(given)
    evaluation = next(
        iter(
            evaluate(
                EvalConfig(
                    data_dir=str(tmp_path / "photos"), pretrained=str(weights), amp="fp32",
                    per_batch_size=BATCH, workers=1, output_dir=str(tmp_path / "e"),
                )
            ).evaluations.values()
        )
    )  # fmt: skip
    assert evaluation is not None
    columns = evaluation.scores.columns
    assert (columns["predicted"] == evaluation.dataset.labels).mean() > 0.85
    files = [tmp_path / "photos" / path for path in evaluation.dataset.paths]
    names = Predictor(weights).classifier.class_names
    expected = [names[number] for number in columns["predicted"]]

    predictor = Predictor(weights, amp="fp32", batch_size=BATCH)
    predicted = predictor.predict(files)
    assert [one.classes[0] for one in predicted] == expected
    assert [np.float32(one.probabilities[0]) for one in predicted] == list(columns["probability"])

    exported = Predictor(onnx, amp="fp32", batch_size=BATCH).predict(files)
    assert [one.classes[0] for one in exported] == expected
    # A probability moves by at most half of what the difference of two logits does.
    bound = float(certificate["largest_logit_difference"]) * 2 + 1e-6
    gaps = [
        abs(ours.probabilities[0] - theirs.probabilities[0])
        for ours, theirs in zip(predicted, exported, strict=True)
    ]
    assert max(gaps) <= bound

    with running_server(weights, "--amp", "fp32", environment=environment()) as (port, _):
        alone = [ask(port, file.read_bytes())[1]["predictions"][0] for file in files]
        with ThreadPoolExecutor(16) as clients:
            crowd = list(
                clients.map(lambda f: ask(port, f.read_bytes())[1]["predictions"][0], files)
            )
    lonely = Predictor(weights, amp="fp32", batch_size=1).predict(files)
    for one, many, said, own in zip(alone, crowd, predicted, lonely, strict=True):
        assert one["predicted"] == many["predicted"] == said.classes[0]
        assert [top["probability"] for top in one["top"]] == list(own.probabilities)
        gap = abs(many["top"][0]["probability"] - said.probabilities[0])
        assert gap == 0 if isinstance(kernels(), Kernels) else gap < 1e-5


@pytest.mark.skipif(isinstance(kernels(), str), reason="no kernels on this machine")
@pytest.mark.parametrize("amp", ["fp32", "bf16"])
def test_an_answer_does_not_depend_on_its_batch(amp: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = build("densenet121", num_classes=10)
    preprocessing = Preprocessing((64, 64), "64,64", tuple(MEAN.tolist()), tuple(STD.tolist()))
    info = ModelInfo("densenet121", "paper", tuple("abcdefghij"), preprocessing)
    save_weights(tmp_path / "w.safetensors", model.state_dict(), info, {})
    predictor = Predictor(tmp_path / "w.safetensors", amp=amp)
    if amp == "bf16" and not predictor_supports_bf16():
        pytest.skip("the kernels of this machine have no bf16")
    images = torch.randint(0, 256, (12, 64, 64, 3), dtype=torch.uint8)
    whole = predictor.logits(images)
    assert np.ptp(whole) > 0
    for size in range(1, 12):
        parts = [predictor.logits(images[i : i + size]) for i in range(0, 12, size)]
        assert np.array_equal(np.concatenate(parts), whole), size


def predictor_supports_bf16() -> bool:
    found = kernels()
    return not isinstance(found, str) and found.supports(torch.bfloat16)
