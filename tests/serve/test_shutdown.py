"""A server that is told to stop, at any moment of its life."""

import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from helpers.commands import environment
from helpers.weights import write_weights

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


def test_a_server_that_is_stopped_while_it_loads_ends(tmp_path: Path) -> None:
    """It listens before it loads; the signal was forgotten, and the server ran for ever."""
    weights, port = write_weights(tmp_path / "w.safetensors"), free_port()
    command = [sys.executable, "-m", "densenet121", "serve", weights, "--port", str(port)]
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
