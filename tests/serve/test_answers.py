"""Every answer is JSON in UTF-8, whatever names are in it; a fault of the server is in its log."""

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from densenet121.config import ServeConfig
from densenet121.datasets.decoding import EXTENSIONS
from densenet121.inference.predictor import Predictor
from densenet121.network import build
from densenet121.tasks import Task

from helpers.serving import failing
from helpers.weights import write_weights

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from densenet121.serve.app import make_app
from densenet121.serve.server import announce
from densenet121.serve.service import Service

LATIN = "t\udcfcr"  # the folder of a class, in Latin-1
MODEL = "/v2/models/densenet40"
Answer = tuple[int, list[tuple[bytes, bytes]], bytes]  # status, headers, body


def image_of(folder: Path) -> bytes:
    return min((folder / "val").rglob("*.png")).read_bytes()


def asked(
    weights: Path, requests: Sequence[tuple[str, bytes]], task: Task | None = None
) -> list[tuple[int, bytes]]:
    """Status and body of the application for each path and body, one after the other."""
    return [(status, body) for status, _, body in answers_of(weights, requests, task)]


def answers_of(
    weights: Path, requests: Sequence[tuple[str, bytes]], task: Task | None = None
) -> list[Answer]:
    """The same with the headers."""

    async def answer(app: Any, path: str, body: bytes) -> Answer:
        scope: dict[str, Any] = {
            "type": "http",
            "method": "POST" if body else "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [],
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        with contextlib.suppress(ZeroDivisionError):  # Starlette answers, and raises it once more
            await app(scope, receive, send)
        body = b"".join(one.get("body", b"") for one in sent)
        return int(sent[0]["status"]), list(sent[0]["headers"]), body

    async def all_of_them() -> list[Answer]:
        predictor = Predictor(weights, device="cpu", amp="fp32", batch_size=1, task=task)
        service = Service(predictor, ServeConfig(weights=str(weights)), workers=1, streams=1)
        app = make_app(service)
        try:
            return [await answer(app, *request) for request in requests]
        finally:
            service.close()

    return asyncio.run(all_of_them())


def test_classes_whose_names_are_not_utf_8_are_answered_as_by_predict(
    tmp_path: Path, image_folder: Path
) -> None:
    weights = write_weights(tmp_path / "w.safetensors", class_names=(LATIN, "große", "c"))
    image = image_of(image_folder)
    tensor: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [1]}
    tensor |= {"parameters": {"content_type": "base64"}, "data": [base64.b64encode(image).decode()]}
    infer = {"inputs": [tensor], "outputs": [{"name": "answer"}]}
    binary = infer | {"parameters": {"binary_data_output": True}}
    found = asked(
        weights,
        [
            ("/predict", image),
            (MODEL, b""),
            (f"{MODEL}/infer", json.dumps(infer).encode()),
            (f"{MODEL}/infer", json.dumps(binary).encode()),
        ],
    )
    assert [status for status, _ in found] == [200] * 4
    (expected,) = Predictor(weights, amp="fp32").predict([image])
    (answer,) = json.loads(found[0][1])["predictions"]
    assert answer["top"] == expected.to_json()["top"]
    assert json.loads(found[1][1])["parameters"]["class_names"] == [LATIN, "große", "c"]
    (text,) = json.loads(found[2][1])["outputs"][0]["data"]
    assert json.loads(text)["top"] == answer["top"]
    data = found[3][1]
    sent = data[data.rindex(b'{"predicted"') :]
    assert json.loads(sent)["top"] == answer["top"]


def test_half_of_a_character_from_a_client_is_a_400_that_names_it(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    ((status, body),) = asked(weights, [(f"{MODEL}/infer", b'{"\\ud800": 1}')])
    assert status == 400 and "\ud800" in json.loads(body)["error"]


def test_a_fault_of_the_server_is_one_line_of_its_log(
    tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    error = ZeroDivisionError("in two\nlines")
    task = failing(lambda logits, _: bool(logits.any()), error)  # for real images
    ((status, body),) = asked(weights, [("/predict", image_of(image_folder))], task)
    reason = "the server failed: ZeroDivisionError: in two lines"
    assert (status, json.loads(body)) == (500, {"error": reason})
    assert capsys.readouterr().err == f"densenet121: a request failed (500): {reason}\n"


def test_a_fault_of_the_server_is_counted_and_marked_as_other_answers_are(
    tmp_path: Path, image_folder: Path
) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    task = failing(lambda logits, _: bool(logits.any()), ZeroDivisionError())
    requests = [("/predict", image_of(image_folder)), ("/healthz", b""), ("/metrics", b"")]
    fault, health, metrics = answers_of(weights, requests, task)
    assert [status for status, _, _ in (fault, health)] == [500, 200]
    for _, headers, _ in (fault, health):
        assert headers.count((b"x-content-type-options", b"nosniff")) == 1
    text = metrics[2].decode()
    assert 'densenet121_answers_total{status="500"} 1.0\n' in text
    assert 'densenet121_answers_total{status="200"} 1.0\n' in text


def test_the_server_says_what_is_assumed_of_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.pth"
    torch.save(build("densenet40", num_classes=1, in_channels=1).state_dict(), path)
    remarks = Predictor(path, net="densenet40", amp="fp32").classifier.remarks
    announce(ServeConfig(weights=str(path)), "127.0.0.1", 8000, remarks)
    first, *others = capsys.readouterr().err.splitlines()
    assert "is ready on http://127.0.0.1:8000/" in first
    assert len(others) == 2 and "one label" in others[0] and "one grey channel" in others[1]


def test_the_page_offers_every_format_that_is_read(tmp_path: Path) -> None:
    ((status, page),) = asked(write_weights(tmp_path / "w.safetensors"), [("/", b"")])
    found = re.search(rb'type="file"[^>]*accept="([^"]+)"', page)
    assert status == 200 and found
    offered = set(found[1].decode().split(","))
    of_browsers = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif"}  # "image/*" has them
    assert "image/*" in offered and offered | of_browsers >= EXTENSIONS
