"""One side of a comparison, in a process of its own: ``python -m densenet121.bench.worker JSON``.

Builds a network, then answers each line of standard input, "STEPS", with one line of JSON: the
seconds of so many steps and the process's peak of memory. Ends with standard input.
"""

import contextlib
import importlib
import json
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from densenet121.bench.convolutions import convolutions_step
from densenet121.bench.runtimes import runtime_step
from densenet121.native.network import kernels
from densenet121.network import build
from densenet121.network.fused import plain_network
from densenet121.utils.memory import keep_freed_memory


def main() -> None:
    """Serve one side."""
    spec = json.loads(sys.argv[1])
    out = sys.stdout
    sys.stdout = sys.stderr  # what the libraries print must not stand between the answers
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    make_model, note = _importer(spec)
    empty = peak_bytes()
    step = _step(spec, make_model())
    print(json.dumps({"note": note, "torch": torch.__version__}), file=out, flush=True)
    with plain_network() if spec["side"] == "plain" else contextlib.nullcontext():
        for line in sys.stdin:
            start = time.perf_counter()
            for _ in range(int(line)):
                step()
            answer = {"seconds": time.perf_counter() - start, "bytes": peak_bytes() - empty}
            print(json.dumps(answer), file=out, flush=True)


def peak_bytes() -> int:
    """The most memory that this process ever held (its resident set)."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's figure is the parent's where that was larger
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _importer(spec: dict[str, Any]) -> tuple[Callable[[], nn.Module], str]:
    """How to make the side's network, with its library imported; and what it is."""
    side, net = spec["side"], spec["net"]
    if side in ("ours", "plain", "convolutions"):
        keep_freed_memory()
        found = kernels()
        note = found if isinstance(found, str) else f"kernels for {found.instruction_set}"
        if side != "ours":
            note = "the plain implementation" if side == "plain" else "nothing but convolutions"
        return lambda: build(net, num_classes=1000, variant=spec["variant"]), note
    library = importlib.import_module("timm" if side == "timm" else "torchvision")
    note = f"{library.__name__} {library.__version__}"
    if side in ("onnxruntime", "openvino"):
        note = f"{side} {importlib.import_module(side).__version__} on {note}"
    if side == "timm":
        return lambda: library.create_model(net, num_classes=1000), note
    return lambda: getattr(library.models, net)(), note


def _step(spec: dict[str, Any], model: nn.Module) -> Callable[[], None]:
    """What is measured."""
    side, (height, width) = spec["side"], spec["size"]
    reference = side == "torchvision-reference"
    layout = torch.contiguous_format if reference else torch.channels_last
    images = torch.randn(spec["batch_size"], 3, height, width).contiguous(memory_format=layout)
    bf16 = spec["amp"] == "bf16" and not reference
    model = model.to(memory_format=layout)  # type: ignore[call-overload]

    def arithmetic() -> contextlib.AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()

    if side == "convolutions":
        dtype = torch.bfloat16 if bf16 else torch.float32
        with torch.no_grad():
            return convolutions_step(model, images, dtype, train=spec["what"] == "train")
    if side in ("onnxruntime", "openvino"):
        return runtime_step(side, model.eval(), images, bf16=bf16, threads=spec["threads"])
    run: Callable[[Tensor], Tensor] = torch.compile(model) if side.endswith("compile") else model
    if spec["what"] == "infer":
        model.eval()

        def infer() -> None:
            with torch.inference_mode(), arithmetic():
                run(images)

        return infer

    model.train()
    labels = torch.randint(0, 1000, (len(images),))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def train() -> None:
        with arithmetic():
            logits = run(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()

    return train


if __name__ == "__main__":
    main()
