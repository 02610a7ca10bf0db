"""Inference in float32, bf16 or int8 beside ONNX Runtime and OpenVINO, all sides by turns.

    python benchmarks/inference.py [--batch 32] [--size 224] [--threads 2] [--rounds 8] [--steps 1]
        [--bf16 1] [--int8 1] [--busy 1]

Unlike ``densenet121 bench infer`` it needs no torchvision: the engines run this program's own
network, exported to ONNX. Each side is a process that stays, so that a side is warm in its turn;
sides that are not installed are left out. With --int8 1 all sides run int8 weights: ours those of
``export --format native``, the engines those that ONNX Runtime quantises for ``export --int8 1``.
With --bf16 1 ours and OpenVINO compute in bf16, ONNX Runtime, which has none on a CPU, in float32.
With --busy N, N other processes compute all the time.
Prints images per second (medians of the rounds), the 99th percentile of a call, and the median
over the rounds of each engine's seconds by ours.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from densenet121.bench.worker import random_int8
from densenet121.inference.exporting import quantise
from densenet121.native.network import kernels
from densenet121.network import constant_network, densenet121
from densenet121.network.fused import plain_network
from densenet121.utils.memory import keep_freed_memory

ENGINES = ("onnxruntime", "openvino")


def main() -> None:
    """Measure, or be one of the sides."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (
        ("batch", 32),
        ("size", 224),
        ("threads", 2),
        ("rounds", 8),
        ("steps", 1),
        ("bf16", 0),
        ("int8", 0),
        ("busy", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        answer(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        options.file = str(Path(folder) / "network.onnx")
        export(options)
        sides = ["ours", *(name for name in ENGINES if find_spec(name))]
        processes = {side: start(side, options) for side in sides}
        rounds: dict[str, list[list[float]]] = {side: [] for side in sides}
        endless = [sys.executable, "-c", "while True: pass"]
        beside = [subprocess.Popen(endless) for _ in range(options.busy)]
        try:
            for _ in range(options.rounds):
                for side, process in processes.items():
                    rounds[side].append(ask(process, options.steps))
        finally:
            for other in beside:
                other.kill()
        for answering in processes.values():
            answering.communicate()
    report(options, rounds)


def export(options: argparse.Namespace) -> None:
    """Write the network as ONNX, for exactly this batch."""
    torch.manual_seed(0)
    images = torch.randn(options.batch, 3, options.size, options.size)
    with plain_network(), torch.no_grad():
        torch.onnx.export(
            densenet121().eval(), (images,), options.file, input_names=["images"], dynamo=True,
            external_data=False, verbose=False,
        )  # fmt: skip
    if options.int8:
        options.file = str(quantise(Path(options.file), images, options.batch))


def start(side: str, options: argparse.Namespace) -> "subprocess.Popen[str]":
    """A side's process, warmed up."""
    flags = [f"--{name}={value}" for name, value in vars(options).items() if name != "side"]
    process = subprocess.Popen(
        [sys.executable, __file__, *flags, f"--side={side}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    ask(process, 3)
    return process


def ask(process: "subprocess.Popen[str]", steps: int) -> list[float]:
    """Seconds of each of some calls."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    found: list[float] = json.loads(process.stdout.readline())
    return found


def answer(options: argparse.Namespace) -> None:
    """Serve one side."""
    with contextlib.ExitStack() as stack:
        run = make(options, stack)
        for line in sys.stdin:
            seconds = []
            for _ in range(int(line)):
                begin = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - begin)
            print(json.dumps(seconds), flush=True)


def make(options: argparse.Namespace, stack: contextlib.ExitStack) -> Callable[[], Any]:
    """One call of a side."""
    torch.set_num_threads(options.threads)
    images = torch.randn(options.batch, 3, options.size, options.size)
    if options.side == "onnxruntime":
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        session = onnxruntime.InferenceSession(
            options.file, settings, providers=["CPUExecutionProvider"]
        )
        return lambda: session.run(None, {"images": images.numpy()})
    if options.side == "openvino":
        import openvino

        hints: dict[str, Any] = {"INFERENCE_NUM_THREADS": options.threads}
        if not options.int8:
            hints["INFERENCE_PRECISION_HINT"] = "bf16" if options.bf16 else "f32"
        compiled = openvino.Core().compile_model(
            options.file, "CPU", hints | {"PERFORMANCE_HINT": "LATENCY"}
        )
        return lambda: compiled(images.numpy())
    keep_freed_memory()
    torch.manual_seed(0)
    network: nn.Module = densenet121().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if options.int8:
        network = random_int8(network)  # type: ignore[arg-type]
    images = images.contiguous(memory_format=torch.channels_last)
    stack.enter_context(constant_network(network))  # as eval, predict and serve do

    def run() -> None:
        with (
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16, enabled=bool(options.bf16)),
        ):
            network(images)

    return run


def report(options: argparse.Namespace, rounds: dict[str, list[list[float]]]) -> None:
    """Print a line a side."""
    found = kernels()
    name = found if isinstance(found, str) else found.instruction_set
    arithmetic = "int8" if options.int8 else "bf16" if options.bf16 else "float32"
    print(
        f"batch {options.batch} of {options.size} x {options.size}, {options.threads} threads of "
        f"{os.cpu_count()} cores, {arithmetic}, kernels for {name}, {options.busy} busy processes, "
        f"{options.rounds} rounds of {options.steps} calls"
    )
    ours = [statistics.median(turn) for turn in rounds["ours"]]
    for side, turns in rounds.items():
        own = [statistics.median(turn) for turn in turns]
        calls = sorted(seconds for turn in turns for seconds in turn)
        ratio = statistics.median(theirs / mine for theirs, mine in zip(own, ours, strict=True))
        print(
            f"{side:12} {options.batch / statistics.median(own):8.1f} images/s   p99 "
            f"{1000 * calls[int(0.99 * len(calls))]:6.0f} ms   its time / ours {ratio:5.2f}"
        )


if __name__ == "__main__":
    main()
