"""The ``bench`` command."""

from collections.abc import Callable

from densenet121.bench.compute import as_json, compare, table
from densenet121.bench.data import compare_loading, loading_table
from densenet121.bench.scaling import measure_scaling, scaling_table
from densenet121.commands import DONE
from densenet121.config import BenchConfig
from densenet121.runtime import check_kernels


def run(config: BenchConfig) -> int:
    """Measure, and print a table or JSON."""
    check_kernels()  # before the sides' processes start
    print(MEASUREMENTS[config.what](config))  # noqa: T201 (the command's output)
    return DONE


def compute(config: BenchConfig) -> str:
    """Training steps or inference, compared with other libraries."""
    found = compare(config)
    return as_json(found) if config.json else table(found)


def data(config: BenchConfig) -> str:
    """Loading of images, compared with other libraries."""
    found = compare_loading(config)
    return as_json(found) if config.json else loading_table(found)


def scaling(config: BenchConfig) -> str:
    """Several processes, compared with one."""
    found = measure_scaling(config)
    return as_json(found) if config.json else scaling_table(found)


MEASUREMENTS: dict[str, Callable[[BenchConfig], str]] = {
    "train": compute,
    "head": compute,
    "infer": compute,
    "data": data,
    "scaling": scaling,
}
