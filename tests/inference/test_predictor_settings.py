"""Predictor refuses in one line what the command line refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densenet121.config import PredictConfig, weights_choices
from densenet121.inference.classifier import Choices, load_classifier
from densenet121.inference.predictor import Predictor
from densenet121.utils.errors import InputError, UsageError

from helpers.weights import write_weights

IMAGE = np.zeros((20, 20, 3), np.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "w.safetensors")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"coverage": 90}, "`coverage` must be a number between 0 and 1, got 90"),
        ({"coverage": 0}, "`coverage` must be a number between 0 and 1, got 0"),
        ({"coverage": -1}, "`coverage` must be a number between 0 and 1, got -1"),
        ({"coverage": "0.9"}, "`coverage` must be a number between 0 and 1, got '0.9'"),
        ({"top_k": 0}, "`top_k` must be a whole number from 1, got 0"),
        ({"top_k": -2}, "`top_k` must be a whole number from 1, got -2"),
        ({"top_k": 2.5}, "`top_k` must be a whole number from 1, got 2.5"),
        ({"abstain_below": 50}, "`abstain_below` must be a number from 0 to 1, got 50"),
        ({"abstain_below": float("nan")}, "`abstain_below` must be a number from 0 to 1"),
    ],
)
def test_an_option_out_of_range_is_refused(
    options: dict[str, Any], reason: str, weights: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        Predictor(weights).predict([IMAGE], **options)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"image_size": 8}, "`image_size` must be a whole number from 16, got 8"),
        ({"image_size": "64"}, "`image_size` must be a whole number from 16, got '64'"),
        ({"image_size": (16, 16, 3)}, "`image_size` must be one number or (height, width)"),
        ({"amp": "bf"}, "`amp` must be one of O0, fp32, tf32, O2, bf16, O3, fp16, got bf"),
        ({"workers": -1}, "`workers` must be a whole number from 0, got -1"),
        ({"workers": True}, "`workers` must be a whole number from 0, got True"),
        ({"batch_size": 0}, "`batch_size` must be a whole number from 1, got 0"),
        ({"eval_resize": "large"}, '`eval_resize` must be "256"'),
        ({"window": 3}, "`window` must be full, LOW,HIGH"),
    ],
)
def test_a_setting_out_of_range_is_refused(
    settings: dict[str, Any], reason: str, weights: Path
) -> None:
    with pytest.raises(InputError) as caught:
        Predictor(weights, **settings)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    ("tta", "images", "reason"),
    [
        ("none", torch.zeros(2, 20, 20, 3, dtype=torch.uint8), "(2, 20, 20, 3) uint8"),
        ("none", torch.zeros(2, 16, 16, 4, dtype=torch.uint8), "(2, 16, 16, 4) uint8"),
        ("none", torch.zeros(2, 3, 16, 16, dtype=torch.uint8), "(2, 3, 16, 16) uint8"),
        ("none", torch.zeros(2, 3, 32, 32), "(2, 3, 32, 32) float32"),
        ("none", torch.zeros(2, 3, 16, 16, dtype=torch.float64), "(2, 3, 16, 16) float64"),
        ("none", torch.zeros(16, 16, 3, dtype=torch.uint8), "(16, 16, 3) uint8"),
        ("none", torch.tensor(1, dtype=torch.uint8), "() uint8"),
        ("none", np.zeros((2, 16, 16, 3), np.uint8), "ndarray"),
        ("flip", torch.zeros(2, 3, 16, 16), "(2, 3, 16, 16) float32"),
        ("ten_crop", torch.zeros(2, 16, 16, 3, dtype=torch.uint8), "(2, 16, 16, 3) uint8"),
    ],
)
def test_prepared_images_of_another_shape_are_refused(
    tta: str, images: Any, reason: str, weights: Path
) -> None:
    with pytest.raises(InputError) as caught:
        Predictor(weights, tta=tta, amp="fp32").logits(images)
    rows = 80 if tta == "ten_crop" else 16
    tensors = " or, normalised, (N, 3, 16, 16) float32" if tta == "none" else ""
    assert str(caught.value).startswith(
        f"`images` must be a tensor of (N, {rows}, 16, 3) uint8{tensors}, got {reason}; "
    )


def test_another_size_scales_the_resizing_as_the_commands_do(weights: Path) -> None:
    predictor = Predictor(weights, image_size=(32, 48), amp="fp32")
    config = PredictConfig(inputs=["x.png"], pretrained=str(weights), image_size="32,48")
    choices = Choices(**weights_choices(config))
    as_command = load_classifier(weights, choices).preprocessing
    assert predictor.classifier.preprocessing == as_command
    assert as_command.eval_resize == "37,55"  # 36.57 and 54.86
    kept = Predictor(weights, image_size=(32, 48), eval_resize="short:64", amp="fp32")
    assert kept.classifier.preprocessing.eval_resize == "short:64"


def test_one_number_stands_for_both_sides(weights: Path) -> None:
    one = Predictor(weights, image_size=32, eval_resize=40, amp="fp32")
    both = Predictor(weights, image_size=(32, 32), eval_resize="40,40", amp="fp32")
    assert one.size == (32, 32) == both.size
    image = np.arange(50 * 60 * 3, dtype=np.uint32).reshape(50, 60, 3).astype(np.uint8)
    assert (one.prepare(image) == both.prepare(image)).all()
    numpy_number: Any = np.int64(2)
    assert len(one.predict([image], top_k=numpy_number)[0].classes) == 2


@pytest.mark.parametrize("number", [np.float64, np.float32, float])
def test_an_answer_is_written_as_json_whatever_kind_of_number_is_given(
    weights: Path, number: Any
) -> None:
    [answer] = Predictor(weights).predict([IMAGE], abstain_below=number(0.75), top_k=2)
    assert json.loads(json.dumps(answer.to_json()))["abstained"] is answer.abstained
