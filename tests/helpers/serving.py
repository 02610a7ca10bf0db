"""Requests to a server, good and bad."""

import http.client
import io
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densenet121.tasks import AnswerOptions, SingleLabel
from densenet121.tasks.single_label.predictions import Prediction

Logits = NDArray[np.float32]
MAX_BYTES, MAX_PIXELS, MAX_PICTURES = 200_000, 100_000, 4
FLAGS = ["--amp", "fp32", "--max_bytes", MAX_BYTES, "--max_pixels", MAX_PIXELS]
FLAGS += ["--max_pictures", MAX_PICTURES, "--body_seconds", 1.5, "--workers", 1]
FORM = {"content_type": "multipart/form-data; boundary=xx"}


def ask(
    port: int, body: bytes | None, path: str = "/predict", method: str = "POST", **headers: str
) -> tuple[int, Any, "http.client.HTTPMessage"]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    kind = answer.headers.get("content-type", "")
    return answer.status, json.loads(text) if "json" in kind else text.decode(), answer.headers


def failing(when: Callable[[Logits, AnswerOptions], bool], error: Exception) -> SingleLabel:
    """A task of the user's that fails for some images or options."""

    class Failing(SingleLabel):
        def answers(
            self,
            logits: Logits,
            class_names: Sequence[str],
            calibration: Any = None,
            options: AnswerOptions = AnswerOptions(),  # noqa: B008
        ) -> list[Prediction]:
            if when(logits, options):
                raise error
            return super().answers(logits, class_names, calibration, options)

    return Failing()


def form(parts: Sequence[tuple[str | None, bytes]], end: bool = True) -> bytes:
    lines = b""
    for name, data in parts:
        file = "" if name is None else f'; filename="{name}"'
        lines += f'--xx\r\nContent-Disposition: form-data; name="p"{file}\r\n\r\n'.encode()
        lines += data + b"\r\n"
    return lines + (b"--xx--\r\n" if end else b"")


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes with as many pixels as told."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width // 8 + 1) * min(height, 10_000)), 9)
    ends = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + ends


def jpeg_of_size(width: int, height: int) -> bytes:
    """A JPEG whose header claims this size."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    data = bytearray(file.getvalue())
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def bad_requests(image: bytes) -> list[tuple[int, str, bytes, dict[str, str]]]:
    """Status, part of the reason, body, headers."""
    many = [("x.png", image)] * (MAX_PICTURES + 1)
    return [
        (400, "empty", b"", {}),
        (415, "known format", b"no image at all", {}),
        (415, "known format", b"%PDF-1.7 something", {"content_type": "image/jpeg"}),
        (422, "truncated", image[:200], {}),
        (422, "truncated", image[: len(image) // 2], {}),
        (413, "the limit is 100000", bomb(30_000, 30_000), {}),
        (413, "the limit is 100000", jpeg_of_size(65_000, 65_000), {}),
        (413, "larger than 200000", bytes(MAX_BYTES + 1), {}),
        (413, "larger than 200000", bytes(10 * MAX_BYTES), {}),
        (413, "more than 4 images", form(many), FORM),
        (413, "fields", form([(None, b"x")] * 70), FORM),
        (400, "truncated", form([("x.png", image)], end=False), FORM),
        (400, "truncated", form([("x.png", image)])[:-40], FORM),
        (400, "malformed", b"--yy\r\nnonsense", FORM),
        (400, "boundary", form([("x.png", image)]), {"content_type": "multipart/form-data"}),
        (400, "boundary", form([("x.png", image)]), {"content_type": "multipart/mixed"}),
        (400, "has no files", form([(None, image)]), FORM),
        (400, "image 2 (b.png): the file is empty", form([("a.png", image), ("b.png", b"")]), FORM),
        (415, "image 2 (b)", form([("a.png", image), ("b", b"text")]), FORM),
    ]  # fmt: skip
