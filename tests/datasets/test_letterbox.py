"""``eval_resize`` pad: the whole image in its own shape, filled up with the mean."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from densenet121 import cli
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import save_weights
from densenet121.datasets.decoding import read_image
from densenet121.datasets.eval_resize import parse_eval_resize
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.transforms import EvalTransform
from densenet121.engine.evaluate import evaluate
from densenet121.inference.predictor import Predictor
from densenet121.utils.errors import InputError

from helpers.images import write_classes
from helpers.weights import NAMES, eval_config, write_weights

Pixels = NDArray[np.uint8]
FILL = (124, 116, 104)  # ImageNet's mean, rounded


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


def reference(image: Pixels, height: int, width: int, fill: tuple[int, int, int] = FILL) -> Pixels:
    """With OpenCV alone, and exact fractions for the sides."""
    h, w = image.shape[:2]
    if h * width >= w * height:
        own = height, max(1, int(w * height / h + 0.5))
    else:
        own = max(1, int(h * width / w + 0.5)), width
    small = cv2.resize(image, own[::-1], interpolation=cv2.INTER_LINEAR)
    down, right = height - own[0], width - own[1]
    sides = down // 2, down - down // 2, right // 2, right - right // 2
    return np.asarray(cv2.copyMakeBorder(small, *sides, cv2.BORDER_CONSTANT, value=fill))


@pytest.mark.parametrize(
    "shape", [(40, 48), (48, 40), (33, 99), (1, 300), (300, 1), (7, 5), (32, 32)]
)
@pytest.mark.parametrize("text", ["pad:32", "pad:32,48", "pad:57"])
def test_pixels_equal_opencv(shape: tuple[int, int], text: str) -> None:
    image, resize = noise(*shape), parse_eval_resize(text)
    assert isinstance(resize.size, tuple) and str(resize) == text
    height, width = resize.size
    transform = EvalTransform(height, width, resize, fill=FILL)
    expected = reference(image, height, width)
    np.testing.assert_array_equal(transform(image), expected)
    top, left = (height - 24) // 2, (width - 20) // 2
    cut = EvalTransform(24, 20, resize, fill=FILL)
    np.testing.assert_array_equal(cut(image), expected[top : top + 24, left : left + 20])


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 600), st.integers(1, 600))
def test_the_whole_image_fits_in_its_own_shape(h: int, w: int, height: int, width: int) -> None:
    own = parse_eval_resize(f"pad:{height},{width}").inner(h, w)
    assert own[0] == height or own[1] == width
    assert 1 <= own[0] <= height and 1 <= own[1] <= width
    scale = min(height / h, width / w)
    assert abs(own[0] - max(1, h * scale)) <= 0.5 + 1e-6
    assert abs(own[1] - max(1, w * scale)) <= 0.5 + 1e-6


def test_pillow_resizes_the_same_inner_image() -> None:
    image = noise(30, 60)
    transform = EvalTransform(32, 32, parse_eval_resize("pad:32"), "pillow_bicubic", fill=FILL)
    found = transform(image)
    inner = Image.fromarray(image).resize((32, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(found[8:24], np.asarray(inner))
    assert (found[:8] == FILL).all() and (found[24:] == FILL).all()


def test_prepared_images_are_padded_in_every_encoding_and_for_views() -> None:
    own = Preprocessing((32, 32), "pad:32")
    image = noise(20, 50)
    expected = reference(image, 32, 32)
    png = cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()
    for source in (image, png):
        out = np.empty((32, 32, 3), np.uint8)
        own.prepare(source, out)
        np.testing.assert_array_equal(out, expected)
    assert own.normalise(torch.from_numpy(out[None]))[0, :, 0, 0].abs().max() < 0.01
    ten = own.changed(image_size=(24, 24), tta="ten_crop")
    out = np.empty((120, 24, 3), np.uint8)
    ten.prepare(image, out)
    corners = [expected[4:28, 4:28], expected[:24, :24], expected[:24, 8:], expected[8:, :24],
               expected[8:, 8:]]  # fmt: skip
    np.testing.assert_array_equal(out, np.concatenate(corners))
    assert "fill" not in own.to_json() and Preprocessing.from_json(own.to_json()) == own


@pytest.mark.parametrize("text", ["pad:", "pad:0", "pad:short:5", "short:5,6", "pad:1,2,3"])
def test_a_bad_rule_is_named(text: str) -> None:
    with pytest.raises(InputError, match=f'"pad:256" .*, got "{text}"$'):
        parse_eval_resize(text)
    with pytest.raises(InputError, match="`eval_resize` pad:16 is smaller than `image_size` 32"):
        _ = Preprocessing((32, 32), "pad:16").transform


@pytest.mark.slow
def test_weights_eval_and_exported_networks_pad_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_classes(tmp_path / "images", list(NAMES), 4)
    plain = read_weights(write_weights(tmp_path / "plain.safetensors"))
    assert plain.info is not None
    mean, std = (10.4, 200.6, 90.0), (50.0, 60.0, 70.0)
    info = plain.info.__class__(
        plain.info.net, plain.info.variant, NAMES, Preprocessing((32, 32), "pad:32", mean, std)
    )
    weights = tmp_path / "padded.safetensors"
    save_weights(weights, plain.state_dict, info, {})
    image = next(images.rglob("*.png"))
    pixels = read_image(image)
    expected = reference(pixels, 32, 32, (10, 201, 90))
    found = Predictor(weights, amp="fp32", workers=0)
    np.testing.assert_array_equal(found.prepare(image), expected)
    logits = found.logits(torch.from_numpy(expected[None]))
    for inside in (0, 1):
        output = tmp_path / f"{inside}.onnx"
        flags = ["--uint8_input", str(inside), "--data_dir", str(images), "--pictures", "4"]
        command = ["export", "--pretrained", str(weights), "--output", str(output), *flags]
        assert cli.main(command) == 0
        exported = Predictor(output, workers=0)
        np.testing.assert_array_equal(exported.prepare(image), expected)
        again = exported.logits(torch.from_numpy(expected[None]))
        np.testing.assert_allclose(again, logits, rtol=1e-5)
    config = eval_config(images, weights, tmp_path / "eval", is_distributed=0)
    evaluate(config)
    log = "".join(file.read_text() for file in (tmp_path / "eval").glob("*.log"))
    assert "images resized to pad:32" in log
    assert json.loads(json.dumps(info.preprocessing.to_json()))["eval_resize"] == "pad:32"
    capsys.readouterr()
