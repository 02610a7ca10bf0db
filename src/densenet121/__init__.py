"""Train, evaluate and ship DenseNet-121 image classifiers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from densenet121.version import __version__

if TYPE_CHECKING:
    from densenet121.checkpoint.load import load_model
    from densenet121.config import EvalConfig, TrainConfig
    from densenet121.engine.evaluate import evaluate
    from densenet121.engine.train import train
    from densenet121.inference.predictor import Prediction, Predictor
    from densenet121.network import DenseNet, densenet121

# Loaded on first use (PEP 562), so that `densenet121 --help` does not import torch.
_HOME = {
    "DenseNet": "densenet121.network",
    "densenet121": "densenet121.network",
    "load_model": "densenet121.checkpoint.load",
    "Prediction": "densenet121.inference.predictor",
    "Predictor": "densenet121.inference.predictor",
    "train": "densenet121.engine.train",
    "evaluate": "densenet121.engine.evaluate",
    "TrainConfig": "densenet121.config",
    "EvalConfig": "densenet121.config",
}

__all__ = [
    "DenseNet",
    "EvalConfig",
    "Prediction",
    "Predictor",
    "TrainConfig",
    "__version__",
    "densenet121",
    "evaluate",
    "load_model",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
