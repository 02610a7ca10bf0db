"""Loading beside the accelerator, for ``gpu.py measure``."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from densenet121.datasets.loader import load_batches
from densenet121.datasets.preparation import training_images
from densenet121.datasets.sampler import epoch_order
from densenet121.datasets.sources.open import open_training
from densenet121.datasets.transforms import TrainTransform
from densenet121.utils.cores import default_workers

from gpu_task import Rows, Task


def loading(task: Task) -> Rows:
    """Images a second from JPEG files: loaded alone by several threads, and with training.

    ``data_wait`` is the share of the time in which the device had nothing to do for want of images.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write_jpegs(root / "data", 16 if task.dry else 1536)
        every = default_workers()
        for workers in sorted({1, min(4, every), every}):
            yield {"workers": workers, "images_per_second": round(_alone(task, root, workers), 1)}
        for exact in (1, 0):
            yield {"workers": every, "exact": exact} | _with_training(task, root, exact)


def _write_jpegs(root: Path, count: int) -> None:
    """``train/`` and ``val/`` with photographs' size, and detail enough to take time to decode."""
    rng = np.random.default_rng(0)
    for split, images in (("train", count), ("val", 4)):
        for index in range(images):
            path = root / split / "ab"[index % 2] / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            small = rng.integers(0, 256, (47, 63, 3), dtype=np.uint8)
            pixels = cv2.resize(small, (500, 375), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(path), pixels)


def _alone(task: Task, root: Path, workers: int) -> float:
    dataset, _ = open_training(root / "data")
    size = (task.side, task.side)
    prepare = training_images(dataset, TrainTransform(*size), 1, 0)
    order = epoch_order(len(dataset), 1, 0)
    parts = [order[start : start + 64] for start in range(0, len(order), 64)]
    start = time.perf_counter()
    found = sum(len(batch.indices) for batch in load_batches(prepare, parts, size, workers=workers))
    return found / (time.perf_counter() - start)


def _with_training(task: Task, root: Path, exact: int) -> dict[str, float]:
    """Of the second epoch of a run by the command line."""
    run = root / f"exact {exact}"
    flags = ["--data_dir", root / "data", "--output_dir", run, "--net", task.net, "--max_epoch", 2]
    flags += ["--image_size", task.side, "--per_batch_size", 4 if task.dry else 64]
    flags += ["--lr", 0.001, "--device", task.device.type, "--exact", exact]
    line = [sys.executable, "-m", "densenet121", "train", *map(str, flags)]
    subprocess.run(line, check=True, capture_output=True, timeout=240)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "train"][-1]
    return {name: last[name] for name in ("images_per_second", "data_wait")}
