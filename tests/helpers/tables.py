"""Tables of small images with labels and patients."""

import csv
from pathlib import Path

import cv2
import numpy as np

from helpers.images import draw

COLOURS = ("red", "green", "blue")


def write_class_table(folder: Path, patients: int, each: int = 2, classes: int = 3) -> Path:
    """``list.csv`` with a path, a class and a patient; a patient's images are of one class."""
    folder.mkdir(parents=True)
    with (folder / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "patient"])
        for patient in range(patients):
            for number in range(each):
                label, path = patient % classes, f"{patient:02d}_{number}.png"
                cv2.imwrite(str(folder / path), draw(label, each * patient + number))
                rows.writerow([path, ("ant", "bee", "cat", "dog")[label], f"p{patient}"])
    return folder / "list.csv"


def write_label_table(folder: Path, count: int, seed: int = 1) -> Path:
    """``labels.csv`` of images whose channels are bright where they have the label.

    Some labels are unknown; three images in a row are of one patient.
    """
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", *COLOURS, "patient"])
        for i in range(count):
            truth = generator.integers(0, 2, 3)
            pixels = generator.integers(0, 90, (20, 20, 3), dtype=np.uint8)
            pixels += (truth[::-1] * 140).astype(np.uint8)  # OpenCV writes BGR
            cv2.imwrite(str(folder / f"{i}.png"), pixels)
            cells = ["" if generator.random() < 0.1 else int(y) for y in truth]
            rows.writerow([f"{i}.png", *cells, i // 3])
    return folder / "labels.csv"
