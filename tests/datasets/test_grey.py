"""Grey images: Pillow's L, whatever the source, in training as in evaluation."""

import io
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from densenet121.datasets.decoding import decode
from densenet121.datasets.grey import SHARES, as_grey, is_grey_jpeg
from densenet121.datasets.preparation import prepare_evaluation, prepare_training
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.transforms import TrainTransform, uniforms

from helpers.images import draw

GREY = Preprocessing((24, 24), "28,30", (100.0,), (50.0,))


def encoded(pixels: Any, form: str, mode: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form)
    return file.getvalue()


def test_grey_is_pillows_l_and_keeps_grey_images() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    assert np.array_equal(as_grey(pixels), np.repeat(expected[..., None], 3, axis=2))
    wide = pixels.astype(np.int64)
    formula = (wide @ np.array([19595, 38470, 7471]) + 32768) // 65536
    assert np.array_equal(as_grey(pixels)[..., 0], formula)
    levels = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert np.array_equal(as_grey(levels), levels)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("resize", ["28,30", "pad:30"])
def test_an_image_becomes_grey_before_anything_else(form: str, mode: str, resize: str) -> None:
    data = encoded(draw(1, 2), form, mode)
    assert is_grey_jpeg(data) == ((form, mode) == ("JPEG", "L"))
    first = as_grey(decode(data))
    transform = replace(GREY, eval_resize=resize).transform
    plain = replace(transform, grey=False)
    found, expected = (np.empty((24, 24, 3), np.uint8) for _ in range(2))
    prepare_evaluation(data, transform, found)
    prepare_evaluation(first, plain, expected)
    assert np.array_equal(found, expected)
    colour = TrainTransform(24, 24)
    for epoch in range(4):
        u = uniforms(3, epoch, 1)
        prepare_training(data, replace(colour, grey=True), u, found)
        prepare_training(first, colour, u, expected)
        assert np.array_equal(found, expected)
        assert (found == found[..., :1]).all()


def test_pixels_are_converted_as_files_are() -> None:
    pixels = draw(0, 0)
    found, expected = (np.empty((24, 24, 3), np.uint8) for _ in range(2))
    GREY.prepare(pixels, found)
    GREY.prepare(encoded(pixels, "PNG", "RGB"), expected)
    assert np.array_equal(found, expected)


def test_a_network_of_one_channel_gets_one() -> None:
    images = torch.from_numpy(np.stack([as_grey(draw(0, i)) for i in range(3)]))
    x = GREY.normalise(images)
    assert x.shape == (3, 1, 40, 48)
    assert torch.equal(x[:, 0], (images[..., 0].float() - 100) / 50)


def test_another_networks_images_are_its_levels() -> None:
    """Of a teacher: grey to colour is exact, colour to grey is L without rounding."""
    rgb = Preprocessing((24, 24), "28,30")
    colour = torch.from_numpy(draw(0, 1)[None])
    grey = torch.from_numpy(as_grey(draw(0, 1))[None])
    found = rgb.renormalise(GREY.normalise(grey), GREY)
    torch.testing.assert_close(found, rgb.normalise(grey), rtol=0, atol=1e-5)
    found = GREY.renormalise(rgb.normalise(colour), rgb)
    levels = (colour.double() * torch.tensor(SHARES).double()).sum(-1)
    torch.testing.assert_close(found[:, 0].double(), (levels - 100) / 50, rtol=0, atol=1e-5)
    assert (found[0, 0] * 50 + 100 - grey[0, ..., 0]).abs().max() <= 0.51


def test_the_channels_of_a_preprocessing_go_into_its_json_and_back() -> None:
    assert Preprocessing.from_json(GREY.to_json()) == GREY
    assert GREY.to_json()["mean"] == (100.0,)
    assert GREY.with_channels(3).mean == (100.0,) * 3
    assert GREY.with_channels(3).with_channels(1) == GREY
    rgb = Preprocessing((24, 24), "28,30")
    assert rgb.with_channels(1).mean == pytest.approx((0.449 * 255,))
    assert rgb.with_channels(3) is rgb
    assert GREY.transform.fill == (100, 100, 100)


def test_grey_of_opencv_is_another() -> None:
    """The reason for Pillow here: OpenCV's rounding differs for some colours."""
    pixels = np.random.default_rng(2).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    theirs = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(int)
    difference = as_grey(pixels)[..., 0] - theirs
    assert 0 < (difference != 0).mean() < 0.01 and abs(difference).max() == 1
