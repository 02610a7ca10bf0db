"""The process group of accelerators that are not here: what torch is asked for."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from densenet121.distributed.launchers import Process
from densenet121.distributed.ranks import process_group
from densenet121.utils.errors import InputError

CUDA = torch.device("cuda", 1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """Calls of torch.distributed, in order; something listens where rank 0 would."""
    found: list[tuple[str, Any]] = []
    store = HashStore()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setattr(
        "densenet121.distributed.store.rendezvous", lambda *_, **__: iter([(store, 0, 2)])
    )
    monkeypatch.setattr(
        dist,
        "init_process_group",
        lambda backend, **more: found.append((backend, more["device_id"])),
    )
    monkeypatch.setattr(dist, "destroy_process_group", lambda: found.append(("destroy", None)))
    monkeypatch.setattr(
        dist.distributed_c10d, "_abort_process_group", lambda: found.append(("abort", None))
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MASTER_PORT", str(server.getsockname()[1]))
        yield found


def test_a_rank_joins_with_its_device_and_leaves_in_order(calls: list[tuple[str, Any]]) -> None:
    with process_group(Process(1, 2, 1, ""), CUDA, 60):
        pass
    assert calls == [("cpu:gloo,cuda:nccl", CUDA), ("destroy", None)]


@pytest.mark.parametrize(("device", "leave"), [(CUDA, "abort"), (torch.device("cpu"), "destroy")])
def test_after_a_lost_rank_a_device_does_not_wait_for_it(
    device: torch.device, leave: str, calls: list[tuple[str, Any]]
) -> None:
    """On an accelerator the exchange with the lost rank still runs, and would never end."""
    lost = pytest.raises(InputError, match="rank 1 lost another rank")
    with lost, process_group(Process(1, 2, 1, ""), device, 60):
        raise dist.DistError("Connection closed by peer")
    assert calls[-1] == (leave, None)


def test_a_rank_that_lost_another_says_what_the_error_notes(calls: list[tuple[str, Any]]) -> None:
    lost = pytest.raises(InputError, match=r"; see the log of that rank; continue with x$")
    with lost, process_group(Process(1, 2, 1, ""), torch.device("cpu"), 60):
        error = dist.DistError("Connection closed by peer")
        error.add_note("continue with x")
        raise error


def test_a_cpu_has_no_device_to_name(calls: list[tuple[str, Any]]) -> None:
    with process_group(Process(0, 2, 0, ""), torch.device("cpu"), 60):
        pass
    assert calls[0] == ("gloo", None)
