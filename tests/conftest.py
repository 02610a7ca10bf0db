"""What several tests need: small pictures on disk, the command line as a user has it."""

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"

Write = Callable[..., Path]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """The networks here are too small to share between threads."""
    torch.set_num_threads(1)


def draw(label: int, index: int, size: tuple[int, int] = (40, 48)) -> "np.ndarray[Any, Any]":
    """A picture of a class: noise around the class's own colour, never twice the same."""
    rng = np.random.default_rng([label, index])
    colour = np.random.default_rng(label).integers(40, 215, 3)
    noise = rng.integers(-30, 30, (*size, 3))
    pixels: np.ndarray[Any, Any] = np.clip(colour + noise, 0, 255).astype(np.uint8)
    return pixels


def write_classes(root: Path, names: list[str], count: int) -> Path:
    """Class folders with ``count`` PNG pictures each."""
    for label, name in enumerate(names):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            cv2.imwrite(str(folder / f"{index:03d}.png"), draw(label, index))
    return root


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train/`` with 3 classes of 15 pictures and ``val/`` with 7 of each; not to be changed."""
    root = tmp_path_factory.mktemp("pictures")
    write_classes(root / "train", ["ant", "bee", "cat"], 15)
    write_classes(root / "val", ["ant", "bee", "cat"], 7)
    return root


def environment(**more: str) -> dict[str, str]:
    """That of this process, for one that is started: one thread, warnings as they come."""
    source = {"PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **source, **more}


def run_command(
    *arguments: object, cwd: Path | None = None, timeout_seconds: float = 120
) -> "subprocess.CompletedProcess[str]":
    """Run ``python -m densenet121 ...`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "densenet121", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(),
        timeout=timeout_seconds,
        check=False,
    )


@contextlib.contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """A disk that is full after so many bytes of any file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
