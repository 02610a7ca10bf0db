"""Logits here equal those of the real MONAI, torchxrayvision and torchvision under CheXNet.

``make test-frameworks`` installs them into an environment of their own; elsewhere it skips.
"""

import os
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from densenet121.checkpoint.convert import Target, convert
from densenet121.checkpoint.foreign.medical import CHEXNET_LABELS, XRAY_LABELS
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.pretrained import load_pretrained
from densenet121.tasks import MultiLabel
from densenet121.utils.errors import InputError

from helpers.commands import REPOSITORY

pytestmark = pytest.mark.frameworks

HOMES = Path(os.environ.get("FRAMEWORKS", REPOSITORY / ".frameworks"))
PYTHON = HOMES / "medical" / "bin" / "python"
SIDE = REPOSITORY / "tests" / "system" / "frameworks" / "medical_side.py"
TOLERANCE = 1e-5  # of the spread of a batch's logits
LIBRARIES = ["DenseNet121", "DenseNet169", "DenseNet201", "DenseNet264", "torchxrayvision"]


def their_side(*arguments: object, cwd: Path | None = None) -> None:
    if not PYTHON.exists():
        pytest.skip(f"{PYTHON} is not there: make test-frameworks installs it")
    done = subprocess.run(
        [PYTHON, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    levels = np.random.default_rng(1).integers(0, 256, (2, 224, 224), dtype=np.uint8)
    np.save(tmp_path / "grey.npy", levels)
    return tmp_path


def ours(file: Path, folder: Path) -> NDArray[np.float32]:
    loaded = load_pretrained(file)
    assert loaded.info is not None
    images = torch.from_numpy(np.repeat(np.load(folder / "grey.npy")[..., None], 3, axis=3))
    with torch.inference_mode():
        logits = loaded.model(loaded.info.preprocessing.normalise(images))
    found: NDArray[np.float32] = logits.numpy()
    return found


def check(found: NDArray[np.float32], wanted: NDArray[np.float32], what: str) -> None:
    difference = float(np.abs(found - wanted).max() / np.ptp(wanted))
    print(f"{what}: {difference:.1e} of the spread")
    assert found.shape == wanted.shape
    assert difference < TOLERANCE


def both_ways(library: str) -> list[int]:
    return [1, 3] if library == "DenseNet121" else [1]


@pytest.mark.parametrize(
    ("library", "channels"), [(name, c) for name in LIBRARIES for c in both_ways(name)]
)
def test_their_weights_give_their_logits_here_and_go_back(
    library: str, channels: int, folder: Path
) -> None:
    their_side(SIDE, "make", library, channels, folder)
    xray = library == "torchxrayvision"
    logits = np.load(folder / "logits.npy")[:, : 14 if xray else None]
    found = ours(folder / "weights.pth", folder)
    check(found, logits, f"{library}, {channels} channels -> here")

    convert(folder / "weights.pth", folder / "ours.safetensors", "native")
    to: Target = "torchxrayvision" if xray else "monai"
    convert(folder / "ours.safetensors", folder / "theirs.pth", to, channels=channels)
    their_side(SIDE, "load", library, channels, folder)
    check(found, np.load(folder / "logits.npy"), f"here -> {library}, {channels} channels")


def test_decisions_and_labels_are_torchxrayvisions(folder: Path) -> None:
    their_side(SIDE, "make", "torchxrayvision", 1, folder)
    weights = read_weights(folder / "weights.pth")
    assert weights.info is not None
    assert weights.info.class_names == XRAY_LABELS[:14]
    calibration = MultiLabel().read_calibration(weights.calibration or {})
    logits = ours(folder / "weights.pth", folder)
    answers = MultiLabel().answers(logits, XRAY_LABELS[:14], calibration)
    for answer, shown in zip(answers, np.load(folder / "shown.npy"), strict=True):
        positive = [XRAY_LABELS[k] for k in range(14) if shown[k] >= 0.5]
        assert list(answer.positive or ()) == positive


def test_the_labels_are_those_of_the_library(folder: Path) -> None:
    check = "import sys; from torchxrayvision.datasets import default_pathologies as p; "
    their_side("-c", check + "assert p == sys.argv[1:], p", *XRAY_LABELS)


def test_the_scale_is_that_of_the_library(folder: Path) -> None:
    code = (
        "import sys, numpy as np; from torchxrayvision.utils import normalize; "
        "np.save(sys.argv[1], normalize(np.arange(256, dtype=np.uint8), 255))"
    )
    their_side("-c", code, folder / "scale.npy")
    their_side(SIDE, "make", "torchxrayvision", 1, folder)
    info = read_weights(folder / "weights.pth").info
    assert info is not None
    levels = torch.arange(256, dtype=torch.uint8).repeat(3, 1, 1).permute(1, 2, 0)[None]
    found = info.preprocessing.normalise(levels)[0, 0].flatten().numpy()
    np.testing.assert_allclose(found, np.load(folder / "scale.npy"), rtol=0, atol=2e-4)


def test_chexnets_weights_give_its_probabilities_here(folder: Path) -> None:
    their_side(SIDE, "make", "chexnet", 3, folder)
    shares = MultiLabel().probabilities(ours(folder / "weights.pth", folder))
    wanted = np.load(folder / "logits.npy")  # its network ends with the sigmoid
    check(shares.astype(np.float32), wanted, "CheXNet -> here, probabilities")
    info = read_weights(folder / "weights.pth").info
    assert info is not None
    assert info.class_names == CHEXNET_LABELS


@pytest.mark.parametrize("library", ["DenseNet121", "torchxrayvision"])
def test_the_conversion_of_a_whole_network_runs_where_the_library_is(
    library: str, folder: Path
) -> None:
    their_side(SIDE, "make", library, 1, folder)
    with pytest.raises(InputError, match="refused, because reading it would run code") as told:
        read_weights(folder / "whole.pt")
    words = shlex.split(str(told.value).partition(" is installed: ")[2])
    assert words[0] == "python"
    their_side(*words[1:])
    logits = ours(folder / "whole-state.pth", folder)
    assert np.array_equal(logits, ours(folder / "weights.pth", folder))
