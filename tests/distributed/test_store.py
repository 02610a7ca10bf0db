"""Waiting for the store where the ranks meet."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
from torch._C._distributed_c10d import PrefixStore, TCPStore

from densenet121.distributed.launchers import Process
from densenet121.distributed.ranks import process_group
from densenet121.distributed.store import check_own, store_address, wait_for_store
from densenet121.utils.errors import InputError, UsageError

from helpers.commands import environment
from helpers.forking import Forked
from helpers.ranks import run


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


@pytest.mark.parametrize(
    ("rank", "number"), [("1", None), ("1", signal.SIGTERM), ("1", signal.SIGINT), ("0", 15)]
)
def test_a_rank_without_the_other_ends_in_time_or_when_it_is_stopped(
    rank: str, number: int | None, tmp_path: Path
) -> None:
    place = {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"}
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


ALONE = """
import os, sys
import torch
from densenet121.distributed.launchers import join
from densenet121.distributed.ranks import process_group

with process_group(join(True, 0, 1), torch.device("cpu"), float(sys.argv[1])):
    pass
"""


def error_alone(folder: Path, timeout_seconds: float, port: int) -> str:
    """The last line of rank 1, which meets what listens at a port."""
    (folder / "alone.py").write_text(ALONE)
    place = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    done = Forked([folder / "alone.py", timeout_seconds], environment(**place)).finished(60)
    return str(done.stderr.strip().splitlines()[-1])


def test_a_rank_that_meets_another_program_or_run_at_the_port_ends_and_says_so(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = error_alone(tmp_path, 0.5, silent.getsockname()[1])
    assert "does not answer; another program has this port, so set another MASTER_PORT" in text
    others = TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)
    check_own(PrefixStore("attempt_0", others), 1, {})
    text = error_alone(tmp_path, 60, others.port)
    assert "rank 1 of another run is there; another program has this port" in text


TWICE = """
import time
import torch
from densenet121.distributed.launchers import join
from densenet121.distributed.ranks import gather, process_group

process = join(True, 0, 1)
for late in (1, 0, 1):
    with process_group(process, torch.device("cpu"), 20):
        assert gather(process.rank) == [0, 1]
    time.sleep(0.5 * (process.rank == late))
"""


def test_a_process_joins_one_group_after_another_whichever_rank_comes_first(
    tmp_path: Path,
) -> None:
    (tmp_path / "twice.py").write_text(TWICE)
    run(2, tmp_path / "twice.py")
