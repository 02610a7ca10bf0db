"""The processes that train or evaluate together: who they are, and what they tell each other.

One process a device, started by torchrun, srun or mpirun. Every function here is meant to be called
by all ranks at the same point; in a run of one process each returns at once.
"""

import datetime
import os
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket, PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.futures import Future

from densenet121.distributed.roll_call import RollCall
from densenet121.utils.errors import InputError, UsageError

T = TypeVar("T")

# rank, number of processes, rank on this host, and how the launcher is called
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK", "torchrun"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "Open MPI"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM"),
)
_PORT = "29500"  # torchrun's default


@dataclass(frozen=True)
class Process:
    """This process among those that train or evaluate together.

    Attributes:
        rank: its number, from 0.
        world_size: how many there are.
        local_rank: its number among those on this host, which is that of its device.
        note: how this was found out, for the log.
    """

    rank: int
    world_size: int
    local_rank: int
    note: str


ALONE = Process(0, 1, 0, "one process")


def join(is_distributed: bool, rank: int, group_size: int) -> Process:
    """Find this process's place from the launcher's variables, or else from the settings.

    Raises:
        UsageError: several processes are asked for, and no launcher started them; or the
            launcher's variables contradict each other.
    """
    found = _from_launcher(os.environ) if is_distributed else None
    if found is not None and found.world_size > 1:
        return found
    if group_size > 1:
        raise UsageError(
            f"`group_size` is {group_size}, but no launcher started {group_size} processes; start "
            f"them with: torchrun --nproc_per_node {group_size} -m densenet121 train ..."
        )
    note = (
        "`is_distributed` is 1, but no launcher started several processes: one process"
        if is_distributed
        else "one process"
    )
    return Process(rank, 1, 0, note)


def _from_launcher(environment: Mapping[str, str]) -> Process | None:
    for rank_name, size_name, local_name, launcher in _LAUNCHERS:
        if rank_name not in environment or size_name not in environment:
            continue
        try:
            rank, size = int(environment[rank_name]), int(environment[size_name])
            local_rank = int(environment.get(local_name, "0"))
        except ValueError:
            raise UsageError(
                f"{launcher}'s {rank_name}, {size_name} and {local_name} must be whole numbers"
            ) from None
        if not 0 <= rank < size:
            raise UsageError(f"{rank_name} is {rank}, {size_name} is {size}: there is no such rank")
        return Process(rank, size, local_rank, f"rank {rank} of {size}, started by {launcher}")
    return None


@contextmanager
def process_group(process: Process, device: torch.device, timeout_seconds: float) -> Iterator[None]:
    """While entered, the ranks can talk; nothing happens in a run of one process.

    Raises:
        InputError: the others cannot be reached.
    """
    if process.world_size == 1:
        yield
        return
    address, port = _rendezvous(os.environ)
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, port
    backend = dist.get_default_backend_for_device(device)
    timeout = datetime.timedelta(seconds=timeout_seconds)
    rank, size = process.rank, process.world_size
    try:
        # A launcher that starts the ranks again gives each attempt a store without the old words.
        store, _, _ = next(rendezvous("env://", rank, size, timeout=timeout))
        dist.init_process_group(
            # Beside an accelerator's own, gloo for numbers that are on the host.
            backend if device.type == "cpu" else f"cpu:gloo,{device.type}:{backend}",
            store=PrefixStore("group", store),
            rank=rank,
            world_size=size,
            timeout=timeout,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"rank {process.rank} cannot reach the others at {address}:{port}: {_first_line(error)}"
        ) from None
    roll_call = RollCall(PrefixStore("roll_call", store), rank, size)
    try:
        yield
    except RuntimeError as error:
        if not _is_lost_connection(error):
            roll_call.tell_failure(_first_line(error))
            raise
        timed_out = "imed out" in str(error) or "imeout" in str(error)
        after = f" after {timeout_seconds:g} s" if timed_out else ""
        raise InputError(
            f"rank {rank} lost another rank{after}: {roll_call.who(timed_out)} "
            f"({_first_line(error)}); its own log says more"
        ) from None
    except Exception as error:
        roll_call.tell_failure(_first_line(error))
        raise
    finally:
        dist.destroy_process_group()


def _rendezvous(environment: Mapping[str, str]) -> tuple[str, str]:
    """Where rank 0 listens: as the launcher says, else the job's first host."""
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
            "several processes, but MASTER_ADDR does not say where rank 0 listens; set it to the "
            "first host's name (and MASTER_PORT, default 29500)"
        )
    return address, environment.get("MASTER_PORT", _PORT)


def _is_lost_connection(error: RuntimeError) -> bool:
    text = str(error)
    words = ("onnection closed", "onnection reset", "imed out", "imeout", "Broken pipe", "gloo")
    return isinstance(error, dist.DistError) or any(word in text for word in words)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def several() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if several() else 1


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any rank: all then do the same."""
    if not several():
        return flag
    told = torch.tensor([int(flag)])
    dist.all_reduce(told, dist.ReduceOp.MAX)
    return bool(told)


def sum_over_ranks(numbers: Tensor) -> Tensor:
    """The sum of every rank's numbers."""
    if not several():
        return numbers
    total = numbers.detach().clone()
    dist.all_reduce(total)
    return total


def gather(value: T) -> list[T]:
    """Every rank's value, by rank."""
    if not several():
        return [value]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def from_rank_0(value: T) -> T:
    """Rank 0's value; what the others pass does not matter."""
    if not several():
        return value
    carrier: list[Any] = [value]
    dist.broadcast_object_list(carrier, src=0)
    return carrier[0]  # type: ignore[no-any-return]


@torch.no_grad()
def take_buffers_of_rank_0(model: nn.Module) -> None:
    """Give every rank rank 0's running statistics: each has those of its own images until now."""
    if not several():
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
        model: on its device.
        device: where it is.
        compress: exchange gradients as bfloat16: half the bytes of float32, and rounded.
        example: an input of the model. DistributedDataParallel lays gradients out anew after its
            first step, and the layout decides in which order three and more ranks' are summed.
            With an example that step is a dry one, and a resumed run sums as if uninterrupted.
    """
    if not several():
        return model
    ids = None if device.type == "cpu" else [device.index]
    with warnings.catch_warnings():
        # broadcast_buffers is to get another name, which older releases do not know.
        warnings.simplefilter("ignore", FutureWarning)
        together = nn.parallel.DistributedDataParallel(
            model, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
        )
    if compress:
        together.register_comm_hook(None, _exchange_as_bf16)
    if example is not None:
        was_training = model.training
        model.eval()  # running statistics stay
        torch.autograd.backward(together(example).sum())
        model.zero_grad(set_to_none=True)
        model.train(was_training)
    return together


def _exchange_as_bf16(_: object, bucket: GradBucket) -> Future[Tensor]:
    """What torch's bf16_compress_hook does, which torch refuses on gloo by its name."""
    gradients = bucket.buffer()
    rounded = (gradients / dist.get_world_size()).to(torch.bfloat16)
    sent = dist.all_reduce(rounded, async_op=True).get_future()
    return sent.then(lambda done: gradients.copy_(done.value()[0]))  # type: ignore[no-any-return]


def keep_gradients_local(model: nn.Module, local: bool) -> AbstractContextManager[object]:
    """Within it gradients are added up on each rank and not exchanged, if ``local``."""
    if local and isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return nullcontext()
