"""What a caller sets in torch does not change what this package computes."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densenet121 import (
    DenseNetClassifier,
    EvalConfig,
    Predictor,
    TrainConfig,
    evaluate,
    training_datasets,
)
from densenet121.utils.callers_modes import own_modes

from helpers.images import draw
from helpers.weights import write_weights

ARRAYS = np.stack([draw(label, index) for label in (0, 1) for index in range(4)])
CLASSES = np.repeat([3, 7], 4)


@contextlib.contextmanager
def float64_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default_device": lambda: torch.device("meta"),  # stands for an accelerator
    "default_dtype": float64_by_default,
}
in_each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


@in_each_mode
@pytest.mark.parametrize("amp", ["fp32", "bf16"])
def test_a_prediction_is_the_same_in_any_mode(mode: Any, amp: str, tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    before = Predictor(weights, amp=amp, device="cpu")
    expected = [answer.probabilities for answer in before.predict(list(ARRAYS))]
    with mode():
        inside = Predictor(weights, amp=amp, device="cpu")
        for predictor in (before, inside):
            found = [answer.probabilities for answer in predictor.predict(list(ARRAYS))]
            assert found == expected


@in_each_mode
def test_a_fit_has_the_same_weights_in_any_mode(mode: Any) -> None:
    settings = {"warmup_epochs": 0}
    size: dict[str, Any] = {"image_size": 16, "max_epoch": 1, "per_batch_size": 4, "workers": 0}

    def fitted() -> bytes:
        made = DenseNetClassifier(
            net="densenet40", amp="fp32", device="cpu", settings=settings, **size
        )
        content: bytes = made.fit(ARRAYS, CLASSES).weights_
        return content[-1000:]  # without the time in its header

    expected = fitted()
    with mode():
        assert fitted() == expected


@in_each_mode
def test_an_evaluation_is_the_same_in_any_mode(
    mode: Any, image_folder: Path, tmp_path: Path
) -> None:
    weights = write_weights(tmp_path / "w.safetensors")

    def metrics(name: str) -> object:
        config = EvalConfig(
            data_dir=str(image_folder), pretrained=str(weights), amp="fp32", device="cpu",
            log_path=str(tmp_path / name), workers=0,
        )  # fmt: skip
        return next(iter(evaluate(config).evaluations.values()))

    expected = metrics("a")
    with mode():
        assert repr(metrics("b")) == repr(expected)


@in_each_mode
def test_the_images_of_a_dataset_are_the_same_in_any_mode(mode: Any, image_folder: Path) -> None:
    config = TrainConfig(data_dir=str(image_folder), image_size=16)

    def first() -> torch.Tensor:
        images: torch.Tensor = training_datasets(config)[0][0][0]
        return images

    expected = first()
    with mode():
        assert torch.equal(first(), expected)


def test_it_leaves_the_modes_of_the_caller_as_they_are() -> None:
    with torch.inference_mode(), torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
        with own_modes():
            assert torch.is_grad_enabled()
            assert torch.get_default_device().type == "cpu"
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_inference_mode_enabled()
        assert torch.get_default_device().type == "meta"
        assert torch.is_autocast_enabled("cpu")
