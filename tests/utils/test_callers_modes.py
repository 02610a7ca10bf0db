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
from densenet121.datasets.policies import _levels
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.tasks import SingleLabel
from densenet121.utils.callers_modes import own_modes

from helpers.images import draw
from helpers.weights import write_weights

ARRAYS = np.stack([draw(label, index) for label in (0, 1) for index in range(4)])
CLASSES = np.repeat([3, 7], 4)


@contextlib.contextmanager
def by_default(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def float64_by_default() -> AbstractContextManager[None]:
    return by_default(torch.float64)


# As while another library builds a network of that type.
in_each_short_type = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


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
@pytest.mark.parametrize("amp", ["fp32", "bf16"])
def test_a_fit_has_the_same_weights_in_any_mode(mode: Any, amp: str) -> None:
    settings = {"warmup_epochs": 0}
    size: dict[str, Any] = {"image_size": 16, "max_epoch": 1, "per_batch_size": 4, "workers": 0}

    def fitted() -> bytes:
        made = DenseNetClassifier(
            net="densenet40", amp=amp, device="cpu", settings=settings, **size
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


@in_each_short_type
def test_images_are_normalised_in_float32_though_a_first_one_was_within_another_type(
    dtype: torch.dtype,
) -> None:
    # What was made of a mean is kept: no other test has this one.
    mean, std = (123.4567, 116.2834, 103.5 + (dtype == torch.float16) / 7), 57.1234
    preprocessing = Preprocessing((16, 16), "16,16", mean, (std, std, std))
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).repeat(1, 1, 1, 3)
    expected = ((pixels.double() - torch.tensor(mean, dtype=torch.float64)) / std).float()
    with by_default(dtype):
        inside = preprocessing.normalise(pixels)
    for found in (inside, preprocessing.normalise(pixels)):
        torch.testing.assert_close(found.permute(0, 2, 3, 1), expected, rtol=0, atol=1e-6)


@in_each_short_type
def test_weights_of_classes_are_float32_though_a_first_loss_was_within_another_type(
    dtype: torch.dtype,
) -> None:
    weights = (0.123457, 1.765433 + (dtype == torch.float16) / 7)
    logits = torch.tensor([[0.3, -0.7], [0.2, 0.9]], dtype=torch.float32)
    own = torch.tensor(weights, dtype=torch.float32)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1]), own)
    task = SingleLabel(class_weights=weights)
    with by_default(dtype):
        inside = task.loss(logits, torch.tensor([0, 1]))
    for found in (inside, task.loss(logits, torch.tensor([0, 1]))):
        assert float(found) == pytest.approx(float(expected), rel=1e-6)


@in_each_short_type
def test_magnitudes_of_augmentation_are_those_of_float32_in_any_type(dtype: torch.dtype) -> None:
    expected = torch.linspace(0.0, 0.99, 31, dtype=torch.float32).tolist()
    with by_default(dtype):
        assert _levels(0.0, 0.99) == tuple(expected)


def test_it_leaves_the_modes_of_the_caller_as_they_are() -> None:
    with torch.inference_mode(), torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
        with own_modes():
            assert torch.is_grad_enabled()
            assert torch.get_default_device().type == "cpu"
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_inference_mode_enabled()
        assert torch.get_default_device().type == "meta"
        assert torch.is_autocast_enabled("cpu")
