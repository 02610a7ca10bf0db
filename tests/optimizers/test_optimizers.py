import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densenet121.losses import smooth_cross_entropy
from densenet121.network import NETWORKS, DenseNet, Variant, densenet121
from densenet121.optimizers import (
    get_param_groups,
    momentum_sgd,
    optimizer_state,
    restore_optimizer,
)
from densenet121.utils.var_init import initialise

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def small_net(device: str) -> nn.Sequential:
    """One tensor of each kind that a DenseNet has."""
    net = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Linear(5, 7))
    return net.to(device)


def set_grads(params: list[nn.Parameter], generator: torch.Generator, scale: float = 1.0) -> None:
    for p in params:
        p.grad = scale * torch.randn(p.shape, generator=generator).to(p.device)


def groups_of(model: nn.Module) -> Iterator[tuple[set[int], dict[str, Any]]]:
    for group in get_param_groups(model, 1e-4):
        yield {id(p) for p in group["params"]}, group


def test_densenet121_decays_121_tensors_and_leaves_243() -> None:
    with torch.device("meta"):
        model = densenet121()
    without, decayed = get_param_groups(model, 1e-4)
    # conv0 + 2 * 58 layers + 3 transitions = 120 convolutions; + the classifier's weight
    assert (len(decayed["params"]), decayed["weight_decay"]) == (121, 1e-4)
    # weight and bias of norm0, 2 * 58 layers, 3 transitions, norm5 = 242; + the classifier's bias
    assert (len(without["params"]), without["weight_decay"]) == (243, 0.0)
    assert sum(p.numel() for p in decayed["params"] + without["params"]) == 7_978_856


@pytest.mark.parametrize("net", NETWORKS)
def test_no_batch_norm_and_no_bias_is_decayed(net: str) -> None:
    with torch.device("meta"):
        model = NETWORKS[net]()
    (without, _), (decayed, _) = groups_of(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert {id(module.weight), id(module.bias)} <= without
        elif isinstance(module, nn.Conv2d):
            assert id(module.weight) in decayed
    assert id(model.classifier.weight) in decayed
    assert id(model.classifier.bias) in without
    assert without | decayed == {id(p) for p in model.parameters()}
    assert not without & decayed


@pytest.mark.parametrize("device", DEVICES)
def test_steps_equal_the_originals_update_written_out(device: str) -> None:
    lrs, momentum, weight_decay, loss_scale = (0.1, 0.2, 0.05, 0.05), 0.9, 0.01, 1024.0
    model, generator = small_net(device), torch.Generator().manual_seed(1)
    params = list(model.parameters())
    expected = [p.detach().cpu().double() for p in params]
    velocity = [torch.zeros_like(p) for p in expected]
    optimizer = momentum_sgd(get_param_groups(model, weight_decay), lr=lrs[0], momentum=momentum)
    for lr in lrs:
        set_grads(params, generator)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        for i, p in enumerate(params):
            assert p.grad is not None
            g = p.grad.cpu().double() * loss_scale
            if p.ndim > 1:
                g += weight_decay * loss_scale * expected[i]
            g *= 1 / loss_scale
            velocity[i] = momentum * velocity[i] + g
            expected[i] = expected[i] - lr * velocity[i]
    for p, reference in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach().cpu().double(), reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_a_first_step_that_overflows_leaves_no_trace(device: str) -> None:
    """torch's fused SGD alone would keep uninitialised memory as momentum here."""

    def train(*, overflow_first: bool) -> tuple[list[Tensor], torch.optim.SGD]:
        torch.manual_seed(1)
        model, generator = small_net(device), torch.Generator().manual_seed(1)
        params = list(model.parameters())
        optimizer = momentum_sgd(get_param_groups(model, 0.01), lr=0.1, momentum=0.9)
        scaler = torch.amp.GradScaler(device, init_scale=64.0)
        if overflow_first:
            set_grads(params, generator, scale=float("inf"))
            scaler.scale(torch.ones((), device=device))
            scaler.step(optimizer)
            scaler.update()
            assert scaler.get_scale() == 32.0
            generator.manual_seed(1)
        for _ in range(2):
            set_grads(params, generator, scale=scaler.get_scale() if overflow_first else 64.0)
            scaler.scale(torch.ones((), device=device))
            scaler.step(optimizer)
            scaler.update()
        return [p.detach() for p in params], optimizer

    clean, _ = train(overflow_first=False)
    overflowed, optimizer = train(overflow_first=True)
    for a, b in zip(clean, overflowed, strict=True):
        assert torch.equal(a, b)
    assert all(group["fused"] for group in optimizer.param_groups)


def test_without_momentum_there_is_no_state() -> None:
    model = small_net("cpu")
    optimizer = momentum_sgd(get_param_groups(model, 0.0), lr=0.5, momentum=0.0)
    before = [p.detach().clone() for p in model.parameters()]
    set_grads(list(model.parameters()), torch.Generator().manual_seed(1))
    optimizer.step()
    assert not optimizer.state_dict()["state"]
    for p, old in zip(model.parameters(), before, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.detach(), old - 0.5 * p.grad)


def test_a_device_without_the_fused_kernel_gets_torchs_default() -> None:
    model = small_net("meta")
    optimizer = momentum_sgd(get_param_groups(model, 0.1), lr=0.1, momentum=0.9)
    assert [group["fused"] for group in optimizer.param_groups] == [None, None]


def test_a_restored_state_goes_on_bitwise() -> None:
    generator = torch.Generator().manual_seed(1)
    model, copy = small_net("cpu"), small_net("cpu")
    optimizer = momentum_sgd(get_param_groups(model, 0.1), lr=0.1, momentum=0.9)
    set_grads(list(model.parameters()), generator)
    optimizer.step()

    copy.load_state_dict(model.state_dict())
    restored = momentum_sgd(get_param_groups(copy, 0.1), lr=0.1, momentum=0.9)
    restored.load_state_dict(deepcopy(optimizer.state_dict()))  # a file would not alias
    for net, its_optimizer in ((model, optimizer), (copy, restored)):
        set_grads(list(net.parameters()), torch.Generator().manual_seed(2))
        its_optimizer.step()
    for a, b in zip(model.parameters(), copy.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
def test_one_batch_can_be_overfitted(variant: Variant) -> None:
    generator = torch.Generator().manual_seed(1)
    model = DenseNet(
        growth_rate=4,
        block_config=(2, 2),
        num_init_features=6,
        num_classes=4,
        variant=variant,
        stem="cifar",
    )
    initialise(model, generator)
    images = torch.randn(8, 3, 16, 16, generator=generator)
    labels = torch.arange(8) % 4
    optimizer = momentum_sgd(get_param_groups(model, 1e-4), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(60):
        loss = smooth_cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1
    assert losses[-1] < 0.01


OPTIMIZERS: list[Callable[[list[dict[str, Any]]], torch.optim.Optimizer]] = [
    lambda groups: momentum_sgd(groups, lr=0.1, momentum=0.9),
    lambda groups: momentum_sgd(groups, lr=0.1, momentum=0.0),
    lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True),
    lambda groups: torch.optim.Adam(groups, lr=0.01, amsgrad=True),
    lambda groups: torch.optim.AdamW(groups, lr=0.01, fused=True),
    lambda groups: torch.optim.RMSprop(groups, lr=0.01, centered=True),
]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_the_state_of_any_optimizer_is_put_back_to_the_bit(
    make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
) -> None:
    def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 2))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make(get_param_groups(model, 1e-2))
    for number in range(3):
        step(model, optimizer, number)
    other = deepcopy(model)
    resumed = make(get_param_groups(other, 1e-2))
    tensors, values = optimizer_state(model, optimizer)
    stored = {
        name: tensor.clone(memory_format=torch.contiguous_format)  # as a file gives them back
        for name, tensor in tensors.items()
    }
    restore_optimizer(other, resumed, stored, json.loads(json.dumps(values)))
    for number in range(3, 6):
        step(model, optimizer, number)
        step(other, resumed, number)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        for key, value in optimizer.state[a].items():
            if isinstance(value, Tensor) and value.ndim:
                assert value.stride() == resumed.state[b][key].stride() == a.stride()


@pytest.mark.parametrize("fused", [True, None])
def test_steps_are_counted_where_the_kernel_reads_them(fused: bool | None) -> None:
    """A fused kernel of a GPU fails with a count that a checkpoint left on the CPU."""
    model = small_net("meta")
    optimizer = torch.optim.AdamW(get_param_groups(model, 0.1), fused=fused)
    names = [name for name, _ in model.named_parameters()]
    restore_optimizer(model, optimizer, {f"{name}.step": torch.tensor(3.0) for name in names}, {})
    found = [state["step"].device.type for state in optimizer.state.values()]
    assert found == ["meta" if fused else "cpu"] * len(names)
