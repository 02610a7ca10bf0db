"""Images a second of loading with each preset of augmentation, interleaved in rounds.

Usage: ``python benchmarks/augmentations.py FOLDER [WORKERS [ROUNDS]]``. Each round loads the same
images (at most 512) once with each row, in a row of its own order; a row's figure is the median.
"""

import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from densenet121.config import AugmentationSettings
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.loader import load_batches
from densenet121.datasets.preparation import training_images
from densenet121.datasets.sampler import evaluation_batches
from densenet121.datasets.sources.open import open_training
from densenet121.datasets.transforms import MEAN
from densenet121.engine.augmentation import make_transform

ROWS: dict[str, dict[str, Any]] = {
    "original": {},
    "none": {"augment": "none"},
    "light": {"augment": "light"},
    "trivial": {"augment": "trivial"},
    "rand": {"augment": "rand"},
    "original + rotate 15": {"rotate": 15.0},
    "original + turns": {"turns": 1},
    "original + erasing": {"erase_prob": 1.0},
}
MOST = 512  # images of a pass


def main(folder: str, workers: str = "1", rounds: str = "5") -> None:
    """Print the table."""
    dataset, _ = open_training(Path(folder))
    dataset = first(dataset)
    seconds: dict[str, list[float]] = {name: [] for name in ROWS}
    for epoch in range(int(rounds) + 1):
        for name in random.Random(epoch).sample(list(ROWS), len(ROWS)):
            taken = one_pass(dataset, ROWS[name], epoch, int(workers))
            if epoch:  # the first round warms up
                seconds[name].append(taken)
    reference = statistics.median(seconds["original"])
    print(f"{len(dataset)} images, {workers} workers, {rounds} rounds, 224 x 224")
    for name, taken_each in seconds.items():
        rates = sorted(len(dataset) / taken for taken in taken_each)
        middle = statistics.median(taken_each)
        print(
            f"{name:<22} {len(dataset) / middle:7.1f} images/s "
            f"({rates[0]:.1f} to {rates[-1]:.1f}), {reference / middle:.2f} of original"
        )


def first(dataset: ImageDataset) -> ImageDataset:
    """At most ``MOST`` of the images, spread over the dataset."""
    kept = np.linspace(0, len(dataset) - 1, min(MOST, len(dataset))).round().astype(int)
    paths = {dataset.paths[int(index)] for index in kept}
    return dataset.without([path for path in dataset.paths if path not in paths])


def one_pass(dataset: ImageDataset, settings: dict[str, Any], epoch: int, workers: int) -> float:
    """Seconds to load every image once."""
    transform = make_transform(AugmentationSettings(**settings), 224, 224, MEAN.tolist())
    prepare = training_images(dataset, transform, 1, epoch)
    start = time.perf_counter()
    batches = evaluation_batches(len(dataset), 32)
    for _ in load_batches(prepare, batches, (224, 224), workers=workers if workers > 1 else 0):
        pass
    return time.perf_counter() - start


if __name__ == "__main__":
    main(*sys.argv[1:])
