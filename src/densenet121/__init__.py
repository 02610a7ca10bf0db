"""Train, evaluate and ship DenseNet-121 image classifiers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from densenet121.version import __version__

if TYPE_CHECKING:
    from densenet121.checkpoint.pretrained import load_model
    from densenet121.config import EvalConfig, TrainConfig
    from densenet121.engine.evaluate import evaluate
    from densenet121.engine.train import train
    from densenet121.inference.predictor import Prediction, Predictor
    from densenet121.integrations.estimator import DenseNetClassifier
    from densenet121.integrations.torch_dataset import (
        EpochSampler,
        TorchDataset,
        evaluation_dataset,
        training_datasets,
    )
    from densenet121.network import DenseNet, constant_network, densenet121

# Loaded on first use (PEP 562), so that `densenet121 --help` does not import torch.
_HOME = {
    "DenseNet": "densenet121.network",
    "constant_network": "densenet121.network",
    "densenet121": "densenet121.network",
    "load_model": "densenet121.checkpoint.pretrained",
    "Prediction": "densenet121.inference.predictor",
    "Predictor": "densenet121.inference.predictor",
    "train": "densenet121.engine.train",
    "evaluate": "densenet121.engine.evaluate",
    "TrainConfig": "densenet121.config",
    "EvalConfig": "densenet121.config",
    "DenseNetClassifier": "densenet121.integrations.estimator",
    "EpochSampler": "densenet121.integrations.torch_dataset",
    "TorchDataset": "densenet121.integrations.torch_dataset",
    "evaluation_dataset": "densenet121.integrations.torch_dataset",
    "training_datasets": "densenet121.integrations.torch_dataset",
}

__all__ = [
    "DenseNet",
    "DenseNetClassifier",
    "EpochSampler",
    "EvalConfig",
    "Prediction",
    "Predictor",
    "TorchDataset",
    "TrainConfig",
    "__version__",
    "constant_network",
    "densenet121",
    "evaluate",
    "evaluation_dataset",
    "load_model",
    "train",
    "training_datasets",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
