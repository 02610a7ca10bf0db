"""A server that is told to stop, at any moment of its life."""

import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from densenet121.bench.serve import running_server

from helpers.commands import environment
from helpers.serving import FLAGS
from helpers.weights import write_weights

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


def test_a_server_that_is_stopped_while_it_loads_ends(tmp_path: Path) -> None:
    """It listens before it loads; the signal was forgotten, and the server ran for ever."""
    weights, port = write_weights(tmp_path / "w.safetensors"), free_port()
    command = [sys.executable, "-m", "densenet121", "serve", str(weights), "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment()) as process:
        try:
            while process.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.005)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
        assert process.returncode in (-signal.SIGTERM, 143)
        assert b"Traceback" not in said and b"is ready" not in said


def test_a_request_that_is_not_whole_in_time_is_told_that_the_server_stops(tmp_path: Path) -> None:
    """It was "Internal Server Error", as text."""
    weights = write_weights(tmp_path / "w.safetensors")
    flags = [*FLAGS, "--body_seconds", 20, "--shutdown_seconds", 0.1]
    with running_server(weights, *flags, environment=environment()) as (port, process):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            answer = b""
            while part := client.recv(65536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in answer
        assert answer.endswith(b'{"error":"the server is stopping"}')
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None and process.stderr.read() == ""
