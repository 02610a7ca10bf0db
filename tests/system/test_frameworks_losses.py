"""The focal loss and class weights here equal those of torchvision's and torch's own code.

``make test-frameworks`` runs this; tests/system/frameworks/loss_side.py is its other half.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densenet121.losses import focal_loss, smooth_cross_entropy

from helpers.commands import REPOSITORY

pytestmark = pytest.mark.frameworks

HOMES = Path(os.environ.get("FRAMEWORKS", REPOSITORY / ".frameworks"))
RNG = np.random.default_rng(1)
LOGITS, LABELS = 3 * RNG.normal(size=(500, 4)), RNG.integers(0, 4, 500)
WEIGHTS = np.array([0.2, 1.0, 1.3, 1.5])


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    python = HOMES / "torch" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is not there: make test-frameworks installs it")
    folder = tmp_path_factory.mktemp("losses")
    for name, values in (("logits", LOGITS), ("labels", LABELS), ("weights", WEIGHTS)):
        np.save(folder / f"{name}.npy", values)
    script = REPOSITORY / "tests" / "system" / "frameworks" / "loss_side.py"
    subprocess.run([python, script, folder], check=True, timeout=300)
    found: dict[str, Any] = json.loads((folder / "losses.json").read_text())
    return found


def test_the_focal_loss_of_two_classes_is_torchvisions(theirs: dict[str, Any]) -> None:
    logits, binary = torch.from_numpy(LOGITS[:, :2]), torch.from_numpy((LABELS > 0).astype(int))
    ours = [focal_loss(logits, binary, gamma).item() for gamma in (0.5, 1.0, 2.0, 5.0)]
    assert ours == pytest.approx(theirs["focal"], rel=1e-12)


def test_class_weights_are_those_of_torch(theirs: dict[str, Any]) -> None:
    loss = smooth_cross_entropy(
        torch.from_numpy(LOGITS), torch.from_numpy(LABELS), weights=torch.from_numpy(WEIGHTS)
    )
    assert loss.item() == pytest.approx(theirs["weighted"], rel=1e-12)
