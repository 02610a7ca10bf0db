"""What training would see of a dataset, and the same images as class folders."""

import threading
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.loader import load_batches
from densenet121.datasets.preparation import training_images
from densenet121.datasets.sampler import epoch_order, training_batches
from densenet121.datasets.transforms import TrainTransform


def decoding_threads() -> list[str]:
    """The names of those that run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


def epoch_bytes(dataset: ImageDataset, workers: int) -> torch.Tensor:
    """The images of an epoch, as training would get them."""
    batches = training_batches(epoch_order(len(dataset), 1, 3), 10)
    prepare = training_images(dataset, TrainTransform(32, 40), 1, 3)
    loaded = load_batches(prepare, batches, (32, 40), workers=workers)
    return torch.cat([batch.images for batch in loaded])


def png_list(where: Path, images: NDArray[np.uint8], labels: Sequence[int]) -> Path:
    """A list of PNG files of these images, in their order."""
    lines = []
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        cv2.imwrite(str(where / f"{index:03d}.png"), image[..., ::-1] if image.ndim == 3 else image)
        lines.append(f"{index:03d}.png {label}\n")
    (where / "list.txt").write_text("".join(lines))
    return where / "list.txt"
