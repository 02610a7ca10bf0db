"""Damaged images of every format that is read, decoded and prepared for the network."""

import functools
import io
import random
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from campaigns.campaign import Target
from campaigns.mutation import damaged
from densenet121.datasets.decoding import decode
from densenet121.datasets.eval_resize import parse_eval_resize
from densenet121.datasets.operations import apply
from densenet121.datasets.preparation import prepare_evaluation, prepare_training
from densenet121.datasets.reading import Reading, Window
from densenet121.datasets.transforms import EvalTransform, TrainTransform, uniforms
from densenet121.inference.predictor import Predictor
from densenet121.utils.errors import InputError

from helpers.weights import write_weights

PIXELS = 200_000  # a damaged header may claim more, which takes seconds but is allowed
TRAIN = TrainTransform(24, 24)
EVALUATE = EvalTransform(24, 24, parse_eval_resize("28"))
Case = tuple[str, bytes]


@functools.cache
def corpus() -> dict[str, list[bytes]]:
    """Small images: format to files."""
    rng = np.random.default_rng(0)
    slope = np.add.outer(np.arange(29) * 4, np.arange(41) * 3)[:, :, None] % 200
    rgb = (slope + np.array([0, 20, 40]) + rng.integers(0, 15, (29, 41, 3))).astype(np.uint8)
    deep = rng.integers(0, 65536, (9, 7), dtype=np.uint16)
    image = Image.fromarray(rgb)
    grey, few = image.convert("L"), image.convert("P", palette=Image.Palette.ADAPTIVE)
    frames: Any = {"save_all": True, "append_images": [Image.fromarray(255 - rgb)]}

    def file(picture: Image.Image, name: str, **options: Any) -> bytes:
        out = io.BytesIO()
        picture.save(out, name, **options)
        return out.getvalue()

    def jpeg(**options: Any) -> bytes:
        return file(image, "JPEG", **options)

    found = {
        "jpeg": [jpeg(quality=q, subsampling=s) for q, s in ((90, 0), (75, 1), (60, 2))]
        + [file(grey, "JPEG"), jpeg(restart_marker_blocks=2), jpeg(optimize=True)],
        "jpeg-other": [jpeg(progressive=True), file(image.convert("CMYK"), "JPEG")],
        "png": [file(picture, "PNG") for picture in (image, grey, few, image.convert("RGBA"))],
        "png-16": [cv2.imencode(".png", deep)[1].tobytes()],
        "apng": [file(image, "PNG", **frames)],
        "webp": [file(image, "WEBP"), file(image, "WEBP", lossless=True)],
        "gif": [file(few, "GIF"), file(few, "GIF", **frames)],
        "bmp": [file(picture, "BMP") for picture in (image, grey, few, image.convert("1"))],
        "tiff": [file(image, "TIFF", compression=name) for name in _TIFF]
        + [file(image.convert("1"), "TIFF", compression="group4")],
        "tiff-16": [file(Image.fromarray(deep), "TIFF")],
        "ppm": [file(image, "PPM"), file(grey, "PPM"), b"P2 3 2 255\n0 1 2 3 4 255\n"],
        "dicom": dicoms(deep),
    }
    return found


_TIFF = ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg", "tiff_adobe_deflate")


def dicoms(pixels: "np.ndarray[Any, Any]") -> list[bytes]:
    """Grey images of DICOM, explicit and implicit; none without pydicom."""
    try:
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
    except ImportError:
        return []
    found = []
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = generate_uid("1.2.", ["1"])
        meta.TransferSyntaxUID = syntax
        data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME1"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 0
        data.WindowCenter, data.WindowWidth = 3000, 5000
        data.RescaleSlope, data.RescaleIntercept = 2, -100
        data.PixelData = pixels.tobytes()
        out = io.BytesIO()
        data.save_as(out, enforce_file_format=True)
        found.append(out.getvalue())
    return found


def make(rng: random.Random) -> Case:
    """A damaged image and its format; a PNG's checksums are sometimes made right again."""
    files = {name: found for name, found in corpus().items() if found}
    name = rng.choice(sorted(files))
    others = files[rng.choice(sorted(files))]
    data = damaged(rng, rng.choice(files[name]), others)
    if name in ("png", "png-16", "apng") and rng.random() < 0.5:
        data = with_right_checksums(data)
    return name, data


def with_right_checksums(data: bytes) -> bytes:
    """A PNG whose damage is not found by the sums of its chunks."""
    result, start = bytearray(data[:8]), 8
    while start + 12 <= len(data):
        (size,) = struct.unpack(">I", data[start : start + 4])
        content = data[start + 4 : start + 8 + size]
        result += data[start : start + 4] + content + struct.pack(">I", zlib.crc32(content))
        start += 12 + size
    return bytes(result)


def run(case: Case) -> str:
    """Decode and prepare; where the kernel reads a JPEG, it reads what libjpeg reads."""
    name, data = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pixels = decode(data, PIXELS)
        except InputError as error:
            one_line(error)
            refused_by_all(data)
            return f"{name} refused"
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        kernel_reads_the_same(data, pixels)
        if name in ("png-16", "tiff-16", "dicom"):
            _deep(data)
    return f"{name} read"


def _deep(data: bytes) -> None:
    try:
        decode(data, PIXELS, Reading(16, Window("percentile", 1, 99)))
    except InputError as error:
        one_line(error)


def refused_by_all(data: bytes) -> None:
    """The other ways to an image refuse it too."""
    out = np.empty((24, 24, 3), np.uint8)
    try:
        prepare_evaluation(data, EVALUATE, out, PIXELS)
    except InputError as error:
        one_line(error)
    else:
        raise AssertionError("decode refuses the image, but it was prepared")


def kernel_reads_the_same(data: bytes, pixels: "np.ndarray[Any, Any]") -> None:
    """In training and in evaluation."""
    height, width, _ = pixels.shape
    out = np.empty((24, 24, 3), np.uint8)
    prepare_evaluation(data, EVALUATE, out, PIXELS)
    assert np.array_equal(out, apply(EVALUATE.operations(height, width), pixels))
    u = uniforms(1, 2, len(data), TRAIN.num_uniforms)
    prepare_training(data, TRAIN, u, out)
    assert np.array_equal(out, apply(TRAIN.operations(height, width, u), pixels))


def one_line(error: Exception) -> None:
    """A message is one line that says something."""
    text = str(error)
    assert text.strip() and "\n" not in text, repr(text)


_PREDICTOR: list[Predictor] = []


def load(folder: Path) -> None:
    """A small network, for ``predict``."""
    torch.set_num_threads(1)
    weights = write_weights(folder / "small.safetensors")
    _PREDICTOR[:] = [Predictor(weights, device="cpu", amp="fp32")]


def predict(case: Case) -> str:
    """The answer of a network about an image."""
    name, data = case
    (predictor,) = _PREDICTOR
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pixels = predictor.prepare(data, PIXELS)
        except InputError as error:
            one_line(error)
            return f"{name} refused"
        (answer,) = predictor.answers(predictor.logits(torch.from_numpy(pixels[None])))
    assert answer.to_json()
    return f"{name} answered"


def targets(folder: Path) -> list[Target]:
    """Of this file; ``folder`` is for files."""
    return [
        Target("images", make, run),
        Target("predict", make, predict, lambda: load(folder)),
    ]
