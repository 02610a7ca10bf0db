"""Augmented images and mixed batches here equal those of torchvision's own code.

``make test-frameworks`` runs this; tests/system/frameworks/augmentation_side.py is its other half.
"""

import json
import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import PIL
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from densenet121.datasets.augmentation import NUM_UNIFORMS, Augmentation
from densenet121.datasets.geometry import Affine
from densenet121.datasets.policies import Policy, RandAugment, TrivialAugment
from densenet121.datasets.transforms import uniforms
from densenet121.losses import smooth_cross_entropy
from densenet121.losses.mixing import Mix, _side

from helpers.commands import REPOSITORY

pytestmark = pytest.mark.frameworks

HOMES = Path(os.environ.get("FRAMEWORKS", REPOSITORY / ".frameworks"))
FILL = (124, 116, 104)
SIZES = {"wide": (96, 128), "large": (224, 224), "small": (32, 32)}
DRAWS = np.stack([uniforms(1, 0, index, NUM_UNIFORMS) for index in range(300)])


def image(height: int, width: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(height).integers(
        0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8
    )
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth, dtype=np.uint8)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    python = HOMES / "torch" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is not there: make test-frameworks installs it")
    folder = tmp_path_factory.mktemp("torchvision")
    for name, size in SIZES.items():
        np.save(folder / f"image_{name}.npy", image(*size))
    np.save(folder / "draws.npy", DRAWS)
    rng = np.random.default_rng(1)
    np.save(folder / "batch.npy", rng.normal(size=(6, 3, 20, 30)).astype(np.float32))
    np.save(folder / "labels.npy", rng.integers(0, 7, 6))
    np.save(folder / "shares.npy", rng.random((50, 3)))
    script = REPOSITORY / "tests" / "system" / "frameworks" / "augmentation_side.py"
    done = subprocess.run(
        [python, script, folder], capture_output=True, text=True, timeout=540, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def allowed(theirs: Path) -> int:
    """Grey levels: none with the same Pillow, one with another."""
    versions = json.loads((theirs / "versions.json").read_text())
    print(versions, "here: Pillow", PIL.__version__)
    return 0 if versions["pillow"] == PIL.__version__ else 1


@pytest.mark.parametrize(
    ("name", "policy"),
    [("trivial1", TrivialAugment()), ("rand2", RandAugment(2, 9)), ("rand3", RandAugment(3, 20))],
)
def test_policies_are_torchvisions_image_by_image(theirs: Path, name: str, policy: Policy) -> None:
    found, most = np.load(theirs / "found.npz"), allowed(theirs)
    for size, sides in SIZES.items():
        for mode in ("bilinear", "nearest"):
            augmentation = Augmentation(policy, interpolation=mode, fill=FILL)
            for number, u in enumerate(DRAWS):
                ours = augmentation(image(*sides), u).astype(int)
                expected = found[f"{name}/{size}/{mode}/{number}"]
                assert np.abs(ours - expected).max() <= most, (size, mode, number)


def test_affine_transforms_are_torchvisions_image_by_image(theirs: Path) -> None:
    found, most = np.load(theirs / "found.npz"), allowed(theirs)
    augmentation = Augmentation(affine=Affine(25, 0.1, (0.8, 1.2), 10), fill=FILL)
    for size, sides in SIZES.items():
        for number, u in enumerate(DRAWS):
            ours = augmentation(image(*sides), u).astype(int)
            assert np.abs(ours - found[f"affine/{size}/{number}"]).max() <= most, (size, number)


def test_erased_boxes_are_torchvisions(theirs: Path) -> None:
    found = np.load(theirs / "found.npz")
    augmentation = Augmentation(erase_prob=1.0, erased=(0, 0, 0))
    for size, sides in SIZES.items():
        for number, u in enumerate(DRAWS):
            ours = augmentation(np.ones((*sides, 3), np.uint8), u)[..., 0] == 0
            np.testing.assert_array_equal(ours, found[f"erasing/{size}/{number}"])


def test_mixed_batches_and_their_losses_are_torchvisions(theirs: Path) -> None:
    found = np.load(theirs / "found.npz")
    batch = torch.from_numpy(np.load(theirs / "batch.npy"))
    labels = torch.from_numpy(np.load(theirs / "labels.npy"))
    logits = torch.randn(6, 7, generator=torch.Generator().manual_seed(1))
    for number, (share, down, right) in enumerate(np.load(theirs / "shares.npy").tolist()):
        half = 0.5 * (1 - share) ** 0.5
        box = (*_side(20, half, down), *_side(30, half, right))
        area = (box[1] - box[0]) * (box[3] - box[2])
        for name, mix in (("mixup", Mix(share)), ("cutmix", Mix(1 - area / 600, box))):
            expected = torch.from_numpy(found[f"{name}/{number}/images"])
            torch.testing.assert_close(mix.images(batch), expected, rtol=1e-6, atol=1e-6)
            targets = torch.from_numpy(found[f"{name}/{number}/targets"])
            loss = mix.loss(smooth_cross_entropy, logits, labels)
            torch.testing.assert_close(loss, F.cross_entropy(logits, targets))
