"""Start-up time and memory for many images.

Usage: ``python benchmarks/index_scale.py FOLDER [ENTRIES ...]``

Makes class folders of so many tiny images below FOLDER (hard links, 1000 to a file), which it
leaves there; measures reading the folder, reading the kept index, and the memory of the process
after each of ten epochs over all entries, with one thread that reads and prepares every image.
"""

import sys
import time
from pathlib import Path

import cv2
import numpy as np

from densenet121.datasets.loader import load_batches
from densenet121.datasets.preparation import training_images
from densenet121.datasets.sampler import epoch_order, training_batches
from densenet121.datasets.sources.index_cache import scan_cached
from densenet121.datasets.transforms import TrainTransform

EPOCHS = 10
SIZE = (16, 16)


def main() -> None:
    """Measure each number of entries in turn."""
    parent = Path(sys.argv[1])
    for count in [int(n) for n in sys.argv[2:]] or [10_000, 100_000, 1_300_000]:
        root = parent / f"entries-{count}"
        if not root.exists():
            make(root, count)
        cache = parent / f"cache-{count}"
        start = time.perf_counter()
        scan_cached(root, "", cache)
        cold_seconds = time.perf_counter() - start
        start = time.perf_counter()
        images = scan_cached(root, "", cache)
        cached_seconds = time.perf_counter() - start
        print(f"{count} entries: {cold_seconds:.2f} s, cached {cached_seconds:.2f} s", flush=True)
        first = 0.0
        for epoch in range(EPOCHS):
            order = epoch_order(len(images), 1, epoch)
            prepare = training_images(images, TrainTransform(*SIZE), 1, epoch)
            start = time.perf_counter()
            halfway = 0.0
            batches = training_batches(order, 256)
            for number, _ in enumerate(load_batches(prepare, batches, SIZE, workers=1)):
                if number == len(batches) // 2:
                    halfway = resident_megabytes()
            first = first or halfway
            seconds = time.perf_counter() - start
            print(
                f"  epoch {epoch + 1}: {halfway:.1f} MB, {100 * (halfway / first - 1):+.2f} % "
                f"against the first, {len(images) / seconds:.0f} images/s",
                flush=True,
            )


def make(root: Path, count: int) -> None:
    """1000 classes (fewer of few entries) of tiny images."""
    classes = min(1000, count // 10)
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for label in range(classes):
        folder = root / f"n{label:08d}"
        folder.mkdir(parents=True)
        file = folder / "image_000000.jpg"
        cv2.imwrite(str(file), image)
        for number in range(1, (count - label + classes - 1) // classes):
            (folder / f"image_{number:06d}.jpg").hardlink_to(file)


def resident_megabytes() -> float:
    """What this process holds in memory, 10^6 bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    main()
