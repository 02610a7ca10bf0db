"""A run that waits for its images says so, and what to do about it."""

import json
from pathlib import Path
from typing import Any

import cv2
import pytest
from safetensors.torch import load_file, save_file

from densenet121.datasets.sources.open import open_evaluation
from densenet121.engine.evaluate import evaluate
from densenet121.engine.features import compute_features
from densenet121.engine.loading import LoadingClock, advice
from densenet121.engine.train import train
from densenet121.inference.predictor import Predictor
from densenet121.native.images import image_kernel
from densenet121.network import DenseNet
from densenet121.utils.errors import InputError

from helpers.commands import run_command
from helpers.images import draw
from helpers.loading import decoding_threads
from helpers.training import train_config
from helpers.weights import eval_config, write_weights


def clock(read: float = 0.2, total: float = 1.0, images: int = 100) -> LoadingClock:
    made = LoadingClock()
    made.read_seconds, made.total_seconds, made.images, made.bytes = read, total, images, 110_000
    return made


def said(own: LoadingClock, share: float = 0.4, **changed: Any) -> str | None:
    settings: dict[str, Any] = {"workers": 4, "device_type": "cuda", "cores": 4, **changed}
    return advice(own, waited_share=share, **settings)


def test_a_run_that_hardly_waits_is_told_nothing() -> None:
    assert said(clock(), 0.09) is None
    assert said(LoadingClock(), 0.9) is None


@pytest.mark.parametrize(
    ("own", "changed", "expected"),
    [
        (clock(), {"workers": 2}, "Raise `workers` from 2 to 4"),
        (clock(), {"workers": 0, "device_type": "cpu"}, "Pass `workers` 4"),
        (clock(read=0.7), {}, "densenet121 pack makes shards"),
        (clock(), {"device_type": "cpu"}, "training share the cores"),
        (clock(), {}, "All 4 cores are decoding: store smaller images"),
    ],
)
def test_the_advice_fits_the_cause(
    own: LoadingClock, changed: dict[str, Any], expected: str
) -> None:
    if isinstance(image_kernel(), str) and "smaller" in expected:
        pytest.skip("without the image kernel that is what it says first")
    text = said(own, **changed)
    assert text is not None and expected in text
    assert text.startswith("data loading is the bottleneck: 40% of the epoch was spent waiting for")
    assert "A worker prepares 100 images/s of 1 kB each" in text


def test_a_run_with_large_images_and_no_workers_is_told_so(tmp_path: Path) -> None:
    for label, name in enumerate(("a", "b")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(4):
            file = tmp_path / "data" / name / f"{index}.png"
            cv2.imwrite(str(file), draw(label, index, (1500, 2000)))
    result = run_command(
        *("train", "--data_dir", tmp_path / "data", "--net", "densenet40", "--image_size", 16),
        *("--per_batch_size", 4, "--max_epoch", 1, "--workers", 0, "--log_interval", 1),
        *("--output_dir", tmp_path / "run"),
    )
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if "is the bottleneck" in line]
    assert len(lines) == 1 and ":WARNING:" in lines[0] and "Pass `workers`" in lines[0]
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert max(row["data_wait"] for row in rows if row["kind"] == "train") > 0.1


@pytest.mark.parametrize("work", ["train", "evaluate", "predict", "features"])
def test_an_exception_that_is_kept_keeps_no_thread(
    work: str, image_folder: Path, tmp_path: Path
) -> None:
    """A notebook keeps the last one, and with it whatever its frames hold."""
    weights, val = write_weights(tmp_path / "a.safetensors"), image_folder / "val"
    tensors = load_file(weights)
    tensors["features.conv0.weight"][:] = 3e38  # finite, but no product with it is
    save_file(tensors, tmp_path / "nan.safetensors")
    settings: dict[str, Any] = {"net": "densenet40", "image_size": (16, 16), "amp": "fp32"}
    predictor = Predictor(tmp_path / "nan.safetensors", **settings, batch_size=4)
    own, runtime = predictor.classifier, predictor.runtime
    with pytest.raises(InputError, match="nan or infinite") as kept:
        if work == "train":  # after the first step the weights are near 1e30
            train(train_config(image_folder, tmp_path / "run", lr=1e30, log_interval=1))
        elif work == "evaluate":
            given = {**settings, "image_size": 16, "per_batch_size": 4}
            evaluate(
                eval_config(image_folder, tmp_path / "nan.safetensors", tmp_path / "e", **given)
            )
        elif work == "predict":
            predictor.predict(sorted(val.rglob("*.png")))
        else:
            images = open_evaluation(val)
            assert isinstance(own.model, DenseNet)
            compute_features(own.model, images, own.preprocessing, runtime)
    assert not decoding_threads(), kept.traceback
