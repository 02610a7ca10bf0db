"""The smallest training run."""

from pathlib import Path
from typing import Any

from densenet121.config import TrainConfig


def train_config(image_folder: Path, folder: Path, **flags: Any) -> TrainConfig:
    """densenet40 on 32 x 32, the smallest run of the real thing: 3 steps an epoch, 2 epochs."""
    given: dict[str, Any] = {
        "data_dir": str(image_folder),
        "output_dir": str(folder),
        "net": "densenet40",
        "image_size": 16,
        "per_batch_size": 15,
        "max_epoch": 2,
        "lr": 0.05,
        "workers": 1,
        "log_interval": 2,
    }
    return TrainConfig(**(given | flags))
