"""16-bit grey images in full depth: exact against numpy, and the same in every command."""

import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from densenet121 import cli
from densenet121.audit.audit import audit
from densenet121.checkpoint.load import read_weights
from densenet121.config import AuditConfig, EvalConfig, TrainConfig
from densenet121.datasets.decoding import decode, read_image
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.reading import Reading, grey_levels, make_reading, parse_window
from densenet121.engine.evaluate import evaluate
from densenet121.engine.train import train
from densenet121.inference.predictor import Predictor
from densenet121.utils.errors import InputError, UsageError

Samples = NDArray[np.uint16]
SAMPLES = np.random.default_rng(3).integers(0, 4096, (31, 17), dtype=np.uint16)  # 12 of 16 bits
SAMPLES[0, :3] = 0, 65535, 65534


def reference(samples: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """The definition in the docstring of ``grey_levels``, in numpy."""
    levels = np.floor((samples.astype(np.float64) - low) / (high - low) * 255 + 0.5)
    return np.minimum(np.maximum(levels, 0), 255).astype(np.uint8)


def encode(samples: NDArray[Any], name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(samples).save(file, name, **options)
    return file.getvalue()


def png_with_alpha(samples: Samples) -> bytes:
    """A 16-bit grey PNG with opacity, which neither Pillow nor OpenCV writes."""
    height, width = samples.shape
    both = np.stack([samples, np.full_like(samples, 700)], axis=2).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in both)

    def chunk(kind: bytes, content: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + end

    header = struct.pack(">IIBBBBB", width, height, 16, 4, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


DEEP = {
    "png": encode(SAMPLES, "PNG"),
    "png-alpha": png_with_alpha(SAMPLES),
    "png-apng": encode(SAMPLES, "PNG", save_all=True, append_images=[Image.fromarray(SAMPLES * 2)]),
    "tiff": encode(SAMPLES, "TIFF"),
    "tiff-big-endian": encode(SAMPLES.astype(">u2"), "TIFF"),
    "tiff-lzw": encode(SAMPLES, "TIFF", compression="tiff_lzw"),
    "pgm": b"P5 17 31 65535\n" + SAMPLES.astype(">u2").tobytes(),
}
WINDOWS: dict[str, Callable[[Samples], Any]] = {
    "full": lambda x: (0, 65535),
    "0,4095": lambda x: (0, 4095),
    "-100.5,1e3": lambda x: (-100.5, 1000),
    "percentile:0.5,99.5": lambda x: np.percentile(x, [0.5, 99.5]),
    "percentile:.5,100": lambda x: np.percentile(x, [0.5, 100]),
}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", DEEP)
def test_full_depth_is_the_reference_in_numpy(name: str, window: str) -> None:
    low, high = WINDOWS[window](SAMPLES)
    expected = reference(SAMPLES, low, high)
    found = decode(DEEP[name], reading=make_reading(16, window))
    np.testing.assert_array_equal(found, expected[:, :, None].repeat(3, axis=2))
    assert found.dtype == np.uint8 and found.flags.c_contiguous and found.flags.writeable


@pytest.mark.parametrize("name", DEEP)
def test_the_high_byte_is_kept_unless_full_depth_is_asked_for(name: str) -> None:
    expected = (SAMPLES >> 8)[:, :, None].repeat(3, axis=2)
    np.testing.assert_array_equal(decode(DEEP[name]), expected)
    np.testing.assert_array_equal(decode(DEEP[name], reading=make_reading(8, None)), expected)
    with pytest.raises(InputError, match="`depth` 8 keeps the high byte, but `window` needs all"):
        decode(DEEP[name], reading=make_reading(8, "0,4095"))


def test_white_is_zero_is_inverted_after_the_window() -> None:
    data = bytearray(encode(SAMPLES, "TIFF"))
    at = data.index(struct.pack("<HHI", 262, 3, 1)) + 8  # PhotometricInterpretation
    assert data[at] == 1
    data[at] = 0
    found = decode(bytes(data), reading=make_reading(16, "100,4000"))
    np.testing.assert_array_equal(found[:, :, 0], 255 - reference(SAMPLES, 100, 4000))


@pytest.mark.parametrize("window", [None, "0,100", "percentile:1,99"])
def test_images_of_8_bits_have_no_window(window: str | None) -> None:
    grey = (SAMPLES & 255).astype(np.uint8)
    for name in ("PNG", "TIFF", "BMP", "PPM"):
        data = encode(grey, name)
        np.testing.assert_array_equal(decode(data, reading=make_reading(16, window)), decode(data))


def test_16_bit_colour_is_refused_by_name() -> None:
    colour = np.stack([SAMPLES] * 3, axis=2)
    data = cv2.imencode(".png", colour)[1].tobytes()
    assert decode(data).max() == 255
    with pytest.raises(InputError, match=r"^PNG with 16-bit colour; `depth` 16 and `window` are"):
        decode(data, reading=make_reading(16, None))


@pytest.mark.parametrize("reading", [make_reading(16, None), make_reading(16, "0,4095")])
@pytest.mark.parametrize(
    ("data", "deep"),
    [
        (b"P6\n# by hand, 1 1 255\n1 1\n65535\n" + b"\xff\0" * 3, True),
        (b"P6 1 1 4095 " + b"\x0f\0" * 3, True),
        (b"P3 1 1 256\n256 0 1\n", True),
        (b"P6 1 1 255 abc", False),
        (b"P3 1 1 255\n255 0 1\n", False),
    ],
)
def test_colour_ppm_of_more_than_8_bits_is_refused_by_name(
    data: bytes, deep: bool, reading: Reading
) -> None:
    assert decode(data).shape == (1, 1, 3)
    if deep:
        with pytest.raises(InputError, match=r"^PPM with 16-bit colour; `depth` 16 and `window`"):
            decode(data, reading=reading)
    else:
        np.testing.assert_array_equal(decode(data, reading=reading), decode(data))


@given(
    st.lists(st.integers(0, 65535), min_size=1, max_size=50),
    st.floats(-1e5, 1e5),
    st.floats(1e-3, 1e5),
)
def test_grey_levels_rise_and_reach_both_ends(values: list[int], low: float, width: float) -> None:
    samples = np.sort(np.array(values, dtype=np.float64))
    levels = grey_levels(samples, low, low + width)
    assert (np.diff(levels.astype(int)) >= 0).all()
    ends = np.array([low, low + width])
    np.testing.assert_array_equal(grey_levels(ends, low, low + width), [0, 255])


def test_an_image_of_one_value_is_black_under_percentiles() -> None:
    data = encode(np.full((4, 4), 700, np.uint16), "PNG")
    assert decode(data, reading=make_reading(16, "percentile:1,99")).max() == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "half",
        "1",
        "1,2,3",
        "2,1",
        "1,1",
        "percentile:-1,5",
        "percentile:5,101",
        "nan,1",
        "0,inf",
    ],
)
def test_a_bad_window_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=f'^`window` .*, got "{re.escape(text)}"$'):
        parse_window(text)


def test_the_reading_is_stored_only_where_it_is_not_the_default() -> None:
    content = Preprocessing((16, 16), "20,20").to_json()
    assert content.keys() == {"image_size", "eval_resize", "mean", "std", "interpolation"}
    own = Preprocessing((16, 16), "20,20", depth=16, window="0,4095")
    assert Preprocessing.from_json(json.loads(json.dumps(own.to_json()))) == own
    assert own.changed(depth=8).reading == Reading()
    assert own.changed(window="full").reading == make_reading(16, "full")


@pytest.fixture(scope="module")
def deep_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 16-bit images that differ only in their lower bits."""
    root = tmp_path_factory.mktemp("deep")
    for split, count in (("train", 6), ("val", 4)):
        for label, name in enumerate(("ant", "bee")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                rng = np.random.default_rng([label, index, count])
                samples = rng.integers(100 * label, 120 + 100 * label, (24, 20), dtype=np.uint16)
                Image.fromarray(samples).save(folder / f"{index}.{('png', 'tif')[index % 2]}")
    return root


@pytest.fixture(scope="module")
def run_folder(deep_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    config = TrainConfig(
        data_dir=str(deep_images),
        depth=16,
        window="0,255",
        net="densenet40",
        image_size=16,
        eval_resize="24,20",
        max_epoch=1,
        per_batch_size=4,
        workers=0,
        amp="fp32",
        is_distributed=0,
        output_dir=str(folder),
    )
    train(config)
    return folder


def weights_of(folder: Path) -> Path:
    return next(folder.glob("**/*.safetensors"))


def prepared(image: Path) -> "np.ndarray[Any, Any]":
    """The network's input from all bits of an image."""
    samples = np.asarray(Image.open(image))
    return reference(samples, 0, 255)[4:20, 2:18, None].repeat(3, axis=2)


def test_every_command_reads_the_images_as_training_did(
    run_folder: Path, deep_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = weights_of(run_folder)
    info = read_weights(weights).info
    assert info is not None and (info.preprocessing.depth, info.preprocessing.window) == (
        16,
        "0,255",
    )
    image = deep_images / "val" / "ant" / "1.tif"
    expected = prepared(image)
    predictor = Predictor(weights, amp="fp32", workers=0)
    np.testing.assert_array_equal(predictor.prepare(image), expected)
    np.testing.assert_array_equal(predictor.prepare(image.read_bytes()), expected)

    common: dict[str, Any] = {
        "pretrained": str(weights),
        "workers": 0,
        "amp": "fp32",
        "is_distributed": 0,
    }
    config = EvalConfig(data_dir=str(deep_images), output_dir=str(tmp_path / "eval"), **common)
    found = evaluate(config)
    log = "".join(file.read_text() for file in (tmp_path / "eval").glob("*.log"))
    assert found is not None and "images are read with depth 16, window 0,255" in log

    page = tmp_path / "sheet.html"
    shown = ["--image_size", "16", "--eval_resize", "24,20", "--depth", "16", "--window", "0,255"]
    assert cli.main(["show", "--data_dir", str(deep_images), "--output", str(page), *shown]) == 0
    other = tmp_path / "other.html"
    assert (
        cli.main(["show", "--data_dir", str(deep_images), "--output", str(other), *shown[:4]]) == 0
    )
    assert page.read_text() != other.read_text()
    capsys.readouterr()
    assert cli.main(["predict", str(image), "--pretrained", str(weights), "--depth", "8"]) == 0
    assert cli.main(["predict", str(image), "--pretrained", str(weights), "--window", "5,1"]) == 2
    assert '--window needs a low value below its high one, got "5,1"' in capsys.readouterr().err


@pytest.mark.slow
def test_an_exported_network_reads_the_images_as_training_did(
    run_folder: Path, deep_images: Path, tmp_path: Path
) -> None:
    weights, image = weights_of(run_folder), deep_images / "val" / "ant" / "1.tif"
    exported = tmp_path / "net.onnx"
    flags = ["--pretrained", str(weights), "--data_dir", str(deep_images), "--pictures", "4"]
    assert cli.main(["export", "--output", str(exported), *flags]) == 0
    onnx, predictor = Predictor(exported, workers=0), Predictor(weights, amp="fp32", workers=0)
    np.testing.assert_array_equal(onnx.prepare(image), expected := prepared(image))
    batch = torch.from_numpy(expected[None])
    np.testing.assert_allclose(onnx.logits(batch), predictor.logits(batch), rtol=1e-5, atol=1e-4)


def test_audit_sees_full_depth(deep_images: Path) -> None:
    plain = audit(AuditConfig(source=str(deep_images), workers=1))
    assert {"low_range", "exact_duplicate"} <= {finding.kind for finding in plain.findings}
    detail = next(f.detail for f in plain.findings if f.kind == "low_range")
    assert detail.endswith("depth 16 with window 0,127 keeps them")
    deep = audit(AuditConfig(source=str(deep_images), depth=16, window="0,255", workers=1))
    assert not {"low_range", "exact_duplicate"} & {finding.kind for finding in deep.findings}


def test_a_resume_with_another_window_is_refused(run_folder: Path, deep_images: Path) -> None:
    config = TrainConfig(
        data_dir=str(deep_images),
        depth=16,
        window="0,511",
        net="densenet40",
        image_size=16,
        eval_resize="24,20",
        max_epoch=1,
        per_batch_size=4,
        workers=0,
        amp="fp32",
        is_distributed=0,
        output_dir=str(run_folder),
        resume="auto",
    )
    with pytest.raises(UsageError, match="--window was 0,255, is now 0,511"):
        train(config)


def test_weights_pass_their_reading_on(run_folder: Path, deep_images: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        data_dir=str(deep_images),
        pretrained=str(weights_of(run_folder)),
        net="densenet40",
        lr=1e-3,
        max_epoch=1,
        per_batch_size=4,
        workers=0,
        amp="fp32",
        is_distributed=0,
        output_dir=str(tmp_path / "run"),
    )
    train(config)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["settings"]["depth"], record["settings"]["window"]) == (16, "0,255")
    assert read_image(deep_images / "val/ant/0.png").max() == 0  # alone, the high byte
