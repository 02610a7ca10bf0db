"""The checks of ``gpu.py``: each yields rows with ``held``."""

import copy

import torch
from torch import Tensor

from densenet121.device import (
    arithmetic,
    has_bf16,
    pick_precision,
    pins_memory,
    set_exact,
    set_tf32,
)
from densenet121.engine.state import Training
from densenet121.engine.step import TrainingBatch, train_step
from densenet121.losses import smooth_cross_entropy
from densenet121.network import DenseNet, build, set_recompute, set_triton
from densenet121.network.triton import why_no_triton
from densenet121.optimizers import (
    OPTIMIZERS,
    get_param_groups,
    make_optimizer,
    momentum_sgd,
    optimizer_state,
    restore_optimizer,
)
from densenet121.runtime import make_runtime
from densenet121.utils.errors import InputError

from gpu_commands import command_line
from gpu_task import Rows, Task


def network(task: Task, device: torch.device, variant: str = "paper") -> DenseNet:
    """The same network in every call."""
    torch.manual_seed(0)
    model = build(task.net, num_classes=10, variant=variant)
    return model.to(device, memory_format=torch.channels_last).train()


def batch(task: Task, count: int = 8) -> tuple[Tensor, Tensor]:
    """The same images and labels in every call, on the CPU."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, task.side, task.side, generator=generator)
    return images, torch.randint(0, 10, (count,), generator=generator)


def training(
    model: DenseNet, precision: torch.dtype = torch.float32, *, graphs: bool = False
) -> Training:
    optimizer = momentum_sgd(get_param_groups(model, 1e-4), lr=0.01, momentum=0.9)
    scale_loss = precision == torch.float16
    return Training.begin(model, optimizer, scale_loss=scale_loss, graphs=graphs)


def one_step(state: Training, images: Tensor, labels: Tensor, precision: torch.dtype) -> Tensor:
    return train_step(
        state.synchronised,
        state.optimizer,
        state.scaler,
        [TrainingBatch(images, labels, 1.0)],
        smooth_cross_entropy,
        lr=0.01,
        precision=precision,
    )


def gradients(
    model: DenseNet, images: Tensor, labels: Tensor, precision: torch.dtype = torch.float32
) -> tuple[Tensor, dict[str, Tensor]]:
    with arithmetic(images.device, precision):
        logits = model(images)
    loss = smooth_cross_entropy(logits, labels)
    loss.backward()
    found = {name: p.grad.detach().cpu().double() for name, p in model.named_parameters()}
    return loss.detach().cpu().double(), found


def choices(task: Task) -> Rows:
    """What is chosen for this device."""
    precision = str(pick_precision(None, task.device))
    yield {"amp": precision, "bf16": has_bf16(task.device), "pinned": pins_memory(task.device)}


def against_float64(task: Task) -> Rows:
    """Loss and every gradient against the CPU in float64; the CPU in float32 sets the bound."""
    set_exact(task.device, True)
    set_tf32(task.device, False)
    cpu = torch.device("cpu")
    for variant in ("paper",) if task.dry else ("paper", "model_zoo"):
        model, (images, labels) = network(task, cpu, variant), batch(task)
        loss, truth = gradients(copy.deepcopy(model).double(), images.double(), labels)
        _, rounded = gradients(copy.deepcopy(model), images, labels)
        own = copy.deepcopy(model).to(task.device, memory_format=torch.channels_last)
        images, labels = images.to(task.device), labels.to(task.device)
        own_loss, found = gradients(own, images, labels)
        errors = [distance(found[name], truth[name]) for name in truth]
        bound = 10 * max(distance(rounded[name], truth[name]) for name in truth)
        row = {"variant": variant, "worst_gradient": max(errors), "bound": bound}
        row |= {"loss": float(own_loss), "loss_error": abs(float(own_loss - loss))}
        yield row | {"held": max(errors) <= bound and row["loss_error"] < 1e-4}


def distance(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm() / truth.norm().clamp(min=1e-12))


def triton_blocks(task: Task) -> Rows:
    """Dense blocks by Triton kernels against the CPU in float64, and two passes bit for bit."""
    reason = why_no_triton(task.device)
    if reason:
        yield {"skipped": reason}
        return
    set_exact(task.device, True)
    set_tf32(task.device, False)
    cpu = torch.device("cpu")
    # Triton's interpreter, which runs them on a CPU, takes minutes for a larger one.
    sizes = {"growth_rate": 8, "block_config": (2, 2), "num_init_features": 12}
    for variant in ("paper", "model_zoo"):
        torch.manual_seed(0)
        model = DenseNet(**sizes, num_classes=10, variant=variant) if task.dry else None
        model = (model or network(task, cpu, variant)).train()
        images, labels = batch(task, 3)
        loss, truth = gradients(copy.deepcopy(model).double(), images.double(), labels)
        _, rounded = gradients(copy.deepcopy(model), images, labels)
        own = copy.deepcopy(model).to(task.device, memory_format=torch.channels_last)
        set_triton(own, task.device)
        again = copy.deepcopy(own)
        images, labels = images.to(task.device), labels.to(task.device)
        own_loss, found = gradients(own, images, labels)
        _, second = gradients(again, images, labels)
        bound = 10 * max(distance(rounded[name], truth[name]) for name in truth)
        errors = [distance(found[name], truth[name]) for name in truth]
        row = {"variant": variant, "worst_gradient": max(errors), "bound": bound}
        row |= {"equal_runs": all(torch.equal(found[name], second[name]) for name in found)}
        row |= {"loss_error": abs(float(own_loss - loss))}
        held = max(errors) <= bound and row["loss_error"] < 1e-4 and row["equal_runs"]
        if has_bf16(task.device) and not task.dry:
            plain = copy.deepcopy(model).to(task.device, memory_format=torch.channels_last)
            model.to(task.device, memory_format=torch.channels_last)
            set_triton(model, task.device)
            for name, net in (("plain_bf16", plain), ("triton_bf16", model)):
                _, found = gradients(net, images, labels, torch.bfloat16)
                row[name] = distance(*(flat(of) for of in (found, truth)))
            held = held and row["triton_bf16"] < 1.5 * row["plain_bf16"]
        yield row | {"held": held}


def flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients.values()])


def recomputed(task: Task) -> Rows:
    """Activations computed again in the backward pass: the same bits, and the memory of both."""
    set_exact(task.device, True)
    ends, peaks = [], []
    for on in (False, True):
        model = network(task, task.device)
        set_recompute(model, on)
        images, labels = (tensor.to(task.device) for tensor in batch(task))
        if task.is_cuda:
            torch.cuda.reset_peak_memory_stats()
        ends.append(gradients(model, images, labels)[1])
        peaks.append(torch.cuda.max_memory_allocated() if task.is_cuda else None)
    held = all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    yield {"bytes_stored": peaks[0], "bytes_recomputed": peaks[1], "held": held}


def graphs(task: Task) -> Rows:
    """Steps as CUDA graphs: the same weights, statistics and logits, bit for bit, as without."""
    if not task.is_cuda:
        yield {"skipped": "this device has no CUDA graphs"}
        return
    set_exact(task.device, True)
    choices = {"plain": None, "recomputed": set_recompute, "triton": set_triton}
    for name, choose in choices.items():
        if name == "triton" and why_no_triton(task.device):
            continue
        for precision in (torch.float32, torch.bfloat16):
            ends = []
            for graphed in (False, True):
                model = network(task, task.device)
                if choose is not None:
                    choose(model, task.device if name == "triton" else True)
                state = training(model, precision, graphs=graphed)
                # A smaller batch between has graphs of its own.
                for count in (8, 8, 3, 8, 3):
                    images, labels = (tensor.to(task.device) for tensor in batch(task, count))
                    one_step(state, images, labels, precision)
                ends.append([tensor.cpu() for tensor in model.state_dict().values()])
            held = all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
            yield {"network": name, "precision": str(precision), "held": held}


def reduced_precision(task: Task) -> Rows:
    """The loss falls in every arithmetic that the device has, and starts at that of float32."""
    first: float | None = None
    kinds = [torch.float32, *([torch.bfloat16] if task.dry else [torch.bfloat16, torch.float16])]
    for precision in kinds:
        state = training(network(task, task.device), precision)
        images, labels = (tensor.to(task.device) for tensor in batch(task))
        losses = [float(one_step(state, images, labels, precision)) for _ in range(6)]
        first = losses[0] if first is None else first
        held = abs(losses[0] - first) < 0.1 and losses[-1] < losses[0]
        yield {"precision": str(precision), "losses": losses, "held": held}


def no_waits(task: Task) -> Rows:
    """Five steps in which the host never waits for the device; CUDA says so itself."""
    if not task.is_cuda:
        yield {"skipped": "CUDA's check of synchronisations is not on this device"}
        return
    for precision in (torch.bfloat16, torch.float16):
        state = training(network(task, task.device), precision)
        images, labels = (tensor.to(task.device) for tensor in batch(task))
        one_step(state, images, labels, precision)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(5):
                loss = one_step(state, images, labels, precision)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        yield {"precision": str(precision), "loss": float(loss), "held": True}


def equal_runs(task: Task) -> Rows:
    """Two runs end with the same bits."""
    set_exact(task.device, True)
    precision = pick_precision(None, task.device)
    ends = []
    for _ in range(2):
        state = training(network(task, task.device), precision)
        images, labels = (tensor.to(task.device) for tensor in batch(task))
        for _ in range(3 if task.dry else 30):
            one_step(state, images, labels, precision)
        ends.append([tensor.cpu() for tensor in state.model.state_dict().values()])
    yield {"held": all(torch.equal(a, b) for a, b in zip(*ends, strict=True))}


def optimizers(task: Task) -> Rows:
    """Each optimiser, restored from the CPU after two steps, goes on with the same bits."""
    set_exact(task.device, True)
    images, labels = (tensor.to(task.device) for tensor in batch(task, 3))
    for name in OPTIMIZERS:
        model = network(task, task.device)
        optimizer = make_optimizer(name, get_param_groups(model, 1e-4), lr=1e-3, momentum=0.9)
        whole = Training.begin(model, optimizer, scale_loss=False)
        for _ in range(2):
            one_step(whole, images, labels, torch.float32)
        again = copy.deepcopy(model)
        restored = make_optimizer(name, get_param_groups(again, 1e-4), lr=1e-3, momentum=0.9)
        tensors, values = optimizer_state(model, optimizer)
        stored = {key: tensor.clone().cpu() for key, tensor in tensors.items()}
        restore_optimizer(again, restored, stored, values)
        for state in (whole, Training.begin(again, restored, scale_loss=False)):
            for _ in range(2):
                one_step(state, images, labels, torch.float32)
        ends = [list(net.state_dict().values()) for net in (model, again)]
        held = all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
        yield {"optimizer": name, "held": held}


def lack_of_memory(task: Task) -> Rows:
    """An allocation that cannot succeed is one line of ours."""
    runtime = make_runtime(task.device.type, batch_size=7)
    try:
        with runtime.named_memory_errors():
            torch.empty(2**50, dtype=torch.uint8, device=task.device)
    except InputError as error:
        yield {"text": str(error), "held": "`per_batch_size` 7" in str(error)}
    else:
        yield {"held": False}


CHECKS = (
    choices,
    against_float64,
    triton_blocks,
    recomputed,
    graphs,
    reduced_precision,
    no_waits,
    equal_runs,
    optimizers,
    lack_of_memory,
    command_line,
)
