"""Waiting for the store where the ranks meet."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch

from densenet121.distributed.launchers import Process
from densenet121.distributed.ranks import process_group
from densenet121.distributed.store import store_address, wait_for_store
from densenet121.utils.errors import InputError, UsageError

from helpers.commands import environment
from helpers.forking import Forked


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_a_store_that_listens_is_found_at_once_and_one_that_does_not_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        wait_for_store("127.0.0.1", port, 0, 1, lambda: False)
    with pytest.raises(InputError, match=rf"rank 1 .* 127.0.0.1:{port}: nobody .* for 0.3 s"):
        wait_for_store("127.0.0.1", port, 0.3, 1, lambda: False)
    with pytest.raises(InputError, match="nobody listened"):
        wait_for_store("no-such-host.invalid", port, 0.1, 1, lambda: False)
    with pytest.raises(KeyboardInterrupt):
        wait_for_store("127.0.0.1", port, 60, 1, lambda: True)


def test_the_address_is_the_launchers_and_must_be_one() -> None:
    place = {"MASTER_ADDR": "host-7", "MASTER_PORT": "29501"}
    assert store_address(place) == ("host-7", "29501")
    assert store_address({"MASTER_ADDR": "host-7"}) == ("host-7", "29500")
    with pytest.raises(UsageError, match="MASTER_ADDR, the address of rank 0, is not set"):
        store_address({})
    for port in ("seven", "65536", "-1", ""):
        with pytest.raises(UsageError, match="MASTER_PORT must be a number up to 65535"):
            store_address(place | {"MASTER_PORT": port})


def test_rank_0_alone_or_at_a_taken_port_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    rank_0 = Process(0, 2, 0, "rank 0 of 2")
    monkeypatch.setenv("MASTER_PORT", free_port())
    with (
        pytest.raises(
            InputError, match=r"1/2 clients joined\.; a launcher starts all of them: tor"
        ),
        process_group(rank_0, torch.device("cpu"), 1),
    ):
        pass
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MASTER_PORT", str(server.getsockname()[1]))
        with (
            pytest.raises(InputError, match="set another MASTER_PORT for all ranks"),
            process_group(rank_0, torch.device("cpu"), 1),
        ):
            pass


@pytest.mark.parametrize("number", [None, signal.SIGTERM, signal.SIGINT])
def test_a_rank_without_rank_0_ends_in_time_or_when_it_is_stopped(
    number: signal.Signals | None, tmp_path: Path
) -> None:
    place = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    limit = "2" if number is None else "600"
    command = ["-m", "densenet121", "train", "--data_dir", tmp_path, "--output_dir", tmp_path]
    command += ["--device", "cpu", "--timeout_seconds", limit]
    process = Forked(command, environment(**place))
    began = time.monotonic()
    while number is not None and process.poll() is None and time.monotonic() - began < 100:
        time.sleep(1)  # it is imported, and then it waits
        os.kill(process.pid, number)
    done = process.finished(100)
    lines = [line for line in done.stderr.splitlines() if line]
    if number is None:
        assert done.returncode == 1
        assert len(lines) == 1, lines
        assert "rank 1 cannot reach the other ranks" in lines[0]
    else:
        assert done.returncode in (143, -number)
        assert len(lines) <= 1, lines
