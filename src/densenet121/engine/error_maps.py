"""Class-activation maps of the most confident errors, for the report."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from densenet121.datasets.preparation import evaluation_images
from densenet121.datasets.transforms import EvalTransform, normalise
from densenet121.engine.evaluation import Evaluation
from densenet121.inference.cam import class_activation_maps, overlay
from densenet121.network import DenseNet
from densenet121.utils.files import error_map, write_atomic

_MOST = 24  # as many as the report shows
_SIDE = 128  # pixels of a map's longer side, as the report's small images


def write_error_maps(
    folder: Path,
    evaluation: Evaluation,
    model: nn.Module,
    transform: EvalTransform,
    *,
    mean: Tensor,
    std: Tensor,
    device: torch.device,
) -> None:
    """Write a JPEG for each of the errors with the highest probability; older ones go.

    The map is of the class that was answered. Nothing is written for an exported network.

    Args:
        folder: of the run.
        evaluation: by this model, of its last weights.
        model: put into evaluation mode and back.
        transform: what the images went through.
        mean: ``(3,)`` of R, G, B, in grey levels.
        std: likewise.
        device: where the model is.

    Raises:
        InputError: an image can no longer be read.
    """
    maps = error_map(folder, "").parent
    shutil.rmtree(maps, ignore_errors=True)
    dataset = evaluation.folder
    labels = dataset.labels[evaluation.scored]
    wrong = np.flatnonzero(evaluation.predicted != labels)
    if not isinstance(model, DenseNet) or not len(wrong):
        return
    worst = sorted(
        wrong.tolist(),
        key=lambda at: (-evaluation.probability[at], dataset.paths[int(evaluation.scored[at])]),
    )[:_MOST]
    prepare = evaluation_images(dataset, transform)
    images = np.empty((len(worst), transform.height, transform.width, 3), dtype=np.uint8)
    for at, out in zip(worst, images, strict=True):
        prepare(int(evaluation.scored[at]), out)
    was_training = model.training
    model.eval()
    inputs = normalise(torch.from_numpy(images).to(device), mean, std)
    answered = torch.from_numpy(evaluation.predicted[worst])
    heat = class_activation_maps(model, inputs, answered).numpy()
    model.train(was_training)
    maps.mkdir()
    for at, pixels, one in zip(worst, images, heat, strict=True):
        over = overlay(pixels, one, _SIDE)
        scale = _SIDE / max(over.shape[:2])
        if scale < 1:
            small = cv2.resize(over, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            over = np.asarray(small, dtype=np.uint8)
        _, jpeg = cv2.imencode(".jpg", over[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
        path = dataset.paths[int(evaluation.scored[at])]
        write_atomic(error_map(folder, path), jpeg.tobytes())
