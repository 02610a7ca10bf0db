"""The server by NVIDIA's own client of the Open Inference Protocol.

``make test-frameworks`` installs it into an environment of its own; elsewhere this skips.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from densenet121.bench.serve import running_server
from densenet121.inference.predictor import Predictor

from helpers.commands import REPOSITORY, environment
from helpers.images import write_classes
from helpers.serving import FLAGS
from helpers.weights import NAMES, write_weights

pytestmark = pytest.mark.frameworks

HOMES = Path(os.environ.get("FRAMEWORKS", REPOSITORY / ".frameworks"))
SCRIPT = REPOSITORY / "tests" / "system" / "frameworks" / "triton_side.py"


def test_tritonclient_gets_our_logits_for_images_and_tensors(tmp_path: Path) -> None:
    python = HOMES / "triton" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is not there: make test-frameworks installs it")
    weights = write_weights(tmp_path / "w.safetensors")
    files = sorted(write_classes(tmp_path / "images", list(NAMES), 1).rglob("*.png"))
    predictor = Predictor(weights, amp="fp32")
    pixels = torch.from_numpy(np.stack([predictor.prepare(file) for file in files]))
    expected = predictor.logits(pixels)
    np.save(
        tmp_path / "pixels.npy",
        predictor.classifier.preprocessing.normalise(pixels).contiguous().numpy(),
    )
    with running_server(weights, *FLAGS, environment=environment()) as (port, _):
        done = subprocess.run(
            [python, SCRIPT, str(port), "densenet40", tmp_path / "pixels.npy", tmp_path / "told",
             *files],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads((tmp_path / "told.json").read_text())
    found = np.load(tmp_path / "told.npz")
    assert told["live"] and told["ready"] and told["model_ready"] and not told["other_ready"]
    assert told["server"]["name"] == "densenet121"
    assert told["model"]["parameters"]["class_names"] == list(NAMES)
    assert told["id"] == "seven"
    for name in ("images", "pixels_True", "pixels_False"):
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-3, err_msg=name)
    for one in found["together"]:
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-3)
    for answer, one in zip(told["answers"], predictor(files), strict=True):
        assert answer["predicted"] == one.classes[0]
        assert len(answer["top"]) == 2
    np.testing.assert_allclose(found["images_probabilities"].sum(axis=1), 1, rtol=1e-5)
    reasons = ["not an image of a known format", "there is no version 2", "classification", "gzip"]
    statuses = ["415", "404", "400", "415"]
    for (status, reason), part, wanted in zip(told["refused"], reasons, statuses, strict=True):
        assert part in reason
        assert status == wanted
