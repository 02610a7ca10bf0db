"""The store where the ranks meet: rank 0's, or torchrun's."""

import datetime
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping

from torch._C._distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from densenet121.utils.errors import InputError, UsageError

_PORT = "29500"  # torchrun's default
_ANSWER_SECONDS = 60.0  # a store that listens answers at once
_OTHER_PORT = "another program has this port, so set another MASTER_PORT for all ranks"


def store_address(environment: Mapping[str, str]) -> tuple[str, str]:
    """Address and port of rank 0's store: from the launcher, else the first host of the job.

    Raises:
        UsageError: the address is not known, or the port is no number.
    """
    address = environment.get("MASTER_ADDR")
    if not address and "SLURM_JOB_NODELIST" in environment:
        command = ["scontrol", "show", "hostnames", environment["SLURM_JOB_NODELIST"]]
        try:
            found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
            address = found.stdout.split()[0]
        except (OSError, subprocess.SubprocessError, IndexError):
            address = None
    if not address:
        raise UsageError(
            "there are several processes, but MASTER_ADDR, the address of rank 0, is not set; set "
            "it to the name of the first host (and MASTER_PORT, default 29500)"
        )
    port = environment.get("MASTER_PORT", _PORT)
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"MASTER_PORT must be a number up to 65535, got {port!r}")
    return address, port


def meeting_advice(fault: str) -> str:
    """What to do about a fault of rank 0's store, after its text; empty if that is not known."""
    if "EADDRINUSE" in fault:
        return f"; {_OTHER_PORT}"
    if "clients joined" in fault:
        return "; a launcher starts all of them: torchrun, srun or mpirun"
    return ""


def attempt_of(environment: Mapping[str, str]) -> str:
    """A name for the entries of this start of the ranks, in a store that outlives them.

    torchrun keeps its store when it starts the ranks again (torch 2.13), so a rank would find the
    address of one that has ended. Where several of its agents share a store, their counts of
    restarts may differ, so that all starts have one name.
    """
    if environment.get("GROUP_WORLD_SIZE") != "1":
        return "attempt"
    return f"attempt_{environment.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def wait_for_store(
    address: str, port: str, timeout_seconds: float, rank: int, is_stopped: Callable[[], bool]
) -> None:
    """Wait until somebody listens there.

    torch would wait up to three times as long as it is told, without heeding a signal.

    Raises:
        InputError: nobody listens in time.
        KeyboardInterrupt: stopped while it waited.
    """
    until = time.monotonic() + timeout_seconds
    while True:
        if is_stopped():
            raise KeyboardInterrupt
        left = until - time.monotonic()
        try:
            # Short, so that a host that answers nothing holds up no signal.
            socket.create_connection((address, int(port)), timeout=1).close()
            return
        except OSError as error:
            if left <= 0:
                raise InputError(
                    f"rank {rank} cannot reach the other ranks at {address}:{port}: nobody "
                    f"listened for {timeout_seconds:g} s ({error}); did rank 0 start?"
                ) from None
        time.sleep(0.1)


def meet(
    rank: int, world_size: int, timeout_seconds: float, is_stopped: Callable[[], bool]
) -> Store:
    """Rank 0's store, or torchrun's, at the address in the environment.

    torch waits for what listens there as long as it likes, without heeding a signal. So it does
    that in a thread, which ends with this process.

    Raises:
        RuntimeError, ValueError: another program listens there, or what torch says.
        KeyboardInterrupt: stopped while it waited.
    """
    found: list[Store] = []
    failed: list[Exception] = []

    def ask() -> None:
        try:
            timeout = datetime.timedelta(seconds=timeout_seconds)
            found.append(next(rendezvous("env://", rank, world_size, timeout=timeout))[0])
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    until = time.monotonic() + min(timeout_seconds, _ANSWER_SECONDS)
    while thread.is_alive():
        if is_stopped():
            raise KeyboardInterrupt
        if rank > 0 and time.monotonic() > until:  # rank 0 waits for the others, and says so
            raise RuntimeError(f"who listens there does not answer; {_OTHER_PORT}")
        thread.join(0.05)
    if failed:
        raise failed[0]
    return found[0]


def check_own(store: Store, rank: int, environment: Mapping[str, str]) -> None:
    """Refuse a store that has a process of this rank: it is that of another run.

    torchrun's store may outlive a start of the ranks, but it is never another run's.

    Raises:
        RuntimeError: the text says what to do.
    """
    is_launchers = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not is_launchers and store.add(f"joined/{rank}", 1) > 1:
        raise RuntimeError(f"rank {rank} of another run is there; {_OTHER_PORT}")
