"""Our images and network in Lightning's Trainer.

``make test-lightning`` installs it into an environment of its own, whose packages a run here also
sees; elsewhere this skips.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from densenet121 import EpochSampler, TrainConfig, training_datasets
from densenet121.network import build

from helpers.commands import REPOSITORY, environment

pytestmark = pytest.mark.frameworks

HOMES = Path(os.environ.get("FRAMEWORKS", REPOSITORY / ".frameworks"))
# The other environment's packages come after all of this one; what Lightning's Trainer has asked
# the images for is printed as JSON.
COMMAND = """
import json, runpy, sys
sys.path.append(sys.argv.pop(1))
from densenet121.integrations.torch_dataset import TorchDataset
asked, give = [], TorchDataset.__getitem__
def note(dataset, index):
    asked.append(tuple(index) if isinstance(index, tuple) else index)
    return give(dataset, index)
TorchDataset.__getitem__ = note
metrics = runpy.run_path(sys.argv[1])["main"](sys.argv[2:])
print(json.dumps([asked, metrics]))
"""


def test_lightning_trains_our_network_on_the_images_of_each_epoch(
    image_folder: Path, tmp_path: Path
) -> None:
    python = HOMES / "lightning" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is not there: make test-lightning installs it")
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    script = REPOSITORY / "examples" / "train_lightning.py"
    small = ["--epochs", "3", "--image_size", "16", "--net", "densenet100", "--workers", "0"]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, packages, script, image_folder, *small],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    asked, metrics = json.loads(done.stdout.splitlines()[-1])
    assert metrics["train/loss"] > 0
    assert 0 <= metrics["val/top1"] <= 1
    training, _ = training_datasets(TrainConfig(data_dir=str(image_folder), image_size=16))
    sampler = EpochSampler(training)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        drawn = [tuple(index) for index in asked if isinstance(index, list) and index[0] == epoch]
        assert drawn == [tuple(draw) for draw in list(sampler)[:32]]  # two batches of 16
    weights = torch.load(tmp_path / "lightning.pth", weights_only=True)
    build("densenet100", num_classes=3).load_state_dict(weights)
    assert int(weights["features.norm5.num_batches_tracked"]) == 6
