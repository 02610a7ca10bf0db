"""The process of one side of a comparison: ``python -m densenet121.bench.worker JSON``.

Builds a network, then answers each line of standard input, "STEPS", with one line of JSON: the
seconds for this number of steps and the peak memory of the process. Ends with standard input.
"""

import contextlib
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
from densenet121.datasets.transforms import MEAN, STD
from densenet121.device import set_tf32
from densenet121.native.network import kernels
from densenet121.network import DenseNet, build, constant_network, set_recompute, set_triton
from densenet121.network.fused import plain_network
from densenet121.network.int8 import Int8Network, measure, quantise_network
from densenet121.utils.memory import prepare_for_training


def main() -> None:
    """Serve one of our own sides."""
    spec = json.loads(sys.argv[1])
    prepare_for_training()
    plain = spec["side"].startswith("plain")
    with plain_network() if plain else contextlib.nullcontext():
        serve(spec, lambda: _make_model(spec), _note)


def _make_model(spec: dict[str, Any]) -> nn.Module:
    model = build(spec["net"], num_classes=1000, variant=spec["variant"])
    if spec["side"] == "int8":
        return random_int8(model)
    set_recompute(model, spec["side"] == "plain-recompute")
    if spec["side"] == "triton":
        set_triton(model, torch.device(spec.get("device", "cpu")))
    return model


def random_int8(model: DenseNet) -> Int8Network:
    """The network in 8-bit integers, calibrated on noise: its speed is that of any weights."""
    images = torch.randn(1, model.in_channels, 64, 64)
    tensors = quantise_network(model, measure(model.eval(), [images]), MEAN.tolist(), STD.tolist())
    return Int8Network(tensors, model)


def serve(
    spec: dict[str, Any],
    make_model: Callable[[], nn.Module],
    note: Callable[[dict[str, Any]], str],
    make_step: "Callable[[dict[str, Any], nn.Module], Callable[[], None]] | None" = None,
) -> None:
    """Build a network, then answer every line of standard input.

    Args:
        spec: the specification from ``bench.compute``.
        make_model: builds the side's network; its library is already imported and not counted in
            the memory.
        note: returns the library and its version.
        make_step: returns the function to measure (default: ``step``).
    """
    out = sys.stdout
    sys.stdout = sys.stderr  # output of the libraries must not mix with the answers
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    text = note(spec)
    empty = peak_bytes()
    model = make_model()
    run = (make_step or step)(spec, model)
    print(json.dumps({"note": text, "torch": torch.__version__}), file=out, flush=True)
    device = torch.device(spec.get("device", "cpu"))
    # As eval, predict and serve do.
    fixed = constant_network(model) if spec["what"] == "infer" else contextlib.nullcontext()
    with fixed:
        for line in sys.stdin:
            start = time.perf_counter()
            for _ in range(int(line)):
                run()
            wait_for(device)
            seconds = time.perf_counter() - start
            peak = peak_bytes() - empty if device.type == "cpu" else device_peak_bytes(device)
            answer = {"seconds": seconds, "bytes": peak}
            print(json.dumps(answer), file=out, flush=True)


def peak_bytes() -> int:
    """Peak memory of this process (its resident set)."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage reports the parent's peak if that was larger
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def wait_for(device: torch.device) -> None:
    """Wait until the device has done all its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


def device_peak_bytes(device: torch.device) -> int:
    """Peak memory of the tensors of this process on an accelerator; 0 if it does not tell."""
    peak = getattr(torch.get_device_module(device), "max_memory_allocated", None)
    return int(peak(device)) if peak is not None else 0


def _note(spec: dict[str, Any]) -> str:
    found = kernels()
    if spec["side"].startswith("plain"):
        how = {"plain-compile": ", compiled", "plain-recompute": ", activations computed twice"}
        return f"the plain implementation{how.get(spec['side'], '')}"
    if spec["side"] == "triton":
        return "dense blocks by Triton kernels"
    if spec["side"] == "convolutions":
        return "only the convolutions"
    own = found if isinstance(found, str) else f"kernels for {found.instruction_set}"
    return f"int8, {own}" if spec["side"] == "int8" else own


def step(spec: dict[str, Any], model: nn.Module) -> Callable[[], None]:
    """One training step, or one inference, of a torch network."""
    side, (height, width) = spec["side"], spec["size"]
    reference = side == "torchvision-reference"
    layout = torch.contiguous_format if reference else torch.channels_last
    device = torch.device(spec.get("device", "cpu"))
    set_tf32(device, False)
    images = torch.randn(spec["batch_size"], 3, height, width).contiguous(memory_format=layout)
    images = images.to(device)
    bf16 = spec["amp"] == "bf16" and not reference
    model = model.to(device, memory_format=layout)  # type: ignore[call-overload]

    def arithmetic() -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()

    if side == "convolutions":
        dtype = torch.bfloat16 if bf16 else torch.float32
        with torch.no_grad():
            return convolutions_step(model, images, dtype, train=spec["what"] == "train")
    run: Callable[[Tensor], Tensor] = torch.compile(model) if side.endswith("compile") else model
    if spec["what"] == "infer":
        model.eval()

        def infer() -> None:
            with torch.inference_mode(), arithmetic():
                run(images)

        return infer

    model.train()
    if spec["what"] == "head":
        _freeze_all_but_head(model)
    labels = torch.randint(0, 1000, (len(images),)).to(device)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1, momentum=0.9, weight_decay=1e-4)

    def train() -> None:
        # First, as engine/step.py: the forward needs the memory.
        optimizer.zero_grad(set_to_none=True)
        with arithmetic():
            logits = run(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        torch.autograd.backward(loss)
        optimizer.step()

    return train


def _freeze_all_but_head(model: nn.Module) -> None:
    """As ``network.set_frozen`` does it, on the network of any library."""
    for module in model.children():
        if not isinstance(module, nn.Linear):
            module.eval().requires_grad_(False)


if __name__ == "__main__":
    main()
