"""The processes (ranks) that train or evaluate together, and how they exchange data.

There is one process per device, started by torchrun, srun or mpirun. All ranks must call a function
of this module at the same point; in a run of one process each returns at once.
"""

import atexit
import datetime
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket, PrefixStore, Store
from torch.futures import Future

from densenet121.distributed.launchers import Process
from densenet121.distributed.roll_call import RollCall
from densenet121.distributed.store import (
    attempt_of,
    check_own,
    meet,
    meeting_advice,
    store_address,
    wait_for_store,
)
from densenet121.utils.errors import InputError, UnreadableError
from densenet121.utils.modes import evaluation_mode

T = TypeVar("T")

# Groups that were left, until the next one or the end of the process. Freeing a group waits for
# gloo's threads while it holds the interpreter, and such a thread may need the interpreter to free
# the tensor of the last exchange: freed at once, a group can wait for ever (torch 2.13).
_left: list[object] = []

# What this process was in each group that it has joined.
_joined: list[Process] = []


@contextmanager
def process_group(
    process: Process,
    device: torch.device,
    timeout_seconds: float,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """A context in which the ranks can exchange data; does nothing in a run of one process.

    Args:
        process: this process.
        device: its device.
        timeout_seconds: longest wait for another rank.
        is_stopped: whether to wait no longer for rank 0 to start.

    Raises:
        InputError: the other ranks cannot be reached.
        KeyboardInterrupt: stopped while it waited.
    """
    if process.world_size == 1:
        yield
        return
    store = _connect(process, device, timeout_seconds, is_stopped)
    rank = process.rank
    roll_call = RollCall(PrefixStore("roll_call", store), rank, process.world_size)
    _left.clear()
    # The store of rank 0 stays for those that come to the next group before it.
    group = dist.group.WORLD, store
    lost = False
    try:
        yield
        _left.append(group)
    except RuntimeError as error:
        if not _is_lost_connection(error):
            roll_call.report_failure(_first_line(error))
            raise
        lost = True
        timed_out = "imed out" in str(error) or "imeout" in str(error)
        after = f" after {timeout_seconds:g} s" if timed_out else ""
        notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
        raise InputError(
            f"rank {rank} lost another rank{after}: {roll_call.find_lost(timed_out)} "
            f"({_first_line(error)}); see the log of that rank{notes}"
        ) from None
    except Exception as error:
        roll_call.report_failure(_first_line(error))
        raise
    finally:
        _leave_group(abort=lost and device.type != "cpu")


def _connect(
    process: Process,
    device: torch.device,
    timeout_seconds: float,
    is_stopped: Callable[[], bool],
) -> Store:
    """Join the group of the ranks; the store where they met."""
    address, port = store_address(os.environ)
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, port
    backend = dist.get_default_backend_for_device(device)
    timeout = datetime.timedelta(seconds=timeout_seconds)
    rank, size = process.rank, process.world_size
    if rank > 0:
        wait_for_store(address, port, timeout_seconds, rank, is_stopped)
    try:
        found = meet(rank, size, timeout_seconds, is_stopped)
        # A process may join one group after another, whose entries are still there.
        store = PrefixStore(f"{attempt_of(os.environ)}_{len(_joined)}", found)
        check_own(store, rank, os.environ)
        dist.init_process_group(
            # gloo besides the accelerator's backend, for tensors on the host.
            backend if device.type == "cpu" else f"cpu:gloo,{device.type}:{backend}",
            store=PrefixStore("group", store),
            rank=rank,
            world_size=size,
            timeout=timeout,
            # Connects at once, to the right device even before its first use.
            device_id=None if device.type == "cpu" else device,
        )
    except (RuntimeError, ValueError) as error:
        fault = _first_line(error)
        raise InputError(
            f"rank {rank} cannot reach the other ranks at {address}:{port}: {fault}"
            f"{meeting_advice(fault)}"
        ) from None
    _joined.append(process)
    return store


def _leave_group(*, abort: bool) -> None:
    """Leave the group; ``abort`` does not wait for exchanges with a lost rank on the device."""
    _give_way()
    stop = getattr(dist.distributed_c10d, "_abort_process_group", None)
    if abort and stop is not None:
        stop()
    else:
        dist.destroy_process_group()


def _give_way() -> None:
    """Let the threads of gloo have the interpreter, for which they wait to free a tensor."""
    for _ in range(5):
        time.sleep(0.002)


@atexit.register
def _free_left_groups() -> None:
    if _left:
        _give_way()
        _left.clear()


def _is_lost_connection(error: RuntimeError) -> bool:
    text = str(error)
    words = ("onnection closed", "onnection reset", "imed out", "imeout", "Broken pipe", "gloo")
    return isinstance(error, dist.DistError) or any(word in text for word in words)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def is_distributed() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if is_distributed() else 1


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any rank, so that all ranks act alike."""
    if not is_distributed():
        return flag
    flags = torch.tensor([int(flag)])
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def sum_over_ranks(numbers: Tensor) -> Tensor:
    """The sum of every rank's numbers."""
    if not is_distributed():
        return numbers
    total = numbers.detach().clone()
    dist.all_reduce(total)
    return total


def gather(value: T) -> list[T]:
    """The value of every rank, by rank."""
    if not is_distributed():
        return [value]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def raise_together(fault: InputError | None) -> None:
    """Raise an error that some ranks have on all of them, so that all go on alike.

    Raises:
        InputError: that of this rank, else the first of another, which the text names.
    """
    seen = gather(None if fault is None else (isinstance(fault, UnreadableError), str(fault)))
    if fault is not None:
        raise fault
    for rank, found in enumerate(seen):
        if found is not None:
            is_unreadable, text = found
            kind = UnreadableError if is_unreadable else InputError
            raise kind(f"rank {rank} failed: {text}")


def from_rank_0(value: T) -> T:
    """The value of rank 0; those of the other ranks are ignored."""
    if not is_distributed():
        return value
    carrier: list[Any] = [value]
    dist.broadcast_object_list(carrier, src=0)
    return carrier[0]  # type: ignore[no-any-return]


@torch.no_grad()
def copy_buffers_from_rank_0(model: nn.Module) -> None:
    """Copy the running statistics of rank 0 to all ranks; before, each has those of its images."""
    if not is_distributed():
        return
    for buffer in model.buffers():
        dist.broadcast(buffer, src=0)


def synchronised(
    model: nn.Module,
    device: torch.device,
    *,
    compress: bool = False,
    example: Tensor | None = None,
) -> nn.Module:
    """The same network with gradients averaged over the ranks while they are computed.

    Args:
        model: the network, already on its device.
        device: its device.
        compress: exchange gradients as bfloat16: half the bytes of float32, and rounded.
        example: an input of the model. DistributedDataParallel changes the layout of gradients
            after its first step, and the layout determines the order of sums over three or more
            ranks. An example makes that step a dry run, so that a resumed run sums in the same
            order as an uninterrupted one.
    """
    if not is_distributed():
        return model
    ids = None if device.type == "cpu" else [device.index]
    with warnings.catch_warnings():
        # broadcast_buffers will be renamed; older releases do not have the new name.
        warnings.simplefilter("ignore", FutureWarning)
        together = nn.parallel.DistributedDataParallel(
            model, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
        )
    if compress:
        together.register_comm_hook(None, _exchange_as_bf16)
    if example is not None:
        with evaluation_mode(model):  # keeps the running statistics unchanged
            torch.autograd.backward(together(example).sum())
        model.zero_grad(set_to_none=True)
    return together


def _exchange_as_bf16(_: object, bucket: GradBucket) -> Future[Tensor]:
    """The same as torch's bf16_compress_hook, which torch refuses by name on gloo."""
    gradients = bucket.buffer()
    rounded = (gradients / dist.get_world_size()).to(torch.bfloat16)
    sent = dist.all_reduce(rounded, async_op=True).get_future()
    return sent.then(lambda done: gradients.copy_(done.value()[0]))  # type: ignore[no-any-return]


def keep_gradients_local(model: nn.Module, local: bool) -> AbstractContextManager[object]:
    """A context in which, if ``local``, gradients are summed on each rank and not exchanged."""
    if local and isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return nullcontext()
