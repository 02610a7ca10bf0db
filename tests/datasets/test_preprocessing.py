"""One object between an encoded image and the network: its JSON, its pixels, its numbers."""

import json

import numpy as np
import pytest
import torch

from densenet121.datasets.eval_resize import parse_eval_resize
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.transforms import MEAN, STD, EvalTransform, normalise
from densenet121.utils.errors import InputError


def test_it_comes_back_from_its_json() -> None:
    own = Preprocessing((96, 128), "short:140", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), "pillow_bicubic")
    assert Preprocessing.from_json(json.loads(json.dumps(own.to_json()))) == own


def test_the_sentence_of_older_files_is_the_originals_interpolation() -> None:
    content = Preprocessing((224, 224), "256,256").to_json()
    content["interpolation"] = "bilinear without antialiasing (OpenCV INTER_LINEAR)"
    assert Preprocessing.from_json(content).interpolation == "opencv_bilinear"


def test_what_is_not_given_stays() -> None:
    own = Preprocessing((224, 224), "256,256", interpolation="pillow_bilinear")
    assert own.changed() == own
    assert own.changed(image_size=(96, 96), eval_resize="110,110") == Preprocessing(
        (96, 96), "110,110", interpolation="pillow_bilinear"
    )


def test_pixels_and_numbers_are_those_of_the_functions() -> None:
    own = Preprocessing((20, 24), "30,32")
    image = np.random.default_rng(0).integers(0, 256, (41, 53, 3), dtype=np.uint8)
    out = np.empty((20, 24, 3), np.uint8)
    own.prepare(image, out)
    expected = EvalTransform(20, 24, parse_eval_resize("30,32"))(image)
    np.testing.assert_array_equal(out, expected)
    batch = torch.from_numpy(out)[None]
    assert torch.equal(own.normalise(batch), normalise(batch, MEAN, STD))


def test_its_numbers_can_be_used_by_autograd_after_an_inference() -> None:
    own = Preprocessing((8, 8), "8", (9.0, 8.0, 7.0), (2.0, 3.0, 4.0))
    batch = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    with torch.inference_mode():
        own.normalise(batch)
    weight = torch.ones(3, 1, 1, requires_grad=True)
    (own.normalise(batch) * weight).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None


def test_a_crop_that_cannot_fit_is_refused() -> None:
    with pytest.raises(InputError, match="`eval_resize` 200 is smaller than"):
        _ = Preprocessing((224, 224), "200").transform


def test_images_are_normalised_anew() -> None:
    a = Preprocessing((16, 16), "18,18")
    b = Preprocessing((16, 16), "18,18", (120.0, 110.0, 100.0), (50.0, 60.0, 70.0))
    images = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    again = b.renormalise(a.normalise(images), a)
    assert torch.allclose(again, b.normalise(images), atol=1e-5)
    assert again.is_contiguous(memory_format=torch.channels_last)
