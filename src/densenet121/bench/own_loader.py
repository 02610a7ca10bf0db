"""Our own sides of ``bench data``: ``python -m densenet121.bench.own_loader JSON``.

The process answers each line of standard input with the seconds and the number of images of one
pass, and the share of its time spent waiting for images. The sides: ``ours`` and ``plain`` load and
normalise images; ``compute`` runs training steps on one batch; ``both`` loads images and trains.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densenet121.datasets.loader import load_batches
from densenet121.datasets.preparation import training_images
from densenet121.datasets.sampler import epoch_order
from densenet121.datasets.sources.open import open_training
from densenet121.datasets.transforms import MEAN, STD, TrainTransform, normalise
from densenet121.device import arithmetic
from densenet121.losses import smooth_cross_entropy
from densenet121.native.images import image_kernel
from densenet121.network import build
from densenet121.utils.memory import prepare_for_training


def main() -> None:
    """Serve one side."""
    spec = json.loads(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: spec["workers"]])
    torch.set_num_threads(spec["workers"] if spec["side"] in ("compute", "both") else 1)
    torch.manual_seed(0)
    prepare_for_training()
    found = image_kernel()
    note = found if isinstance(found, str) else f"image kernel for {found.build}"
    batches = _loader(spec)
    step = _trainer(spec) if spec["side"] in ("compute", "both") else None
    first = next(iter(batches(0)))
    print(json.dumps({"note": note}), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        waited, images = 0.0, 0
        given = [first] * spec["steps"] if spec["side"] == "compute" else batches(int(line))
        upcoming = iter(given)
        while True:
            before = time.perf_counter()
            batch = next(upcoming, None)
            waited += time.perf_counter() - before
            if batch is None:
                break
            pixels, labels = batch
            normalised = normalise(pixels, MEAN, STD)
            if step:
                step(normalised, labels)
            images += len(pixels)
        seconds = time.perf_counter() - start
        answer = {"seconds": seconds, "images": images, "waited": waited / seconds}
        print(json.dumps(answer), flush=True)


def _loader(spec: dict[str, Any]) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
    """A function from the number of an epoch to its batches, with all images once."""
    dataset, _ = open_training(Path(spec["data_dir"]))
    height, width = spec["size"]
    transform = TrainTransform(height, width)
    # One worker runs in the calling thread, as for the other sides.
    workers = spec["workers"] if spec["workers"] > 1 else 0

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = epoch_order(len(dataset), 1, epoch)
        if spec["side"] == "both":
            order = order[: spec["steps"] * spec["batch_size"]]
        parts = [
            order[i : i + spec["batch_size"]] for i in range(0, len(order), spec["batch_size"])
        ]
        prepare = training_images(dataset, transform, 1, epoch)
        for batch in load_batches(prepare, parts, (height, width), workers=workers):
            yield batch.images, torch.from_numpy(dataset.labels[batch.indices])

    return batches


def _trainer(spec: dict[str, Any]) -> Callable[[Tensor, Tensor], None]:
    dataset, _ = open_training(Path(spec["data_dir"]))
    model = build(spec["net"], num_classes=len(dataset.class_names), variant=spec["variant"])
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    precision = torch.bfloat16 if spec["amp"] == "bf16" else torch.float32

    def step(images: Tensor, labels: Tensor) -> None:
        # First, as engine/step.py: the forward needs the memory.
        optimizer.zero_grad(set_to_none=True)
        with arithmetic(images.device, precision):
            logits = model(images)
        loss = smooth_cross_entropy(logits, labels)
        torch.autograd.backward(loss)
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
