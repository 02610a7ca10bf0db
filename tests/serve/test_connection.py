"""A connection of the server, beyond what uvicorn's does."""

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from densenet121.bench.serve import running_server

from helpers.commands import environment
from helpers.serving import FLAGS, ask
from helpers.weights import write_weights

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    weights = write_weights(tmp_path_factory.mktemp("weights") / "w.safetensors")
    with running_server(weights, *FLAGS, environment=environment()) as (port, _):
        yield port


def said(port: int, *pieces: bytes) -> bytes:
    """All that the server answers, until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        for piece in pieces:
            client.sendall(piece)
            time.sleep(0.02)
        client.settimeout(10)
        answer = b""
        while part := client.recv(65536):
            answer += part
        return answer


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d+)", answer)]


HTTP_2 = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
WEBSOCKET = b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"
LAST = b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("offer", [HTTP_2, WEBSOCKET], ids=["HTTP/2", "WebSocket"])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [10, 100_000])
def test_a_request_that_offers_another_protocol_is_answered_with_its_body(
    offer: bytes, chunked: bool, size: int, port: int, image_folder: Path
) -> None:
    """curl --http2 and Java's client offer it; their images were "the body is empty"."""
    body = next((image_folder / "val").rglob("*.png")).read_bytes() + bytes(size)
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\n" + offer
    request = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    if chunked:
        request = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
            len(body), body,
        )  # fmt: skip
    for pieces in ([request * 3 + LAST], [request[:90], request[90:400], request[400:] + LAST]):
        answer = said(port, *pieces)
        count = 3 if len(pieces) == 1 else 1
        assert statuses(answer) == [200] * (count + 1), answer
        assert answer.count(b'"predictions"') == count


def test_an_offer_does_not_keep_a_connection_open_that_the_client_closes(port: int) -> None:
    head = b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n"
    assert statuses(said(port, head)) == [200]
    assert statuses(said(port, b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n")) == [400]


def test_answers_of_the_connection_are_json_and_counted(port: int) -> None:
    def counted(status: int) -> float:
        text = ask(port, None, "/metrics", "GET")[1]
        found = re.findall(rf'^densenet121_answers_total{{status="{status}"}} (.*)$', text, re.M)
        return float(found[0]) if found else 0.0

    long = b"GET / HTTP/1.1\r\nX: " + b"a" * 66_000
    for status, request in ((400, b"nonsense\r\n\r\n"), (408, b"GET /"), (431, long)):
        before = counted(status)
        answer = said(port, request)
        assert statuses(answer) == [status] and b'\r\n\r\n{"error": "' in answer, answer
        assert counted(status) == before + 1


async def answers(scope: object, receive: object, send: object) -> None:
    """An application whose every answer is larger than what the system keeps of it."""
    size = 16 * 2**20
    headers = [(b"content-length", b"%d" % size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": bytes(size)})  # type: ignore[operator]


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
def test_a_client_that_reads_nothing_of_its_answer_is_let_go(close: bytes) -> None:
    """It held its connection for ever, and 1,024 of them were all that there are."""
    import uvicorn

    from densenet121.serve.connection import Connection

    request = b"GET / HTTP/1.1\r\nHost: x\r\n" + close + b"\r\n"

    class Quick(Connection):
        reading_seconds = 0.3

    async def run() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(answers, http=Quick, lifespan="off", ws="none", log_config=None)
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        address = listener.getsockname()
        idle = await asyncio.open_connection(*address, limit=1024)
        slow = await asyncio.open_connection(*address, limit=1024)
        for _, writer in (idle, slow):
            writer.write(request)
        received = 0
        while received < 16 * 2**20:  # for longer than the limit, but always something
            received += len(await slow[0].read(2**20))
            await asyncio.sleep(0.001)
        slow[1].close()
        async with asyncio.timeout(10):
            while server.server_state.connections:
                await asyncio.sleep(0.05)
        idle[1].close()
        server.should_exit = True
        await running

    asyncio.run(run())
