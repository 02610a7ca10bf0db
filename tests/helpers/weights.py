"""Weights of a small network, and the settings of their evaluation."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densenet121.checkpoint.native import ModelInfo, save_weights
from densenet121.config import EvalConfig
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.transforms import MEAN, STD
from densenet121.inference.predictor import Predictor
from densenet121.network import build
from densenet121.tasks.multi_label.calibration import Calibration
from densenet121.tasks.single_label.calibration import Calibration as OfClasses
from densenet121.utils.var_init import initialise

NAMES = ("ant", "bee", "cat")


def write_weights(
    path: Path,
    seed: int = 0,
    calibration: Calibration | OfClasses | None = None,
    state: dict[str, Tensor] | None = None,
    **info: Any,
) -> Path:
    """Random weights of densenet40, or those of ``state``, with classes and preprocessing."""
    class_names = info.pop("class_names", NAMES)
    if state is None:
        model = build("densenet40", num_classes=len(class_names))
        initialise(model, torch.Generator().manual_seed(seed))
        state = model.state_dict()
    preprocessing = Preprocessing((16, 16), "20,20", tuple(MEAN.tolist()), tuple(STD.tolist()))
    known = ModelInfo("densenet40", "paper", class_names, preprocessing, **info)
    stored = calibration.to_json() if calibration else None
    save_weights(path, state, known, {}, stored)
    return path


def weights_with_statistics(path: Path, image_folder: Path) -> Path:
    """Random weights whose batch norms have seen the images, so that logits are of order 1."""
    torch.manual_seed(5)
    model = build("densenet40", num_classes=3)
    preprocessing = Preprocessing((16, 16), "20,20", tuple(MEAN.tolist()), tuple(STD.tolist()))
    info = ModelInfo("densenet40", "paper", NAMES, preprocessing)
    save_weights(path, model.state_dict(), info, {})
    paths = sorted((image_folder / "train").rglob("*.png"))
    ((batch, _),) = Predictor(path, batch_size=len(paths)).batches(paths)
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = None
    images = batch.images.permute(0, 3, 1, 2).float()
    with torch.no_grad():
        model.train()((images - MEAN[:, None, None]) / STD[:, None, None])
    save_weights(path, model.state_dict(), info, {})
    return path


def eval_config(data_dir: Path, weights: Path, folder: Path, **flags: Any) -> EvalConfig:
    given: dict[str, Any] = {"per_batch_size": 7, "workers": 1, "output_dir": str(folder)}
    given["amp"] = "fp32"  # on every CPU, also where bf16 is the default
    return EvalConfig(data_dir=str(data_dir), pretrained=str(weights), **(given | flags))
