"""Class-activation maps of the worst errors, for the report."""

import cv2
import numpy as np
import torch
from torch import nn

from densenet121.datasets.preprocessing import Preprocessing
from densenet121.engine.evaluation import Evaluation
from densenet121.inference.cam import evidence_maps, overlay
from densenet121.network import DenseNet
from densenet121.utils.modes import evaluation_mode

_MAX_ERRORS = 24  # as many as the report shows
_SIDE = 128  # longer side of a map in pixels, as for the report's thumbnails


def draw_error_maps(
    evaluation: Evaluation, model: nn.Module, preprocessing: Preprocessing, device: torch.device
) -> dict[str, bytes]:
    """Image path to JPEG, for each of the worst errors.

    A map explains the network's answer. Exported networks have none.

    Args:
        evaluation: the evaluation of this model with its current weights.
        model: switched to evaluation mode, and back afterwards.
        preprocessing: the preprocessing of the evaluation.
        device: the device of the model.

    Raises:
        InputError: an image can no longer be read.
    """
    if not isinstance(model, DenseNet) or not len(evaluation.scored):
        return {}
    dataset, paths = evaluation.dataset, evaluation.paths
    errors = evaluation.task.worst_errors(evaluation.scores, evaluation.targets)
    worst = sorted(errors, key=lambda error: (-error.badness, paths[error.position]))[:_MAX_ERRORS]
    if not worst:
        return {}
    read = preprocessing.reader(dataset)
    pixels = np.empty((len(worst), *preprocessing.pixels_size, 3), dtype=np.uint8)
    for error, out in zip(worst, pixels, strict=True):
        read(int(evaluation.scored[error.position]), out)
    images = preprocessing.central(torch.from_numpy(pixels))
    inputs = preprocessing.normalise(images.to(device))
    outputs = torch.tensor([error.output for error in worst])
    with evaluation_mode(model):
        heat = evidence_maps(model, inputs, outputs).numpy()
    return {
        paths[error.position]: _jpeg(overlay(image.numpy(), one, _SIDE))
        for error, image, one in zip(worst, images, heat, strict=True)
    }


def _jpeg(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    scale = _SIDE / max(pixels.shape[:2])
    if scale < 1:
        small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        pixels = np.asarray(small, dtype=np.uint8)
    _, jpeg = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    return jpeg.tobytes()
