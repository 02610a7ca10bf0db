"""How bodies of requests are held: what has arrived counts, not what was announced."""

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from densenet121.bench.serve import running_server

from helpers.commands import environment
from helpers.serving import ask
from helpers.weights import write_weights

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")


def test_bodies_that_never_arrive_keep_nobody_out(tmp_path: Path, image_folder: Path) -> None:
    """With the default limits, 32 of them were as many bodies as may be held."""
    image = next((image_folder / "val").rglob("*.png")).read_bytes()
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 16000000\r\n\r\nabc"
    weights = write_weights(tmp_path / "w.safetensors")
    with ExitStack() as stack:
        port, _ = stack.enter_context(
            running_server(weights, "--amp", "fp32", environment=environment())
        )
        for _ in range(64):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(head)
        for _ in range(3):
            status, content, _ = ask(port, image)
            assert status == 200, content
        assert "densenet121_body_bytes 192.0" in ask(port, None, "/metrics", "GET")[1]


def test_a_body_for_which_there_is_no_room_is_refused_and_not_kept() -> None:
    from starlette.requests import Request

    from densenet121.serve.bodies import Refusal, read_body

    parts = iter([b"a" * 100] * 5)
    held: list[int] = []

    async def receive() -> dict[str, Any]:
        part = next(parts, b"")
        return {"type": "http.request", "body": part, "more_body": bool(part)}

    def hold(size: int) -> None:
        if sum(held) + size > 250:
            raise Refusal(503, "no room")
        held.append(size)

    request = Request({"type": "http", "headers": []}, receive)
    with pytest.raises(Refusal, match="no room"):
        asyncio.run(read_body(request, 1000, 10, hold))
    assert held == [100, 100] and next(parts, None) is None
