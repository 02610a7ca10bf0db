"""What several tests need: one thread, and a folder of small images."""

import os
from pathlib import Path

import pytest
import torch

from helpers.images import write_classes


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """The networks here are too small to share between threads, but for `make test-threads`."""
    torch.set_num_threads(int(os.environ.get("DENSENET121_TEST_THREADS", "1")))


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train/`` with 3 classes of 15 images and ``val/`` with 7 of each; not to be changed."""
    root = tmp_path_factory.mktemp("pictures")
    write_classes(root / "train", ["ant", "bee", "cat"], 15)
    write_classes(root / "val", ["ant", "bee", "cat"], 7)
    return root
