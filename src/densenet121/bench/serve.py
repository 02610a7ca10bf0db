"""The server under load: ``python -m densenet121.bench.serve WEIGHTS --data_dir FOLDER``.

Starts ``densenet121 serve`` in another process and sends images as raw bytes over kept-alive
connections; each client sends its next image when it has the answer. In turns with that, it
measures the network alone as in ``bench infer``, in the same arithmetic and with the server's
largest batch. Server, clients and network share all cores; the clients' share is reported.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import cv2
import torch

from densenet121.bench.quantiles import quantiles
from densenet121.datasets.decoding import read_image
from densenet121.datasets.sources.folder import scan
from densenet121.device import arithmetic
from densenet121.inference.predictor import Predictor
from densenet121.network import constant_network
from densenet121.utils.memory import keep_freed_memory


@dataclass(frozen=True)
class Load:
    """Measurements with a number of clients.

    Attributes:
        clients: number of connections, each with one request at a time.
        requests: number of answered requests, all with status 200.
        images_per_second: of all clients together.
        p50_milliseconds: median time from the first byte of a request to the last of its answer.
        p99_milliseconds: 99 % quantile of the same.
        client_share: processor time of the clients divided by elapsed time, in cores.
    """

    clients: int
    requests: int
    images_per_second: float
    p50_milliseconds: float
    p99_milliseconds: float
    client_share: float


@contextlib.contextmanager
def running_server(
    weights: Path, *flags: object, environment: dict[str, str] | None = None
) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """A server on a free port of loopback, and its process; stopped by SIGTERM at the end.

    Raises:
        RuntimeError: it did not start; the text is its output.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "densenet121", "serve", weights, "--port", "0", *map(str, flags)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"is ready on https?://.*:(\d+)/ ", line)
        if not found:
            raise RuntimeError(line + process.stderr.read())
        yield int(found[1]), process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            process.kill()
        process.communicate()


async def load(port: int, bodies: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Keep ``clients`` busy for ``seconds``.

    Raises:
        RuntimeError: an answer other than 200.
    """
    requests = [
        b"POST /predict?top_k=5 HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n%b" % (len(b), b)
        for b in bodies
    ]
    latencies: list[float] = []
    processor, start = time.process_time(), time.perf_counter()

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = number * 7919
        while time.perf_counter() - start < seconds:
            sent = time.perf_counter()
            writer.write(requests[turn % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError((head + body).decode())
            latencies.append(time.perf_counter() - sent)
            turn += 1
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(client(number) for number in range(clients)))
    passed = time.perf_counter() - start
    middle, slow = quantiles(latencies, (0.5, 0.99))
    return Load(
        clients=clients,
        requests=len(latencies),
        images_per_second=len(latencies) / passed,
        p50_milliseconds=1000 * middle,
        p99_milliseconds=1000 * slow,
        client_share=(time.process_time() - processor) / passed,
    )


def network_alone(predictor: Predictor, seconds: float) -> float:
    """Images per second of the network in full batches, without normalisation."""
    classifier = predictor.classifier
    images = torch.randint(
        0, 255, (predictor.batch_size, *predictor.pixels_size, 3), dtype=torch.uint8
    )
    images = classifier.preprocessing.normalise(images)
    times: list[float] = []
    fixed = constant_network(classifier.model)
    with fixed, torch.inference_mode(), arithmetic(predictor.device, predictor.precision):
        while len(times) < 5 or sum(times) < seconds:
            start = time.perf_counter()
            classifier.model(images)
            times.append(time.perf_counter() - start)
    return predictor.batch_size / statistics.median(times[1:])


def bodies_of(folder: Path, size: tuple[int, int], count: int = 256) -> list[bytes]:
    """Images of a folder as JPEG files (quality 90) in the network's image size."""
    found = [folder / path for path in scan(folder).paths]
    chosen = found[:: max(1, len(found) // count)][:count]
    bodies = []
    for path in chosen:
        pixels = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2BGR)
        pixels = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)
        bodies.append(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return bodies


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a line for each number of clients, or everything with --json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data_dir", type=Path, required=True, help="images to send")
    parser.add_argument("--clients", default="1,8,64", help="numbers of clients, comma-separated")
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of each turn")
    parser.add_argument("--rounds", type=int, default=3, help="number of turns of each")
    parser.add_argument("--amp", default=None)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    keep_freed_memory()
    predictor = Predictor(given.weights, amp=given.amp)
    bodies = bodies_of(given.data_dir, predictor.size)
    flags = [] if given.amp is None else ["--amp", given.amp]
    network_alone(predictor, 1)
    results: dict[int, list[Load]] = {int(n): [] for n in given.clients.split(",")}
    alone: list[float] = []
    for _ in range(given.rounds):
        alone.append(network_alone(predictor, given.seconds))
        with running_server(given.weights, *flags) as (port, _):
            asyncio.run(load(port, bodies, 8, 1))
            for clients, found in results.items():
                found.append(asyncio.run(load(port, bodies, clients, given.seconds)))
            with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                metrics = answer.read().decode()
    _print(given, predictor, bodies, alone, results, metrics)


def _print(
    given: argparse.Namespace,
    predictor: Predictor,
    bodies: Sequence[bytes],
    alone: Sequence[float],
    results: dict[int, list[Load]],
    metrics: str,
) -> None:
    network = statistics.median(alone)
    content: dict[str, Any] = {
        "precision": str(predictor.precision),
        "cores": len(os.sched_getaffinity(0)),
        "mean_bytes": statistics.mean(map(len, bodies)),
        "network_images_per_second": list(alone),
        "loads": [asdict(one) for found in results.values() for one in found],
    }
    if given.json:
        print(json.dumps(content, indent=2))  # noqa: T201
        return
    print(  # noqa: T201
        f"network alone: {network:.1f} images/s ({min(alone):.1f} - {max(alone):.1f}), "
        f"{content['precision']}, batch {predictor.batch_size}; "
        f"JPEG of {content['mean_bytes'] / 1000:.0f} kB; medians of {given.rounds}"
    )
    for clients, found in results.items():
        speed = statistics.median(one.images_per_second for one in found)
        print(  # noqa: T201
            f"{clients:3d} clients: {speed:6.1f} images/s, {speed / network:.2f} of the network; "
            f"p50 {statistics.median(o.p50_milliseconds for o in found):.1f} ms, "
            f"p99 {statistics.median(o.p99_milliseconds for o in found):.1f} ms; "
            f"clients use {statistics.median(o.client_share for o in found):.2f} of a core"
        )
    sizes = [line for line in metrics.splitlines() if line.startswith("densenet121_batch_seconds")]
    print("; ".join(line for line in sizes if "_sum" in line or "_count" in line))  # noqa: T201


if __name__ == "__main__":
    main()
