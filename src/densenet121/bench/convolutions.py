"""Only the convolutions of a network: the time that a step would take without all other work."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from densenet121.network.fused import plain_network


def convolutions_step(
    model: nn.Module, images: Tensor, dtype: torch.dtype, *, train: bool
) -> Callable[[], None]:
    """All convolutions of ``model`` in torch, on random numbers of the right shapes.

    Args:
        model: the network; its plain path pools before the transitions' convolutions.
        images: ``(N, 3, H, W)``.
        dtype: dtype of the numbers.
        train: also compute the gradients of weights and inputs (but not of the images).
    """
    found: list[tuple[nn.Conv2d, torch.Size]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        found.append((module, inputs[0].shape))

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad(), plain_network():
        model.eval()(images)
    memory: dict[torch.Size, Tensor] = {}

    def numbers(shape: torch.Size) -> Tensor:
        if shape not in memory:
            random = torch.randn(shape).to(dtype)
            memory[shape] = random.contiguous(memory_format=torch.channels_last)
        return memory[shape]

    work = []
    for module, shape in found:
        weight = module.weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)
        output = torch.conv2d(
            numbers(shape), weight, None, module.stride, module.padding, module.dilation
        )
        work.append((module, numbers(shape), weight, numbers(output.shape)))

    def step() -> None:
        for module, x, weight, gradient in work:
            torch.conv2d(x, weight, None, module.stride, module.padding, module.dilation)
            if not train:
                continue
            torch.ops.aten.convolution_backward(
                *(gradient, x, weight, None, module.stride, module.padding, module.dilation),
                *(False, [0, 0], 1, [x.shape[1] != 3, True, False]),
            )

    return step
