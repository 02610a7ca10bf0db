"""A server under load over real HTTP: ``python -m campaigns.serve_load`` from tests/; ``make
test-serve-load`` runs it.

Clients, each with a connection, send good requests, bad ones and nonsense; some are slow, some
leave in the middle. A fault is a status 5xx (but 503, which asks to come again), a whole
request without its answer, a good image without its prediction, or a server that keeps memory
or descriptors.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaigns import image_cases
from densenet121.bench.serve import running_server

from helpers.commands import environment
from helpers.serving import FLAGS, bad_requests
from helpers.weights import write_weights

_ANSWER_SECONDS = 120  # of a busy server; a client that waits longer has lost its request
_BODY_SECONDS = 30  # the clients share the processor with the server, and may be slow themselves
_MEMORY = 30e6  # bytes that the server may grow by after its first fifth of the time
# Requests that two readers could understand differently, and other nonsense; each closes.
_NONSENSE = (
    b"GET / HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
)


@dataclass
class Load:
    """What the clients saw.

    Attributes:
        outcomes: kind of request and status, how often.
        faults: what was wrong; the first hundred.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def note(self, kind: str, status: int, expected: Sequence[int], said: bytes = b"") -> None:
        """Count an answer; one that is not as expected is a fault."""
        self.outcomes[f"{kind} {status}"] += 1
        if status != 503 and (status not in expected if expected else status >= 500):
            self.fault(f"{kind}: status {status} {said[:200]!r}")

    def fault(self, text: str) -> None:
        """Keep what was wrong."""
        if len(self.faults) < 100:
            self.faults.append(text)


class Client:
    """One client after another on a connection, which is opened again when it was closed."""

    def __init__(self, port: int, load: Load, rng: random.Random, images: list[bytes]) -> None:
        self.port, self.load, self.rng, self.images = port, load, rng, images
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, until: float) -> None:
        """Requests until then."""
        while time.monotonic() < until:
            kind = self.rng.choices(
                ("good", "bad", "damaged", "nonsense", "slow", "gone", "half"),
                (50, 25, 15, 3, 1, 3, 3),
            )[0]
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await getattr(self, f"_{kind}")()
            except TimeoutError:
                self.load.fault(f"{kind}: no answer within {_ANSWER_SECONDS} s")
                self._close()
            except (OSError, asyncio.IncompleteReadError) as error:
                self.load.fault(f"{kind}: no answer ({type(error).__name__}: {error})")
                self._close()
        self._close()

    async def _good(self) -> None:
        body = self.rng.choice(self.images)
        status, said = await self._ask(_request(body))
        self.load.note("good", status, (200,), said)
        if status == 200 and b'"predictions"' not in said:
            self.load.fault(f"good: no prediction in {said[:200]!r}")

    async def _bad(self) -> None:
        expected, reason, body, headers = self.rng.choice(_bad(self.images[0]))
        status, said = await self._ask(_request(body, headers.get("content_type", "")))
        self.load.note("bad", status, (expected,), said)
        if status == expected and reason not in json.loads(said)["error"]:
            self.load.fault(f"bad: {reason!r} is not in {said[:200]!r}")

    async def _damaged(self) -> None:
        status, said = await self._ask(_request(image_cases.make(self.rng)[1][:150_000]))
        self.load.note("damaged", status, (), said)
        json.loads(said)

    async def _nonsense(self) -> None:
        """It need not be answered, but the connection ends."""
        reader, writer = await self._fresh()
        writer.write(self.rng.choice(_NONSENSE))
        said = b""
        with contextlib.suppress(ConnectionResetError):
            said = await reader.read(65536)
        found = re.match(rb"HTTP/1.1 (\d+)", said)
        self.load.note("nonsense", int(found[1]) if found else 0, (0, 400, 404, 408, 431))
        self._close()

    async def _slow(self) -> None:
        reader, writer = await self._fresh()
        writer.write(_request(self.images[0])[:-20])
        self.load.note("slow", (await _answer(reader))[0], (408,))
        self._close()

    async def _gone(self) -> None:
        _, writer = await self._fresh()
        writer.write(_request(self.rng.choice(self.images)))
        await asyncio.sleep(self.rng.choice((0, 0.01, 0.1)))
        writer.transport.abort()
        self.streams = None
        self.load.outcomes["gone"] += 1

    async def _half(self) -> None:
        """A client that closes its half after a whole request still reads the answer, or none."""
        reader, writer = await self._fresh()
        writer.write(_request(self.rng.choice(self.images)))
        said = b""
        with contextlib.suppress(OSError):  # the server may be first
            writer.write_eof()
            said = await reader.read(65536)
        self.load.note("half", int(said.split()[1]) if said else 0, (0, 200))
        self._close()

    async def _ask(self, request: bytes) -> tuple[int, bytes]:
        reader, writer = self.streams or await self._fresh()
        writer.write(request)
        status, said, stays = await _answer(reader)
        if not stays:
            self._close()
        return status, said

    async def _fresh(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._close()
        self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        return self.streams

    def _close(self) -> None:
        if self.streams:
            self.streams[1].close()
        self.streams = None


@functools.cache
def _bad(image: bytes) -> list[tuple[int, str, bytes, dict[str, str]]]:
    """Made once: it takes long, and a client that does not read is a slow one."""
    return bad_requests(image)


def _request(body: bytes, kind: str = "") -> bytes:
    named = f"Content-Type: {kind}\r\n" if kind else ""
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\n{named}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Status, body, and whether the connection stays."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    body = await reader.readexactly(int(re.findall(rb"content-length: (\d+)", head)[0]))
    return int(head.split()[1]), body, b"connection: close" not in head


def state(process: int) -> dict[str, int]:
    """Bytes of memory and number of descriptors of the server."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    descriptors = len(list(Path(f"/proc/{process}/fd").iterdir()))
    return {"memory": pages * resource.getpagesize(), "descriptors": descriptors}


async def crowd(port: int, load: Load, seed: str, clients: int, seconds: float) -> None:
    """All clients for so long."""
    images = [file for kind in ("jpeg", "png", "webp") for file in image_cases.corpus()[kind]]
    _bad(images[0])
    until = time.monotonic() + seconds

    async def one(number: int) -> None:
        rng = random.Random(f"{seed}/{number}")
        await asyncio.sleep(rng.uniform(0, min(5, seconds / 4)))  # not all in one moment
        await Client(port, load, rng, images).run(until)

    await asyncio.gather(*map(one, range(clients)))


def run(folder: Path, seed: int, clients: int, seconds: float) -> dict[str, Any]:
    """Load a server of its own, and say what came of it."""
    load, states = Load(), []
    weights = write_weights(folder / "w.safetensors")
    flags = [*FLAGS[: FLAGS.index("--body_seconds")], "--body_seconds", _BODY_SECONDS]
    with running_server(weights, *flags, environment=environment()) as (port, process):
        for part, share in (("first", 0.2), ("rest", 0.8)):
            asyncio.run(crowd(port, load, f"{seed}/{part}", clients, share * seconds))
            time.sleep(3)  # the server closes what its clients left
            states.append(state(process.pid))
        first, last = states
        if last["memory"] - first["memory"] > _MEMORY:
            load.fault(f"memory grew from {first['memory']} to {last['memory']} bytes")
        if last["descriptors"] > first["descriptors"] + 3:
            load.fault(f"descriptors grew from {first['descriptors']} to {last['descriptors']}")
        alive = process.poll() is None
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
        if not alive or status not in (0, 143, -signal.SIGTERM):
            load.fault(f"the server ended with status {status}")
    return {
        "seed": seed,
        "clients": clients,
        "seconds": seconds,
        "requests": load.outcomes.total(),
        "outcomes": dict(sorted(load.outcomes.items())),
        "after the first fifth": states[0],
        "at the end": states[1],
        "faults": load.faults,
    }


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=1000, help="connections; at most 1024")
    parser.add_argument("--json", type=Path, help="file for the result")
    given = parser.parse_args(arguments)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), given.seed, given.clients, given.seconds)
    text = json.dumps(result, indent=1)
    print(text)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(text + "\n")
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
