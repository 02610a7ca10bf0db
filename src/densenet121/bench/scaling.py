"""``bench scaling``: processes and threads that share the cores, beside what a model expects."""

import json
import os
import statistics
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from densenet121.bench.process import Worker, running
from densenet121.bench.quantiles import Quartiles, quartiles
from densenet121.bench.ranks import COPY_BYTES
from densenet121.bench.scaling_model import Machine, bytes_an_image
from densenet121.config import BenchConfig
from densenet121.device import has_bf16
from densenet121.network import build
from densenet121.utils.cores import default_workers
from densenet121.utils.errors import UsageError
from densenet121.utils.threads import spinning_limit

_ALONE = ("solo", "update", "copy")  # of one process per core
_WHAT = ("step", "local", "exchange", "exchange_bf16")


@dataclass(frozen=True)
class Split:
    """Steps of all images by some processes, each with as many threads as its share of the cores.

    Seconds are (first quartile, median, third quartile) over the rounds.

    Attributes:
        processes: number of processes.
        threads: threads of each.
        step: seconds of a step.
        exchange: seconds of the exchange of all gradients alone; None for one process.
        expected: seconds of a step that the model of ``bench.scaling_model`` expects.
    """

    processes: int
    threads: int
    step: Quartiles
    exchange: Quartiles | None
    expected: float


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
        machine: medians of what the model starts from.
        image_bytes: bytes that an image moves in a step, by count.
        splits: every number of processes that was measured, the smallest first.
    """

    settings: dict[str, Any]
    gradient_bytes: int
    one_process: Quartiles
    step: Quartiles
    local: Quartiles
    exchange: Quartiles
    exchange_bf16: Quartiles
    ratio: float
    machine: Machine
    image_bytes: int
    splits: tuple[Split, ...]


def measure_scaling(config: BenchConfig) -> Scaling:
    """Measure all numbers of processes in turns.

    Raises:
        UsageError: there is only one core, or the processes cannot divide the batch evenly.
        InputError: a process failed.
    """
    cores = config.threads or default_workers()
    counts = _counts(config, cores)
    amp = config.amp or ("bf16" if has_bf16(torch.device("cpu")) else "fp32")
    spec = {"net": config.net, "variant": config.variant, "size": config.size, "amp": amp}
    seconds: dict[tuple[int, str], list[float]] = {}
    with ExitStack() as stack:
        workers: dict[int, Worker] = {}
        for count in counts:
            own = spec | {"ranks": count, "threads": cores // count}
            own |= {"batch_size": config.per_batch_size // count}
            started = running(f"{count} processes", _command(own), spinning_limit(os.environ))
            workers[count] = stack.enter_context(started)
        for _ in range(config.warmup):
            for worker in workers.values():
                worker.ask("step")
        for _ in range(config.rounds):
            for count, worker in workers.items():
                for what in _questions(count, cores):
                    seconds.setdefault((count, what), []).append(worker.ask(what)["seconds"])
        values = int(workers[cores].note)
    settings = {**spec, "ranks": cores, "threads": 1, "rounds": config.rounds}
    return _scaling(settings | {"batch_size": config.per_batch_size}, values, seconds)


def _counts(config: BenchConfig, cores: int) -> list[int]:
    """Numbers of processes to measure: 1, one per core, and those of the settings."""
    counts = sorted({1, cores, *config.process_counts})
    if cores < 2:
        raise UsageError("bench scaling shares the work among cores: --threads must be at least 2")
    for count in counts:
        if cores % count or config.per_batch_size % count:
            raise UsageError(
                f"bench scaling divides --per_batch_size {config.per_batch_size} and --threads "
                f"{cores} among processes: their number must be a divisor of both, and {count} is "
                "not"
            )
    return counts


def _questions(count: int, cores: int) -> tuple[str, ...]:
    if count == cores:
        # The first pass of DistributedDataParallel needs all ranks, so nobody is alone before.
        return (*_WHAT, *_ALONE)
    return ("step",) if count == 1 else ("step", "exchange")


def _scaling(
    settings: dict[str, Any], values: int, seconds: dict[tuple[int, str], list[float]]
) -> Scaling:
    cores, images = settings["ranks"], settings["batch_size"]
    middle = {key: statistics.median(found) for key, found in seconds.items()}
    model = build(settings["net"], num_classes=1000, variant=settings["variant"])
    moved = bytes_an_image(model, settings["size"], 2 if settings["amp"] == "bf16" else 4)

    machine = Machine(
        cores=cores,
        solo=middle[cores, "solo"],
        update=middle[cores, "update"],
        bandwidth=2 * cores * COPY_BYTES / middle[cores, "copy"],
    )
    splits = []
    for count in sorted({count for count, _ in seconds}):
        exchange = seconds.get((count, "exchange"))
        expected = machine.expected_step(
            count,
            traffic=images * moved,
            parameters=values,
            exchange=middle.get((count, "exchange"), 0.0),
        )
        own = quartiles(seconds[count, "step"])
        between = None if exchange is None else quartiles(exchange)
        splits.append(Split(count, cores // count, own, between, expected))
    pairs = zip(seconds[1, "step"], seconds[cores, "step"], strict=True)
    return Scaling(
        settings=settings,
        gradient_bytes=4 * values,
        one_process=quartiles(seconds[1, "step"]),
        **{what: quartiles(seconds[cores, what]) for what in _WHAT},
        ratio=statistics.median(one / many for one, many in pairs),
        machine=machine,
        image_bytes=moved,
        splits=tuple(splits),
    )


def scaling_table(found: Scaling) -> str:
    """The measurements as text."""
    settings, machine = found.settings, found.machine
    images, ranks = settings["batch_size"], settings["ranks"]
    share = f"{images // ranks} images in {1e3 * machine.solo:.1f} ms"
    lines = [
        f"{settings['net']}, {images} images of {settings['size']} per step, {settings['amp']}, "
        f"n = {settings['rounds']}; gradients: {found.gradient_bytes / 1e6:.1f} MB",
        f"one core, the others at rest: {share}, of which the update {1e3 * machine.update:.1f} ms",
        f"memory: {machine.bandwidth / 1e9:.1f} GB/s by all cores; an image moves "
        f"{found.image_bytes / 1e6:.0f} MB",
        f"{'':36} {'measured':>8} {'quartiles':>21} {'expected':>14}",
    ]
    for split in found.splits:
        many, threads = _plural(split.processes, "process"), _plural(split.threads, "thread")
        name = f"{many} x {threads}, a step"
        lines.append(
            f"{_row(name, split.step)} {1e3 * split.expected:8.1f} ms  "
            f"{images / split.step[1]:8.1f} images/s"
        )
        if split.exchange is not None and split.processes < ranks:
            lines.append(_row("  the exchange alone, float32", split.exchange))
    lines.append(_row("  the same without the exchange", found.local))
    lines.append(_row("  the exchange alone, float32", found.exchange))
    lines.append(_row("  the exchange alone, bfloat16", found.exchange_bf16))
    lines.append(f"{ranks} processes are {found.ratio:.2f} times as fast as one (median of rounds)")
    return "\n".join(lines)


def _row(name: str, seconds: Quartiles) -> str:
    low, middle, high = (1e3 * value for value in seconds)
    return f"{name:36} {middle:8.1f} ms {f'({low:.1f} - {high:.1f})':>18}"


def _plural(count: int, noun: str) -> str:
    ending = "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{'' if count == 1 else ending}"


def _command(spec: dict[str, Any]) -> list[str]:
    return [sys.executable, "-m", "densenet121.bench.ranks", json.dumps(spec)]
