"""Files that the real TensorFlow, MindSpore and Hugging Face datasets wrote, and their own reading.

``make test-frameworks`` installs them into environments of their own and runs this; elsewhere it
skips. tests/system/frameworks/data_side.py is the half that runs there.
"""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.sources.folder import scan
from densenet121.datasets.sources.mindrecord_file import numbers, read_head, read_rows
from densenet121.datasets.sources.open import open_training

from helpers.commands import REPOSITORY
from helpers.images import draw

pytestmark = pytest.mark.frameworks

HOMES = Path(os.environ.get("FRAMEWORKS", REPOSITORY / ".frameworks"))
# Where Debian's package dataset-fashion-mnist puts it.
FASHION = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for label, name in enumerate(("ant", "bee", "cat")):
        (root / name).mkdir()
        for index in range(9):
            cv2.imwrite(str(root / name / f"{index:03d}.jpg"), draw(label, index))
    return root


def written_by(action: str, home: str, folder: Path, output: Path) -> list[Any]:
    """What the other side printed, line by line."""
    python = HOMES / home / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is not there: make test-frameworks installs it")
    script = REPOSITORY / "tests" / "system" / "frameworks" / "data_side.py"
    done = subprocess.run(
        [python, script, action, folder, output],
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line[:1] in '["']


def read(dataset: ImageDataset) -> list[list[Any]]:
    """Path, label and SHA-256 of each image."""
    found = []
    for index, path in enumerate(dataset.paths):
        data = dataset.read(index)
        assert isinstance(data, bytes)
        label = int(dataset.labels[index])
        found.append([path, label, hashlib.sha256(data).hexdigest()])
    return found


def test_imagenets_features_as_tensorflow_writes_them(folder: Path, tmp_path: Path) -> None:
    (rows,) = written_by("tensorflow", "data", folder, tmp_path / "records")
    dataset, _ = open_training(tmp_path / "records")
    assert read(dataset) == rows
    assert dataset.fingerprint == scan(folder).fingerprint


def test_a_data_set_of_tensorflow_datasets(folder: Path, tmp_path: Path) -> None:
    where, rows = written_by("tfds", "data", folder, tmp_path / "sets")
    dataset, val = open_training(Path(where))
    assert (val, dataset.class_names) == (None, ("ant", "bee", "cat"))
    assert read(dataset) == rows
    # They are shuffled once, when they are written.
    assert sorted(read(dataset)) == sorted(read(scan(folder)))


def test_mindspores_files(folder: Path, tmp_path: Path) -> None:
    (rows,) = written_by("mindspore", "mindspore", folder, tmp_path / "records")
    (tmp_path / "records" / "classes.txt").write_text("ant\nbee\ncat\n")
    for where in (tmp_path / "records", tmp_path / "records" / "train.mindrecord1"):
        dataset, _ = open_training(where)
        assert read(dataset) == [row[:3] for row in rows]
        assert dataset.fingerprint == scan(folder).fingerprint
    arrays = []
    for number in range(2):
        file = tmp_path / "records" / f"train.mindrecord{number}"
        for row in read_rows(file, read_head(file)):
            start, size = row.blobs["findings"]
            arrays.append(numbers(file.read_bytes()[start : start + size], "int64"))
    assert arrays == [row[3] for row in rows]


def test_folders_that_datasets_saved(folder: Path, tmp_path: Path) -> None:
    (rows,) = written_by("datasets", "data", folder, tmp_path / "saved")
    train, val = open_training(tmp_path / "saved")
    assert val is not None and train.class_names == ("ant", "bee", "cat")
    same = scan(folder)
    assert [row[1:] for row in read(train)] == [row[1:] for row in read(same)]
    assert [row[1:] for row in read(val)] == [row[1:] for row in rows]


def test_fashion_mnist_of_debian() -> None:
    if not FASHION.is_dir():
        pytest.skip(f"{FASHION} is not there: apt install dataset-fashion-mnist")
    train, val = open_training(FASHION)
    assert val is not None
    assert (train.counts().tolist(), val.counts().tolist()) == ([6000] * 10, [1000] * 10)
    image = train.read(0)
    assert isinstance(image, np.ndarray) and image.shape == (28, 28, 3)
    assert train.labels[:4].tolist() == [9, 0, 0, 3]  # an ankle boot, two T-shirts, a dress
