"""A PIL image has the pixels of the file that it was opened from, or is refused as the file is."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from densenet121 import DenseNetClassifier
from densenet121.datasets.decoding import decode
from densenet121.datasets.pillow_images import from_pillow
from densenet121.datasets.reading import AS_BYTES, Reading, make_reading
from densenet121.inference.predictor import Predictor
from densenet121.utils.errors import InputError

from helpers.weights import write_weights

DEEP = np.linspace(0, 65535, 20 * 24).reshape(20, 24).astype(np.uint16)
COLOUR = np.random.default_rng(3).integers(0, 256, (20, 24, 4)).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pgm() -> bytes:
    return b"P5 24 20 4095\n" + (DEEP >> 4).astype(">u2").tobytes()


def transparent() -> bytes:
    palette = Image.fromarray(COLOUR[..., :3]).quantize(8)
    return saved(palette, "PNG", transparency=bytes([0, 128, 255]))


FILES: dict[str, Callable[[], bytes]] = {
    "I;16 PNG": lambda: saved(Image.fromarray(DEEP), "PNG"),
    "I;16 TIFF": lambda: saved(Image.fromarray(DEEP), "TIFF"),
    "PGM of 12 bits": pgm,
    "palette": transparent,
    "RGBA": lambda: saved(Image.fromarray(COLOUR), "PNG"),
    "LA": lambda: saved(Image.fromarray(COLOUR).convert("LA"), "PNG"),
    "1": lambda: saved(Image.fromarray(COLOUR[..., 0]).convert("1"), "TIFF"),
    "CMYK": lambda: saved(Image.fromarray(COLOUR[..., :3]).convert("CMYK"), "TIFF"),
}


def pixels(image: Image.Image, reading: Reading) -> NDArray[np.uint8]:
    found = from_pillow(image)
    return decode(found, reading=reading) if isinstance(found, bytes) else found


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("name", FILES)
def test_an_opened_file_has_the_pixels_of_its_bytes(name: str, depth: int) -> None:
    data = FILES[name]()
    image = Image.open(io.BytesIO(data))
    for reading in (make_reading(depth, None), make_reading(16, "100,20000")):
        np.testing.assert_array_equal(pixels(image, reading), decode(data, reading=reading))


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_sixteen_bits_keep_their_high_byte_in_any_byte_order(mode: str) -> None:
    kind = ">u2" if mode.endswith("B") else "<u2"
    image = Image.frombytes(mode, (24, 20), DEEP.astype(kind).tobytes())
    assert (pixels(image, AS_BYTES) == (DEEP >> 8)[..., None]).all()


def test_the_image_of_the_caller_stays_as_it_is() -> None:
    image = Image.open(io.BytesIO(transparent()))
    from_pillow(image)
    assert image.mode == "P" and "transparency" in image.info


def lab() -> Image.Image:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(*profiles, "RGB", "LAB")
    found = ImageCms.applyTransform(Image.fromarray(COLOUR[..., :3]), transform)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image.fromarray((DEEP / 65535).astype(np.float32)), "a PIL image of mode F; pass one of"),
        (Image.fromarray(DEEP.astype(np.int32)), "a PIL image of mode I; pass one of 8 bits"),
        (lab(), "a PIL image of mode LAB; pass one of 8 bits"),
        (Image.new("L", (0, 3)), "the PIL image has no pixels"),
        (
            Image.open(io.BytesIO(FILES["RGBA"]()[:500])),
            "the PIL image cannot be loaded",
        ),
    ],
)
def test_other_samples_are_refused_in_one_line(
    image: Image.Image, reason: str, tmp_path: Path
) -> None:
    predictor = Predictor(write_weights(tmp_path / "w.safetensors"), amp="fp32")
    with pytest.raises(InputError, match=reason) as caught:
        predictor.predict([image])
    assert "\n" not in str(caught.value)


def test_a_tiff_whose_zero_is_white_is_refused_rather_than_inverted() -> None:
    data = saved(Image.fromarray(DEEP), "TIFF")
    # The tag 262, SHORT, of one value: 1 (0 is black) becomes 0.
    tag = (262).to_bytes(2, "little") + (3).to_bytes(2, "little") + (1).to_bytes(4, "little")
    at = data.index(tag) + len(tag)
    data = data[:at] + b"\0" + data[at + 1 :]
    assert (decode(data) == 255 - (DEEP >> 8)[..., None]).all()
    with pytest.raises(InputError, match="whose 0 is white; pass the path of the file"):
        from_pillow(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_a_pickled_image_is_the_same_or_refused_with_what_to_pass(kind: str) -> None:
    file = io.BytesIO()
    Image.fromarray(np.arange(300, dtype=np.uint16).reshape(15, 20)).save(file, kind)
    image = Image.open(file)
    sent = pickle.loads(pickle.dumps(image))
    if kind == "PNG":
        assert from_pillow(sent) == from_pillow(image)
        return
    with pytest.raises(InputError, match=r"has lost its tags; pass the path or the bytes of the"):
        from_pillow(sent)


@pytest.mark.parametrize("options", [{}, {"depth": 16}, {"depth": 16, "window": "0,20000"}])
def test_predictor_answers_for_a_pil_image_as_for_its_path(
    options: dict[str, object], tmp_path: Path
) -> None:
    weights, file = write_weights(tmp_path / "w.safetensors"), tmp_path / "deep.png"
    Image.fromarray(DEEP).save(file)
    predictor = Predictor(weights, amp="fp32", **options)  # type: ignore[arg-type]
    a, b = predictor.predict([file, Image.open(file)])
    assert a.probabilities == b.probabilities
    assert (predictor.prepare(file) == predictor.prepare(Image.open(file))).all()


def test_the_estimator_answers_for_a_pil_image_as_for_its_path(tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / "deep.png")
    estimator = DenseNetClassifier.load(write_weights(tmp_path / "w.safetensors"), amp="fp32")
    image = Image.open(tmp_path / "deep.png")
    a, b = estimator.predict_proba([str(tmp_path / "deep.png"), image])
    assert a.tolist() == b.tolist()
