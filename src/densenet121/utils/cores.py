"""The number of processor cores for this process."""

import os


def default_workers() -> int:
    """Number of cores this process may use, divided among the processes that torchrun started."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    beside = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, (cores or 1) // max(1, int(beside) if beside.isdigit() else 1))
