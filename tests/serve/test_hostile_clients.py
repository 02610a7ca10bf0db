"""Clients that are slow, many, half gone, or say two things at once."""

import io
import re
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from PIL import Image

from densenet121.bench.serve import running_server

from helpers.commands import environment
from helpers.serving import FLAGS, ask, bomb
from helpers.weights import write_weights

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The port and the process of a server whose requests must arrive within 1.5 s."""
    weights = write_weights(tmp_path_factory.mktemp("weights") / "w.safetensors")
    with running_server(weights, *FLAGS, environment=environment()) as (port, process):
        yield port, process.pid


def image() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 20), (200, 10, 10)).save(file, "PNG")
    return file.getvalue()


def said(port: int, *pieces: bytes, pause: float = 0.0, close_write: bool = False) -> bytes:
    """All that the server answers to bytes on one connection, until it closes it."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        answer = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
            if close_write:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                answer += part
        except (ConnectionResetError, BrokenPipeError):
            pass
        return answer


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", answer)]


def descriptors(process: int) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
SECOND = b"GET /model HTTP/1.1\r\nHost: x\r\n\r\n"
# Two readers could see different ends of the first request; the second may never be answered.
SHAPES = {
    "a length and chunks": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 4\r\nContent-Length: 0\r\n\r\n",
    "two lengths in one": b"Content-Length: 4, 0\r\n\r\n",
    "a signed length": b"Content-Length: +0\r\n\r\n",
    "a negative length": b"Content-Length: -1\r\n\r\n",
    "a length in hexadecimal": b"Content-Length: 0x0\r\n\r\n",
    "a length beyond 64 bits": b"Content-Length: 18446744073709551616\r\n\r\n",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n",
    "chunked not last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a blank before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded header": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a bare return": b"X: a\rContent-Length: 0\r\n\r\n",
    "a zero byte": b"X: a\0b\r\nContent-Length: 0\r\n\r\n",
    "a chunk of a wrong size": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "a chunk of no size": b"Transfer-Encoding: chunked\r\n\r\n\r\n\r\n",
    "a chunk with a sign": b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_request_of_two_readings_is_refused_and_what_follows_is_not_answered(
    shape: str, server: tuple[int, int]
) -> None:
    found = statuses(said(server[0], HEAD + SHAPES[shape] + SECOND))
    assert len(found) <= 1 and 200 not in found, found


def test_a_length_of_thousands_of_digits_is_a_number_or_refused(server: tuple[int, int]) -> None:
    port, _ = server
    body = image()
    head = HEAD + b"Connection: close\r\nContent-Length: " + b"0" * 6000
    assert statuses(said(port, head + b"%d\r\n\r\n" % len(body) + body)) == [200]
    other = b"POST /v2/models/densenet40/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    for digit in (b"0", b"9"):
        length = b"Inference-Header-Content-Length: " + digit * 6000 + b"\r\n"
        assert statuses(said(port, other + length + b"Content-Length: 2\r\n\r\n{}")) == [400]


def test_headers_and_request_lines_have_an_end(server: tuple[int, int]) -> None:
    port, _ = server
    long = b"GET /" + b"a" * 100_000
    assert statuses(said(port, long, b" HTTP/1.1\r\n\r\n")) in ([431], [])
    # Whole, in one piece: what is too large is not let through because it came quickly.
    large = HEAD + b"X: " + b"a" * 65_500 + b"\r\n" + b"Content-Length: 0\r\n\r\n"
    assert statuses(said(port, large)) in ([431], [])
    body = image()
    allowed = HEAD + b"X: " + b"a" * 60_000 + b"\r\nConnection: close\r\n"
    allowed += b"Content-Length: %d\r\n\r\n" % len(body)
    assert statuses(said(port, allowed + body)) == [200]
    two = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    assert statuses(said(port, two + allowed + body)) == [200, 200]
    many = HEAD + b"".join(b"X%d: a\r\n" % number for number in range(9_000)) + b"\r\n"
    assert statuses(said(port, many)) in ([431], [])
    assert ask(port, image())[0] == 200


@pytest.mark.parametrize(
    "start",
    [b"", b"GET /", b"GET / HTTP/1.1\r\nHost: x\r\n", HEAD + b"Content-Length: 100\r\n\r\nabc"],
    ids=["nothing", "half a line", "half a head", "half a body"],
)
def test_a_slow_client_is_told_and_let_go(start: bytes, server: tuple[int, int]) -> None:
    """One byte now and then does not help it."""
    port, _ = server
    begun = time.monotonic()
    drip = [b"a"] * 4 if start else []
    assert statuses(said(port, start, *drip, pause=0.25)) == [408]
    assert time.monotonic() - begun < 30
    assert ask(port, image())[0] == 200


def test_hundreds_of_slow_clients_keep_nobody_out_and_leave_nothing(
    server: tuple[int, int],
) -> None:
    port, process = server
    ask(port, image())
    before = descriptors(process)
    with ExitStack() as stack:
        for number in range(300):
            client = socket.create_connection(("127.0.0.1", port), timeout=60)
            stack.enter_context(client)
            client.sendall((b"G", HEAD, HEAD + b"Content-Length: 9\r\n\r\nab")[number % 3])
        for _ in range(5):
            assert ask(port, image())[0] == 200
    until = time.monotonic() + 30
    while descriptors(process) > before and time.monotonic() < until:
        time.sleep(0.1)
    assert descriptors(process) <= before


def resident(process: int) -> int:
    """Bytes of memory that a process has."""
    return 4096 * int(Path(f"/proc/{process}/statm").read_text().split()[1])


def test_requests_that_nobody_reads_the_answers_of_take_no_memory(server: tuple[int, int]) -> None:
    port, process = server
    ask(port, image())
    before = resident(process)
    with socket.create_connection(("127.0.0.1", port), timeout=3) as client:
        with suppress(TimeoutError):  # the server reads no more
            for _ in range(60):
                client.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        assert ask(port, image())[0] == 200
        assert resident(process) - before < 24 * 2**20


def test_pipelined_requests_are_answered_in_their_order(server: tuple[int, int]) -> None:
    port, _ = server
    body = image()
    post = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    requests = [b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n", post, SECOND] * 100
    requests.append(b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = said(port, b"".join(requests))
    assert statuses(answer) == [200] * len(requests)
    found = re.findall(rb'\r\n\r\n{"(\w+)"', answer)
    assert found == [b"name", b"predictions", b"net"] * 100 + [b"name"]


def test_a_client_that_closes_its_half_leaves_nothing(server: tuple[int, int]) -> None:
    port, process = server
    ask(port, image())
    before = descriptors(process)
    body = image()
    whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    for request in (whole, whole[:-5], HEAD, b"", whole + HEAD):
        # A complete request may be answered; a part of one never is.
        found = statuses(said(port, request, close_write=True))
        assert found in ([], [200], [400], [408]), found
        assert 200 not in found or request.startswith(whole)
    until = time.monotonic() + 30
    while descriptors(process) > before and time.monotonic() < until:
        time.sleep(0.1)
    assert descriptors(process) <= before
    assert ask(port, image())[0] == 200


def tiff_bomb() -> bytes:
    """20,000 x 20,000 pixels of zeros, deflated."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "TIFF", compression="tiff_adobe_deflate")
    return file.getvalue()


def with_text(size: int) -> bytes:
    """A small PNG with a compressed comment and profile of so many bytes."""
    import struct

    data = image()
    blown = zlib.compress(bytes(size), 9)
    chunks = b""
    for kind, content in ((b"zTXt", b"a\0\0" + blown), (b"iCCP", b"a\0\0" + blown)):
        checked = kind + content
        chunks += struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))
    return data[:33] + chunks + data[33:]


def gif_bomb() -> bytes:
    file = io.BytesIO()
    Image.new("L", (30_000, 3_000)).save(file, "GIF")
    return file.getvalue()


def webp_bomb() -> bytes:
    file = io.BytesIO()
    Image.new("L", (16_000, 2_000)).save(file, "WEBP", lossless=True)
    return file.getvalue()


def bmp_claim() -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "BMP")
    data = bytearray(file.getvalue())
    data[18:26] = (60_000).to_bytes(4, "little") * 2
    return bytes(data)


BOMBS: dict[str, Callable[[], bytes]] = {
    "png": lambda: bomb(30_000, 30_000),
    "tiff": tiff_bomb,
    "gif": gif_bomb,
    "webp": webp_bomb,
    "bmp": bmp_claim,
    "ppm": lambda: b"P5 60000 60000 255\n\0",
}


@pytest.mark.parametrize("name", BOMBS)
def test_an_image_that_would_become_huge_is_refused_by_its_header(
    name: str, server: tuple[int, int]
) -> None:
    port, process = server
    data = BOMBS[name]()
    assert len(data) < 200_000
    before = peak(process)
    status, content, _ = ask(port, data)
    assert status == 413 and "limit" in content["error"], content
    assert peak(process) - before < 50_000_000


def test_compressed_comments_are_not_unpacked(server: tuple[int, int]) -> None:
    port, process = server
    before = peak(process)
    assert ask(port, with_text(60_000_000))[0] == 200
    assert peak(process) - before < 50_000_000


def peak(process: int) -> int:
    """The most memory that it has had, in bytes."""
    text = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert found
    return int(found[1]) * 1024
