"""Requests against the server's application, in this process."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import torch

from campaigns.campaign import Target
from campaigns.image_cases import corpus
from campaigns.mutation import damaged
from densenet121.config import ServeConfig
from densenet121.inference.predictor import Predictor

from helpers.serving import FORM, bomb, form
from helpers.weights import write_weights

Request = tuple[str, str, bytes, list[tuple[bytes, bytes]], list[bytes]]
_RUNNING: list[tuple[asyncio.AbstractEventLoop, Any, Any]] = []  # loop, service, application
_PATHS = ("/predict",) * 12 + (
    "/",
    "/healthz",
    "/model",
    "/metrics",
    "/docs",
    "/no",
    "/openapi.json",
)
_QUERIES = (
    *("top_k=1", "top_k=0", "top_k=x", "coverage=0.5", "coverage=2", "cam=1", "cam=maybe", "z=1"),
    *("top_k=" + "9" * 400, "top_k=1&top_k=2", "%00=%ff", "cam=true&coverage=nan", "=", "&&"),
)


def load(folder: Path) -> None:
    """Make the application once."""
    from densenet121.serve.app import make_app
    from densenet121.serve.service import Service

    torch.set_num_threads(1)
    weights = write_weights(folder / "served.safetensors")
    config = ServeConfig(
        weights=str(weights), max_bytes=60_000, max_pixels=100_000, max_pictures=4, body_seconds=5
    )
    service = Service(Predictor(weights, device="cpu", amp="fp32"), config, workers=1, streams=1)
    _RUNNING[:] = [(asyncio.new_event_loop(), service, make_app(service))]


def close() -> None:
    """End the application's threads, where it was made in a process that goes on."""
    for loop, service, _ in _RUNNING:
        service.close()
        loop.close()
    _RUNNING.clear()


def make(rng: random.Random) -> Request:
    """A request with an image, a form, or nonsense; then damage."""
    files = [file for found in corpus().values() for file in found]
    image = rng.choice(files)
    kind: bytes = rng.choice(
        (b"application/octet-stream", b"image/png", b"", b"\xff", b"text/html")
    )
    if rng.random() < 0.6:
        names = ("a.png", None, "", 'x"y', "é" * 50, "\0", "a\r\nb: c", "../../x", "%00")
        parts = [
            (rng.choice(names), rng.choice((*files, b"", b"--xx", b"\r\n--xx--")))
            for _ in range(rng.randrange(6))
        ]
        image, kind = form(parts, end=rng.random() < 0.9), FORM["content_type"].encode()
        if rng.random() < 0.1:
            extended = b"filename*=" + rng.choice(
                (b"utf-8''a%zz", b"x''y", b"'''", b"UTF-8'en'%e2%82")
            )
            image = image.replace(b"filename=", extended + b"; filename=", 1)
    elif rng.random() < 0.05:
        image = bomb(rng.choice((10, 30_000)), rng.choice((10, 30_000)))
    if rng.random() < 0.7:
        image = damaged(rng, image, files)
    if rng.random() < 0.1:
        kind = damaged(rng, kind)
    headers = [(b"host", b"x"), (b"content-type", kind)]
    if rng.random() < 0.5:  # the parser of HTTP admits digits only
        headers.append((b"content-length", str(rng.choice((len(image), 0, 10**20))).encode()))
    for _ in range(rng.randrange(3)):
        headers.append(
            (rng.choice((b"range", b"accept", b"x", b"")), rng.randbytes(rng.randrange(30)))
        )
    path = rng.choice(_PATHS)
    method = "POST" if path == "/predict" else "GET"
    if rng.random() < 0.05:
        method = rng.choice(("HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "GET", "POST", "X"))
    cuts = sorted(rng.randrange(len(image) + 1) for _ in range(rng.randrange(4)))
    pieces = [image[a:b] for a, b in zip([0, *cuts], [*cuts, len(image)], strict=True)]
    query = rng.choice(_QUERIES) if rng.random() < 0.3 else ""
    return method, path, query.encode(), headers, pieces


def run(case: Request) -> str:
    """A status that is not the server's fault, and a body that is what its type says."""
    loop, _, app = _RUNNING[0]
    status, headers, body = loop.run_until_complete(_answer(app, case))
    assert status < 500, (status, body[:500])
    if b"json" in headers.get(b"content-type", b"") and case[0] != "HEAD":
        said = json.loads(body)
        assert (status < 400) != ("error" in said), (status, said)
        assert status < 400 or "\n" not in said["error"].strip(), said
    assert headers[b"x-content-type-options"] == b"nosniff"
    return f"status {status}"


async def _answer(app: Any, case: Request) -> tuple[int, dict[bytes, bytes], bytes]:
    method, path, query, headers, pieces = case
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": headers,
        "client": ("127.0.0.1", 9),
        "server": ("127.0.0.1", 8000),
    }
    left = list(pieces)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if left:
            piece = left.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(left)}
        await asyncio.sleep(10)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return int(sent[0]["status"]), dict(sent[0]["headers"]), body


def targets(folder: Path) -> list[Target]:
    """Of this file; ``folder`` is for files."""
    return [Target("requests", make, run, lambda: load(folder))]
