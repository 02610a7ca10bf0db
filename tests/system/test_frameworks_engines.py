"""Exported files in other engines: OpenVINO, ExecuTorch, LiteRT, Core ML, ncnn.

``make test-engines`` installs them into an environment of their own; elsewhere this skips. The half
that runs there is tests/system/frameworks/engines_side.py.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from densenet121.checkpoint.native import ModelInfo, save_weights
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.inference.predictor import Predictor
from densenet121.network import build
from densenet121.utils.var_init import initialise

from helpers.commands import REPOSITORY, run_command
from helpers.images import write_classes

pytestmark = pytest.mark.frameworks

HOMES = Path(os.environ.get("FRAMEWORKS", REPOSITORY / ".frameworks"))
NAMES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[np.float32]]:
    """A folder with model.onnx, int8.onnx, model.pt2 and images.npy; the logits of the images."""
    folder = tmp_path_factory.mktemp("exported")
    pictures = write_classes(folder / "pictures", list(NAMES), 8)
    weights = folder / "w.safetensors"
    images, expected = write_weights(weights, sorted(pictures.rglob("*.png")))
    np.save(folder / "images.npy", images)
    for output, flags in (
        ("model.onnx", ()),
        ("int8.onnx", ("--int8", "1", "--tolerance", "10", "--min_agreement", "0")),
        ("model.pt2", ("--format", "torch")),
    ):
        arguments = ("--data_dir", pictures, "--output", folder / output, "--pictures", 12, *flags)
        done = run_command("export", "--pretrained", weights, *arguments)
        assert done.returncode == 0, done.stderr
    return folder, expected


def write_weights(
    path: Path, pictures: list[Path]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Random weights whose batch norms have seen the pictures; some of these, and their logits."""
    model = build("densenet121", num_classes=3)
    initialise(model, torch.Generator().manual_seed(7))
    info = ModelInfo("densenet121", "paper", NAMES, Preprocessing((64, 64), "72,72"))
    save_weights(path, model.state_dict(), info, {})
    predictor = Predictor(path, amp="fp32")
    pixels = torch.from_numpy(np.stack([predictor.prepare(file) for file in pictures]))
    images = predictor.classifier.preprocessing.normalise(pixels)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(images)
        logits = model.eval()(images[::8])
    save_weights(path, model.state_dict(), info, {})
    return images[::8].contiguous().numpy(), logits.numpy()


def logits_of(engine: str, folder: Path) -> NDArray[np.float32] | None:
    python = HOMES / "engines" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is not there: make test-engines installs it")
    script = REPOSITORY / "tests" / "system" / "frameworks" / "engines_side.py"
    (folder / "logits.npy").unlink(missing_ok=True)
    done = subprocess.run(
        [python, script, engine, folder], capture_output=True, text=True, timeout=540, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = folder / "logits.npy"
    return np.load(found) if found.exists() else None


@pytest.mark.parametrize("engine", ["openvino", "executorch", "litert", "ncnn"])
def test_an_engine_gives_the_logits_of_the_network(
    engine: str, exported: tuple[Path, NDArray[np.float32]]
) -> None:
    folder, expected = exported
    found = logits_of(engine, folder)
    assert found is not None
    print(f"{engine}: {np.abs(found - expected).max():.1e} of {np.ptp(expected):.2f}")
    assert np.abs(found - expected).max() < 1e-4 * np.ptp(expected)


def test_openvino_computes_the_file_of_8_bits(
    exported: tuple[Path, NDArray[np.float32]],
) -> None:
    import onnxruntime

    folder, expected = exported
    session = onnxruntime.InferenceSession(folder / "int8.onnx")
    ours = session.run(None, {"images": np.load(folder / "images.npy")})[0]
    found = logits_of("openvino_int8", folder)
    assert found is not None
    error, theirs = (np.abs(one - expected).mean() for one in (ours, found))
    print(f"OpenVINO {theirs:.3f}, ONNX Runtime {error:.3f} from float32's, mean")
    assert theirs < 2 * error


def test_core_ml_converts_the_network(exported: tuple[Path, NDArray[np.float32]]) -> None:
    """Its inputs and outputs are checked in the other half; it runs on macOS alone."""
    folder, _ = exported
    assert logits_of("coreml", folder) is None
    weights = folder / "model.mlpackage" / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    assert weights.stat().st_size > 4 * 6.9e6  # float32
