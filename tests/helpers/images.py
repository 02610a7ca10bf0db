"""Small images on disk."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def draw(label: int, index: int, size: tuple[int, int] = (40, 48)) -> "np.ndarray[Any, Any]":
    """An image of a class: noise around the class's own colour, never twice the same."""
    rng = np.random.default_rng([label, index])
    colour = np.random.default_rng(label).integers(40, 215, 3)
    noise = rng.integers(-30, 30, (*size, 3))
    pixels: np.ndarray[Any, Any] = np.clip(colour + noise, 0, 255).astype(np.uint8)
    return pixels


def write_classes(root: Path, names: list[str], count: int) -> Path:
    """Class folders with ``count`` PNG images each."""
    for label, name in enumerate(names):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            cv2.imwrite(str(folder / f"{index:03d}.png"), draw(label, index))
    return root


def write_patient_list(folder: Path, views: Sequence[str] = ("PA",)) -> Path:
    """A list of the validation images with their class, two for each patient, views in turn."""
    with (folder / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "Patient ID", "view"])
        for number, path in enumerate(sorted((folder / "val").rglob("*.png"))):
            place = path.relative_to(folder).as_posix()
            view = views[number % len(views)]
            writer.writerow([place, path.parent.name, f"p{number // 2}", view])
    return folder / "list.csv"
