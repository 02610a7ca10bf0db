"""A second derivative through the kernels is refused, however it is asked for, and never zero."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import functional

from densenet121.network import plain_network
from densenet121.network.first_derivative import first_derivative, link_to

from helpers.kernels import distance, needs_kernels, random_images, small_net

Way = Callable[[nn.Module, Tensor], Any]


def _by_functional(function: Any) -> Way:
    def found(net: nn.Module, x: Tensor) -> Any:
        return function(lambda images: net(images).square().sum(), x, torch.ones_like(x))[1]

    return found


def _hessian_of_a_factor(net: nn.Module, x: Tensor) -> Any:
    return functional.hessian(  # type: ignore[no-untyped-call]
        lambda factor: net(x * factor).square().sum(), torch.ones((), dtype=x.dtype)
    )


def _through(*names: str) -> Way:
    """The gradient of a gradient penalty, for some of the parameters."""

    def found(net: nn.Module, x: Tensor) -> Any:
        x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        chosen = [net.get_parameter(name) for name in names]
        return torch.autograd.grad(slope.square().sum(), chosen)[0]

    return found


WAYS = {
    "hvp": _by_functional(functional.hvp),
    "vhp": _by_functional(functional.vhp),
    "hessian": _hessian_of_a_factor,
    "penalty, first convolution": _through("features.conv0.weight"),
    "penalty, a block": _through("features.denseblock1.denselayer1.conv1.weight"),
    "penalty, a transition": _through("features.transition1.conv.weight"),
    "penalty, classifier": _through("classifier.weight"),
}


@needs_kernels
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_second_derivative_is_refused_however_it_is_asked_for(way: str, training: bool) -> None:
    net = small_net().double().train(training)
    x = random_images(2, 32, 32).double()
    with pytest.raises(RuntimeError, match="differentiate twice") as caught:
        WAYS[way](net, x)
    assert "plain_network()" in str(caught.value)
    with plain_network():
        assert WAYS[way](net, x).abs().max() > 0


@needs_kernels
def test_a_gradient_with_a_graph_is_the_gradient_and_later_steps_are_as_ever() -> None:
    net, x = small_net().double(), random_images(2, 32, 32).double()
    net(x).square().sum().backward()
    expected = [parameter.grad for parameter in net.parameters()]
    found = torch.autograd.grad(net(x).square().sum(), list(net.parameters()), create_graph=True)
    for a, b in zip(found, expected, strict=True):
        assert distance(a.detach(), b) == 0


@needs_kernels
def test_a_batch_of_gradients_is_refused_in_one_line() -> None:
    net, x = small_net().double(), random_images(2, 32, 32).double()
    with pytest.raises(RuntimeError, match=r"one at a time.*plain_network\(\)"):
        functional.jacobian(net, x, vectorize=True)  # type: ignore[no-untyped-call]


def test_a_link_keeps_the_path_but_no_memory() -> None:
    x = torch.ones(3, 4, requires_grad=True) * 2
    link = link_to(x)
    assert link.requires_grad and link.untyped_storage().nbytes() == 0


class _Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, other: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @first_derivative
    def backward(ctx: Any, saved: tuple[Any, ...], gradient: Tensor) -> tuple[Tensor | None, ...]:
        return 2 * saved[0] * gradient, None


def test_a_derivative_that_does_not_go_through_the_kernels_is_given() -> None:
    x, scale = torch.tensor(3.0, requires_grad=True), torch.tensor(5.0, requires_grad=True)
    (slope,) = torch.autograd.grad(_Square.apply(x, x), x, create_graph=True)  # type: ignore[no-untyped-call]
    assert slope.item() == 6
    (found,) = torch.autograd.grad(slope * scale, scale)
    assert found.item() == 6
