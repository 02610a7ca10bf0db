"""``bench train``, ``head`` and ``infer``: compare our steps with other libraries, in turns."""

import contextlib
import importlib.util
import json
import os
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from densenet121.bench.data import Loading
from densenet121.bench.peers import peer_script
from densenet121.bench.process import Worker, environment_of, running
from densenet121.bench.quantiles import quartiles
from densenet121.bench.scaling import Scaling
from densenet121.bench.worker import wait_for
from densenet121.config import BenchConfig
from densenet121.device import describe_device, has_bf16, pick_device, set_tf32
from densenet121.network import build
from densenet121.network.fused import plain_network
from densenet121.utils.errors import UsageError

# The module that a side needs; torchvision if it is not listed.
_MODULES = {name: name for name in ("timm", "onnxruntime", "openvino")}
OWN_SIDES = ("ours", "plain", "plain-compile", "plain-recompute", "triton", "convolutions", "int8")
_MODULES |= dict.fromkeys(OWN_SIDES, "torch")


@dataclass(frozen=True)
class Side:
    """Measurements of one side.

    Attributes:
        name: ``ours`` or one of ``--against``.
        note: its library and version.
        images_per_second: median over the turns.
        low: first quartile of the same.
        high: third quartile.
        ratio: median over the rounds of our images per second divided by its.
        megabytes: peak memory above that of the same process before it built its network, 10^6
            bytes.
        peak_share: arithmetic speed of the network as a share of the machine's matrix product;
            None for sides with another arithmetic than the measured one.
    """

    name: str
    note: str
    images_per_second: float
    low: float
    high: float
    ratio: float
    megabytes: float
    peak_share: float | None


@dataclass(frozen=True)
class Comparison:
    """Result of a comparison.

    Attributes:
        settings: effective settings of the run.
        machine: processor, cores, torch.
        gigaflops_an_image: multiplications and additions of a step for one image, 10^9.
        peak_gigaflops: speed of a matrix product in the same arithmetic, best of all tries, 10^9/s.
        sides: the measurements, ours first.
    """

    settings: dict[str, Any]
    machine: dict[str, Any]
    gigaflops_an_image: float
    peak_gigaflops: float
    sides: tuple[Side, ...]


def compare(config: BenchConfig) -> Comparison:
    """Measure ``config.what`` for our network and for every side in ``config.against``.

    Raises:
        UsageError: a side is not installed.
        InputError: a side's process failed.
    """
    device = pick_device(config.device)
    set_tf32(device, False)
    amp = config.amp or ("bf16" if has_bf16(device) else "fp32")
    threads = config.threads or _cores()
    names = ("ours", *config.sides)
    for name in config.sides:
        module = _MODULES.get(name, "torchvision")
        if importlib.util.find_spec(module) is None:
            raise UsageError(
                f"--against {name}: {module} is not installed; `make bench` installs it"
            )
    spec = {
        "what": config.what,
        "net": config.net,
        "variant": config.variant,
        "batch_size": config.per_batch_size,
        "size": config.size,
        "amp": amp,
        "threads": threads,
        "device": str(device),
    }
    torch.set_num_threads(threads)
    peak = _peak_gigaflops(amp, device)
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                running(name, _command({**spec, "side": name}), environment_of(name, OWN_SIDES))
            )
            for name in names
        ]
        for worker in workers:
            for _ in range(config.warmup):
                worker.steps(1)
        seconds: list[list[float]] = [[] for _ in names]
        for _ in range(config.rounds):
            for turns, worker in zip(seconds, workers, strict=True):
                turns.append(worker.steps(config.steps) / config.steps)
        peak = max(peak, _peak_gigaflops(amp, device))
        gigaflops = gigaflops_an_image(config)
        sides = tuple(
            _side(worker, turns, seconds[0], config.per_batch_size, gigaflops, peak, amp)
            for worker, turns in zip(workers, seconds, strict=True)
        )
    machine = {
        "processor": _processor(device),
        "cores": _cores(),
        "torch": torch.__version__,
        "accelerator": describe_device(device),
    }
    return Comparison({**asdict(config), **spec}, machine, gigaflops, peak, sides)


def table(comparison: Comparison) -> str:
    """The comparison as text."""
    settings, ours = comparison.settings, comparison.sides[0]
    lines = [
        f"{settings['what']}: {settings['net']}, batch {settings['batch_size']} of "
        f"{settings['size'][0]} x {settings['size'][1]}, {settings['amp']}, "
        f"{settings['threads']} threads, {settings['rounds']} rounds",
        f"{comparison.machine['processor']}, torch {comparison.machine['torch']}; a matrix product "
        f"reaches {comparison.peak_gigaflops:.0f} GFLOP/s, an image takes "
        f"{comparison.gigaflops_an_image:.2f} GFLOP",
        "",
        f"{'':22}{'images/s':>9}  {'quartiles':>15}  {'ours / its':>10}  {'memory':>8}  "
        f"{'memory ratio':>12}  {'of the peak':>11}",
    ]
    for side in comparison.sides:
        share = "" if side.peak_share is None else f"{side.peak_share:.0%}"
        lines.append(
            f"{side.name:22}{side.images_per_second:9.2f}  "
            f"{f'{side.low:.2f} - {side.high:.2f}':>15}  {side.ratio:10.2f}  "
            f"{side.megabytes:5.0f} MB  {ours.megabytes / side.megabytes:12.2f}  {share:>11}"
        )
    lines += ["", *(f"{side.name}: {side.note}" for side in comparison.sides)]
    return "\n".join(lines)


def as_json(comparison: "Comparison | Loading | Scaling") -> str:
    """The comparison as JSON."""
    return json.dumps(asdict(comparison), indent=2)


def _command(spec: dict[str, Any]) -> list[str]:
    own = spec["side"] in OWN_SIDES
    worker = ["-m", "densenet121.bench.worker"] if own else [str(peer_script("networks.py"))]
    return [sys.executable, *worker, json.dumps(spec)]


def _side(
    worker: Worker,
    seconds: list[float],
    ours: list[float],
    batch_size: int,
    gigaflops: float,
    peak: float,
    amp: str,
) -> Side:
    speeds = [batch_size / turn for turn in seconds]
    low, middle, high = quartiles(speeds)
    in_float = ("torchvision-reference", "onnxruntime")
    same_arithmetic = worker.name != "int8" and (amp == "fp32" or worker.name not in in_float)
    return Side(
        name=worker.name,
        note=worker.note,
        images_per_second=middle,
        low=low,
        high=high,
        ratio=statistics.median(theirs / own for theirs, own in zip(seconds, ours, strict=True)),
        megabytes=worker.bytes / 1e6,
        peak_share=middle * gigaflops / peak if same_arithmetic else None,
    )


def gigaflops_an_image(config: BenchConfig) -> float:
    """Multiplications and additions of a step for one image, 10^9.

    They are counted on the plain network, whose transitions pool first.
    """
    model = build(config.net, num_classes=1000, variant=config.variant)
    images = torch.randn(2, 3, *config.size)
    with plain_network(), FlopCounterMode(display=False) as counter:
        if config.what == "train":
            model(images).sum().backward()
        else:
            with torch.no_grad():
                model.eval()(images)
    return float(counter.get_total_flops()) / 2 / 1e9


def _peak_gigaflops(amp: str, device: torch.device, tries: int = 8) -> float:
    """Speed of the fastest of several matrix products."""
    side = 2048 if device.type == "cpu" else 8192
    dtype = torch.bfloat16 if amp == "bf16" else torch.float32
    a, b = (torch.randn(side, side).to(device, dtype) for _ in range(2))
    best = float("inf")
    for _ in range(tries):
        wait_for(device)
        start = time.perf_counter()
        a @ b
        wait_for(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best / 1e9


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor(device: torch.device) -> str:
    accelerator = describe_device(device)
    if accelerator:
        return str(accelerator.get("name", device))
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return str(found.get("cpu_name", "unknown processor"))
