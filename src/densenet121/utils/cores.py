"""The number of processor cores for this process."""

import os
import re

# Processes on this host, by launcher. SLURM's have forms such as "8(x2),4".
_SIZES = (
    "LOCAL_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_NTASKS_PER_NODE",
)


def default_workers() -> int:
    """Number of cores for this process: those it may use, divided among the processes beside it."""
    total = os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    name = next((name for name in _SIZES if name in os.environ), None)
    found = re.match(r"\d+", os.environ[name]) if name else None
    beside = max(1, int(found[0])) if found else 1
    if name in _SIZES[1:] and cores * beside <= total:
        return cores  # srun and mpirun have given each process cores of its own
    return max(1, cores // beside)
