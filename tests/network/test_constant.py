"""A network that is said to be constant has the same bits and is checked once, inside."""

import gc
import threading
import weakref

import pytest
import torch
from torch import Tensor, nn

from densenet121.network import DenseNet, constant_network
from densenet121.network.fused.watch import Watch

from helpers.kernels import needs_kernels, random_images, small_net


def infer(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        y: Tensor = net(x)
    return y


def change(net: DenseNet) -> None:
    with torch.no_grad():
        net.features.get_parameter("denseblock1.denselayer1.conv1.weight").mul_(-2)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One item for each check of a network."""
    found: list[object] = []
    original = Watch.state

    def counted(self: Watch, *others: object) -> list[object] | None:
        found.append(others)
        return original(self, *others)

    monkeypatch.setattr(Watch, "state", counted)
    return found


@needs_kernels
def test_inside_it_is_checked_once_and_has_the_same_bits(checks: list[object]) -> None:
    net, x = small_net().eval(), random_images(2, 32, 32)
    outside = infer(net, x)
    before = len(checks)
    with constant_network(net):
        assert all(torch.equal(infer(net, x), outside) for _ in range(5))
        assert len(checks) == before + 1
        with constant_network(net):
            infer(net, x)
        infer(net, x)
        assert len(checks) == before + 1
    assert torch.equal(infer(net, x), outside)
    assert len(checks) == before + 2


@needs_kernels
def test_a_change_before_it_begins_is_seen_and_one_inside_is_seen_after_it() -> None:
    net, x = small_net().eval(), random_images(2, 32, 32)
    infer(net, x)
    change(net)
    with constant_network(net):
        first = infer(net, x)
        change(net)
        assert torch.equal(infer(net, x), first)
    after = infer(net, x)
    assert not torch.equal(after, first)
    fresh = small_net().eval()
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(infer(fresh, x), after)


@needs_kernels
def test_another_arithmetic_inside_is_checked_for_itself() -> None:
    net, x = small_net().eval(), random_images(2, 32, 32)
    outside = infer(net, x)
    with torch.autocast("cpu", torch.bfloat16):
        in_bf16 = infer(net, x)
    with constant_network(net):
        for _ in range(2):
            assert torch.equal(infer(net, x), outside)
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(infer(net, x), in_bf16)


@needs_kernels
def test_other_networks_and_passes_with_gradients_are_checked_as_ever() -> None:
    net, other, x = small_net().eval(), small_net().eval(), random_images(2, 32, 32)
    with constant_network(net):
        before = infer(other, x)
        change(other)
        assert not torch.equal(infer(other, x), before)
        seen: list[Tensor] = []
        infer(net, x)
        hook = net.features.get_submodule("denseblock1").register_forward_hook(
            lambda *a: seen.append(a[2])
        )
        net(x).sum().backward()  # as for class-activation maps
        hook.remove()
    assert len(seen) == 1


@needs_kernels
def test_an_error_inside_ends_it() -> None:
    net, x = small_net().eval(), random_images(2, 32, 32)
    with pytest.raises(KeyboardInterrupt), constant_network(net):
        before = infer(net, x)
        raise KeyboardInterrupt
    change(net)
    assert not torch.equal(infer(net, x), before)


@needs_kernels
def test_threads_can_share_it() -> None:
    """The first that leaves ends it for all, which costs time and nothing else."""
    net, x = small_net().eval(), random_images(2, 32, 32)
    alone = infer(net, x)
    found: list[bool] = []

    def run(times: int) -> None:
        with constant_network(net):
            found.extend(torch.equal(infer(net, x), alone) for _ in range(times))

    several = [threading.Thread(target=run, args=(times,)) for times in (1, 5, 20)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()
    assert found == [True] * 26
    change(net)
    assert not torch.equal(infer(net, x), alone)


def test_models_without_a_network_are_taken_too_and_nothing_is_kept_alive() -> None:
    with constant_network(nn.Linear(2, 2)):
        pass
    net = small_net().eval()
    with constant_network(nn.Sequential(net)):
        infer(net, random_images(1, 32, 32))
        gone = weakref.ref(net.features.norm5)
    del net
    gc.collect()
    assert gone() is None
