"""The measurements of ``gpu.py``: images a second, with baselines in turns."""

import contextlib
import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from densenet121.device import arithmetic, has_bf16, set_exact
from densenet121.network import build, set_recompute, set_triton
from densenet121.network.compiled import Compile, compiled
from densenet121.network.graphs import GraphedNetwork
from densenet121.network.triton import why_no_triton

from gpu_task import Rows, Task

# Bytes that a step moves for an image of 224 x 224 when each kernel's tensors cross memory once.
_TRAIN_BYTES, _INFER_BYTES = 641e6, 212e6
_REPETITIONS = 5
Step = Callable[[], Any]


def bandwidth(task: Task) -> Rows:
    """Bytes a second of a copy on the device, read and written."""
    yield {"bytes_per_second": _bandwidth(task)}


def train(task: Task) -> Rows:
    """Training steps by each choice of kernels, and of other libraries, in turns."""
    for count in (2,) if task.dry else (256, 64, 32):
        sides = {"exact": _training(task, _own(task), count)}
        sides["fast"] = _training(task, _own(task), count)
        if task.is_cuda:
            sides["exact, graphs"] = _training(task, _own(task), count, graphs=True)
            sides["fast, graphs"] = _training(task, _own(task), count, graphs=True)
        if why_no_triton(task.device) is None and not task.dry:
            sides["fast, triton"] = _training(task, _with_triton(task), count)
            if task.is_cuda:
                both = _training(task, _with_triton(task), count, graphs=True)
                sides["fast, triton, graphs"] = both
        if count in (2, 64):
            recomputed = _own(task)
            set_recompute(recomputed, True)
            sides["fast, recomputed"] = _training(task, recomputed, count)
        # A compilation takes two minutes.
        if count == 256:
            sides["fast, compiled"] = _training(task, _compiled(task, "default"), count)
        for library in _libraries():
            sides[f"{library}, fast"] = _training(task, _other(library), count)
        yield from _in_turns(task, sides, count, _TRAIN_BYTES)


def infer(task: Task) -> Rows:
    """Inference of our network and other libraries, in turns."""
    for count in (1,) if task.dry else (1, 32, 256):
        sides = {"fast": _inference(task, _own(task), count)}
        for library in _libraries():
            sides[f"{library}, fast"] = _inference(task, _other(library), count)
        yield from _in_turns(task, sides, count, _INFER_BYTES)


def _compiled(task: Task, mode: Compile) -> nn.Module:
    """As `train` compiles it."""
    own = _own(task).to(task.device, memory_format=torch.channels_last)
    return compiled(own, mode, exact=False)


def _own(task: Task) -> nn.Module:
    torch.manual_seed(0)
    return build(task.net, num_classes=1000)


def _other(library: str) -> nn.Module:
    if library == "timm":
        return importlib.import_module("timm").create_model("densenet121", num_classes=1000)
    return importlib.import_module("torchvision").models.densenet121()


def _libraries() -> list[str]:
    found = []
    for name in ("torchvision", "timm"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
            found.append(name)
    return found


def _with_triton(task: Task) -> nn.Module:
    model = _own(task)
    set_triton(model, task.device)
    return model


def _training(task: Task, model: nn.Module, count: int, *, graphs: bool = False) -> Step:
    device, precision = task.device, _precision(task)
    model = model.to(device, memory_format=torch.channels_last).train()
    if graphs:
        model = GraphedNetwork(model)
    images, labels = _inputs(task, count)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        with arithmetic(device, precision):
            logits = model(images)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _inference(task: Task, model: nn.Module, count: int) -> Step:
    model = model.to(task.device, memory_format=torch.channels_last).eval()
    images, _ = _inputs(task, count)

    def step() -> None:
        with torch.inference_mode(), arithmetic(task.device, _precision(task)):
            model(images)

    return step


def _inputs(task: Task, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randn(count, 3, task.side, task.side)
    images = images.to(task.device).contiguous(memory_format=torch.channels_last)
    return images, torch.randint(0, 1000, (count,)).to(task.device)


def _precision(task: Task) -> torch.dtype:
    """bf16 where it is in hardware; fp16 would need a loss scale."""
    return torch.bfloat16 if has_bf16(task.device) else torch.float32


def _in_turns(task: Task, sides: dict[str, Step], count: int, moved: float) -> Rows:
    """Median of five turns of each side; a side that does not fit is left out."""
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, int] = {}
    for name, step in sides.items():
        try:
            before = _reset_peak(task)
            _turn(task, name, step, 1 if task.dry else 5)
            seconds[name], peaks[name] = [], _peak(task) - before
        except Exception as error:  # not enough memory, or it cannot be compiled
            yield {"batch": count, "side": name, "skipped": str(error)[:200]}
    steps = 1 if task.dry else 10
    for _ in range(1 if task.dry else _REPETITIONS):
        if time.monotonic() > task.until:
            break
        for name, turns in seconds.items():
            turns.append(_turn(task, name, sides[name], steps))
    speed = _bandwidth(task)
    for name, turns in seconds.items():
        if turns:
            found = count / statistics.median(turns)
            row = {"batch": count, "side": name, "images_per_second": round(found, 1)}
            row |= {"turns": [round(count / turn, 1) for turn in turns]}
            row |= {"precision": str(_precision(task)), "step_bytes": peaks[name]}
            share = None if task.dry else round(found * moved / speed, 3)
            yield row | {"share_of_roofline": share}


def _turn(task: Task, name: str, step: Step, steps: int) -> float:
    """Seconds a step, by the device's clock where it has one."""
    set_exact(task.device, name.startswith("exact"))
    step()  # with these kernels
    _wait(task)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    _wait(task)
    return (time.perf_counter() - start) / steps


def _wait(task: Task) -> None:
    if task.device.type != "cpu":
        torch.accelerator.synchronize()


def _reset_peak(task: Task) -> int:
    """Bytes that are in use now, from which the peak is counted."""
    if not task.is_cuda:
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _peak(task: Task) -> int:
    return torch.cuda.max_memory_allocated() if task.is_cuda else 0


def _bandwidth(task: Task) -> float:
    source = torch.empty(2**20 if task.dry else 2**28, dtype=torch.uint8, device=task.device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(5):
        _wait(task)
        start = time.perf_counter()
        target.copy_(source)
        _wait(task)
        best = min(best, time.perf_counter() - start)
    return 2 * source.numel() / best


MEASUREMENTS = (bandwidth, train, infer)
