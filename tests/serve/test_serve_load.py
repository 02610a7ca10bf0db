"""The server after 10,000 requests, good and bad: alive, right, and no larger than before."""

import asyncio
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from densenet121.bench.serve import running_server

from helpers.commands import environment
from helpers.serving import FLAGS, ask, bad_requests
from helpers.weights import write_weights

pytestmark = pytest.mark.serve

REQUESTS, CLIENTS = 10_000, 32
SLOW = 0.004  # share of requests whose body stops half-way, held for --body_seconds
GONE = 0.02  # share whose client leaves before the answer


def memory(port: int) -> float:
    text = ask(port, None, "/metrics", "GET")[1]
    return float(re.findall(r"^process_resident_memory_bytes (.*)$", text, re.MULTILINE)[0])


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    body = await reader.readexactly(int(re.findall(rb"content-length: (\d+)", head)[0]))
    return int(head.split()[1]), body


async def one(port: int, body: bytes, kind: str, *, sent: int | None, wait: bool) -> int:
    """The status of a request of which only ``sent`` bytes go out; 0 for a client that leaves."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}{kind}\r\n".encode() + body[:sent])
    if not wait:
        await writer.drain()
        writer.transport.abort()
        return 0
    status, said = await answer(reader)
    assert (status == 200) == (b'"predictions"' in said), said
    assert (status != 200) == (b'"error"' in said), said
    writer.close()
    return status


async def crowd(
    port: int, count: int, image_folder: list[bytes], seed: int
) -> Counter[tuple[int, int]]:
    """How often which status was expected and came."""
    rng = random.Random(seed)
    bad = bad_requests(image_folder[0])
    found: Counter[tuple[int, int]] = Counter()

    async def client(share: int) -> None:
        for _ in range(share):
            luck = rng.random()
            image = rng.choice(image_folder)
            if luck < SLOW:
                expected, said = 408, await one(port, image, "", sent=100, wait=True)
            elif luck < SLOW + GONE:
                expected, said = 0, await one(port, image, "", sent=None, wait=False)
            elif luck < 0.6:
                expected, said = 200, await one(port, image, "", sent=None, wait=True)
            else:
                expected, _, body, headers = rng.choice(bad)
                kind = "".join(f"Content-Type: {value}\r\n" for value in headers.values())
                said = await one(port, body, kind, sent=None, wait=True)
            found[expected, said] += 1

    await asyncio.gather(*(client(count // CLIENTS) for _ in range(CLIENTS)))
    return found


def test_ten_thousand_requests_good_and_bad_leave_no_trace(
    image_folder: Path, tmp_path: Path
) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    data = [path.read_bytes() for path in sorted((image_folder / "val").rglob("*.png"))]
    with running_server(weights, *FLAGS, environment=environment()) as (port, process):
        asyncio.run(crowd(port, 1_500, data, seed=1))
        start = memory(port)
        found = asyncio.run(crowd(port, REQUESTS, data, seed=2))
        end = memory(port)
        print(f"\nmemory at the start {start / 1e6:.1f} MB, at the end {end / 1e6:.1f} MB")
        print(dict(sorted(Counter(said for _, said in found.elements()).items())))
        assert process.poll() is None
        assert all(expected == said for expected, said in found), found
        assert found.total() >= REQUESTS - CLIENTS
        assert end - start < 20e6
        text = ask(port, None, "/metrics", "GET")[1]
        for gauge in ("waiting_pictures", "body_bytes"):
            assert re.search(rf"^densenet121_{gauge} 0.0$", text, re.MULTILINE), text
        assert 'status="500"' not in text
        assert ask(port, data[0])[0] == 200
