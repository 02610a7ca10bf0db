"""Which rank this process is: what torchrun, Open MPI and SLURM say in their variables."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from densenet121.utils.errors import UsageError

# variables for rank, number of processes and rank on this host, and the name of the launcher
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK", "torchrun"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "Open MPI"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM"),
)

_FIRST_SPECIAL_STEP = 0xFFFFFFF0  # SLURM's numbers for steps that srun has not started


@dataclass(frozen=True)
class Process:
    """This process and the size of its group.

    Attributes:
        rank: number of this process, from 0.
        world_size: number of processes.
        local_rank: number among the processes on this host; also the number of its device.
        note: where the values come from, for the log.
    """

    rank: int
    world_size: int
    local_rank: int
    note: str


ALONE = Process(0, 1, 0, "one process")


def join(is_distributed: bool, rank: int, group_size: int) -> Process:
    """Find the rank of this process from the launcher's variables, else from the settings.

    Raises:
        UsageError: several processes are requested but no launcher started them, as in SLURM's
            batch script without srun, or the launcher's variables contradict each other.
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
        "`is_distributed` is 1, but no launcher started several processes: using one process"
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
        if launcher == "SLURM" and size > 1 and _is_batch_script(environment):
            raise UsageError(
                f"SLURM's batch script starts one process, not the {size} of SLURM_NTASKS; start "
                "them with srun, before the command, or pass `is_distributed` 0 for one process"
            )
        return Process(rank, size, local_rank, f"rank {rank} of {size}, started by {launcher}")
    return None


def _is_batch_script(environment: Mapping[str, str]) -> bool:
    """Whether SLURM runs this in a job, but in no step of it that srun started.

    A batch script has rank 0 and all tasks of the job in its variables, although it is alone. Its
    own step and that of an interactive shell have the highest numbers, if any.
    """
    step = environment.get("SLURM_STEP_ID", "")
    of_srun = step.isdecimal() and int(step) < _FIRST_SPECIAL_STEP
    return "SLURM_JOB_ID" in environment and not of_srun
