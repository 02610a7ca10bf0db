"""Class-activation maps of predicted images, as PNG files."""

import os
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from densenet121.inference.cam import evidence_maps, overlay
from densenet121.inference.predictor import Predictor
from densenet121.network import DenseNet
from densenet121.tasks.given import rows_of
from densenet121.utils.errors import InputError
from densenet121.utils.files import write_atomic

# Of the name of its image in that of a map. A file's name has 255 bytes, also while it is written.
_NAME_BYTES = 200
NO_MAPS = "class-activation maps need weights in floating point, not int8 or an exported network"


def check_maps(predictor: Predictor, layer: str | None) -> None:
    """Refuse maps that cannot be drawn, before an image is read.

    Raises:
        InputError: there is no such layer, or the network is int8 or an exported one.
    """
    blank = torch.zeros((1, *predictor.pixels_size, 3), dtype=torch.uint8)
    maps_of(predictor, blank, np.zeros((1, predictor.num_outputs), np.float32), layer)


def maps_of(
    predictor: Predictor, images: torch.Tensor, logits: NDArray[np.float32], layer: str | None
) -> list[bytes]:
    """A PNG for each prepared image, its central crop overlaid with the map of its answer.

    Raises:
        InputError: there is no such layer, or the network is int8 or an exported one (ONNX).
    """
    classifier = predictor.classifier
    if not isinstance(classifier.model, DenseNet):
        raise InputError(NO_MAPS)
    explained = classifier.task.explained_output(logits, classifier.calibration)
    explained = rows_of(classifier.task, "explained_output", explained, len(logits))
    outputs = torch.from_numpy(explained)
    images = classifier.preprocessing.central(images)
    inputs = classifier.preprocessing.normalise(images.to(predictor.device))
    heat = evidence_maps(classifier.model, inputs, outputs, layer)
    return [
        _png(overlay(pixels.numpy(), one.numpy()))
        for pixels, one in zip(images.cpu(), heat, strict=True)
    ]


def write_map(folder: Path, number: int, name: str, png: bytes) -> None:
    """Write one map; ``number`` distinguishes images of the same name.

    Raises:
        OSError: disk full or no permission.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = Path(name).stem if name != "-" else "stdin"
    shown = stem[:80]
    while len(os.fsencode(shown)) > _NAME_BYTES:
        shown = shown[:-1]
    write_atomic(folder / f"{number:06d}_{shown}.png", png)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    _, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return data.tobytes()
