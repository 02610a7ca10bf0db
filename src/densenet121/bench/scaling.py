"""``bench scaling``: one process per core, compared with one process with as many threads."""

import json
import statistics
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from densenet121.bench.process import running
from densenet121.config import BenchConfig
from densenet121.device import has_bf16
from densenet121.utils.cores import default_workers
from densenet121.utils.errors import UsageError

_WHAT = ("step", "local", "exchange", "exchange_bf16")


@dataclass(frozen=True)
class Scaling:
    """Measurements; seconds are (first quartile, median, third quartile) over the rounds.

    Attributes:
        settings: settings of the run.
        gradient_bytes: bytes that each rank sends in a step, as float32.
        one_process: seconds of a step of one process with all threads and the whole batch.
        step: the same with one process per core, each with its part of the batch.
        local: the same without the exchange of gradients.
        exchange: only the exchange of all gradients as float32.
        exchange_bf16: the same as bfloat16, including rounding.
        ratio: median over the rounds of one_process / step.
    """

    settings: dict[str, Any]
    gradient_bytes: int
    one_process: tuple[float, float, float]
    step: tuple[float, float, float]
    local: tuple[float, float, float]
    exchange: tuple[float, float, float]
    exchange_bf16: tuple[float, float, float]
    ratio: float


def measure_scaling(config: BenchConfig) -> Scaling:
    """Measure both in turns.

    Raises:
        UsageError: there is only one core, or the processes cannot divide the batch evenly.
        InputError: a process failed.
    """
    cores = config.threads or default_workers()
    if cores < 2 or config.per_batch_size % cores:
        raise UsageError(
            f"bench scaling divides --per_batch_size {config.per_batch_size} among --threads "
            f"{cores} processes: the number of processes must be at least 2 and a divisor"
        )
    amp = config.amp or ("bf16" if has_bf16(torch.device("cpu")) else "fp32")
    spec = {"net": config.net, "variant": config.variant, "size": config.size, "amp": amp}
    one = spec | {"ranks": 1, "threads": cores, "batch_size": config.per_batch_size}
    many = spec | {"ranks": cores, "threads": 1, "batch_size": config.per_batch_size // cores}
    with ExitStack() as stack:
        alone = stack.enter_context(running("one process", _command(one)))
        ranks = stack.enter_context(running("several processes", _command(many)))
        for _ in range(config.warmup):
            alone.ask("step")
            ranks.ask("step")
        seconds: dict[str, list[float]] = {name: [] for name in ("alone", *_WHAT)}
        for _ in range(config.rounds):
            seconds["alone"].append(alone.ask("step")["seconds"])
            for what in _WHAT:
                seconds[what].append(ranks.ask(what)["seconds"])
        values = int(ranks.note)
    pairs = zip(seconds["alone"], seconds["step"], strict=True)
    return Scaling(
        settings={**many, "batch_size": config.per_batch_size, "rounds": config.rounds},
        gradient_bytes=4 * values,
        one_process=_quartiles(seconds["alone"]),
        step=_quartiles(seconds["step"]),
        local=_quartiles(seconds["local"]),
        exchange=_quartiles(seconds["exchange"]),
        exchange_bf16=_quartiles(seconds["exchange_bf16"]),
        ratio=statistics.median(one / many for one, many in pairs),
    )


def scaling_table(found: Scaling) -> str:
    """The measurements as text."""
    settings = found.settings
    images, ranks = settings["batch_size"], settings["ranks"]
    rows = [
        (f"1 process x {ranks} threads, a step", found.one_process),
        (f"{ranks} processes x 1 thread, a step", found.step),
        ("  the same without the exchange", found.local),
        ("  the exchange alone, float32", found.exchange),
        ("  the exchange alone, bfloat16", found.exchange_bf16),
    ]
    lines = [
        f"{settings['net']}, {images} images of {settings['size']} per step, {settings['amp']}, "
        f"n = {settings['rounds']}; gradients: {found.gradient_bytes / 1e6:.1f} MB"
    ]
    for name, (low, middle, high) in rows:
        speed = "" if "alone" in name else f"  {images / middle:7.1f} images/s"
        lines.append(
            f"{name:36} {1e3 * middle:8.1f} ms ({1e3 * low:.1f} - {1e3 * high:.1f}){speed}"
        )
    lines.append(f"{ranks} processes are {found.ratio:.2f} times as fast as one (median of rounds)")
    return "\n".join(lines)


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _command(spec: dict[str, Any]) -> list[str]:
    return [sys.executable, "-m", "densenet121.bench.ranks", json.dumps(spec)]
