"""What several tests need: one thread, no thread left behind, and a folder of small images."""

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from densenet121.native.network import INSTRUCTION_SETS, kernels

from helpers.images import write_classes

if os.environ.get("DENSENET121_TEST_EMULATED_AMX"):
    # `make test-amx`: that library has the tiles in plain C++ and needs none of the processor.
    INSTRUCTION_SETS["amx"] = INSTRUCTION_SETS["avx512_bf16"]
    assert not isinstance(kernels(), str), kernels()  # else all tests would be skipped


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """The networks here are too small to share between threads, but for `make test-threads`."""
    torch.set_num_threads(int(os.environ.get("DENSENET121_TEST_THREADS", "1")))


@pytest.fixture(autouse=True, scope="module")
def _no_thread_outlives_its_file() -> Iterator[None]:
    """What one file leaves running would disturb whichever file comes next."""
    before = set(threading.enumerate())
    yield
    if set(threading.enumerate()) - before:
        gc.collect()  # a generator that a kept exception holds ends its threads when collected
    left = [thread.name for thread in threading.enumerate() if thread not in before]
    assert not left, f"threads that are still running: {left}"


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train/`` with 3 classes of 15 images and ``val/`` with 7 of each; not to be changed."""
    root = tmp_path_factory.mktemp("pictures")
    write_classes(root / "train", ["ant", "bee", "cat"], 15)
    write_classes(root / "val", ["ant", "bee", "cat"], 7)
    return root


def pytest_collection_finish() -> None:
    """Modules and tests stay to the end: no later collection of garbage looks through them."""
    gc.collect()
    gc.freeze()
