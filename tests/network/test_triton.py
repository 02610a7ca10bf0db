"""Dense blocks by Triton kernels, in Triton's interpreter, against the plain network in float64.

Run by `make test-triton`, in an environment that has Triton. The interpreter runs one program after
another, with numpy: it shows that addresses, masks, products and sums are right. It shows no race
between programs, no rounding of a GPU's products, and no speed.
"""

import contextlib
import copy
import importlib.util
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densenet121.network import (
    DenseBlock,
    DenseNet,
    Variant,
    plain_network,
    set_frozen,
    set_recompute,
    set_triton,
)
from densenet121.network.compiled import named_compile_errors
from densenet121.utils.errors import InputError, UsageError

from helpers.commands import environment
from helpers.kernels import distance, random_block, random_images, random_input, small_net

CPU = torch.device("cpu")
has_triton = importlib.util.find_spec("triton") is not None
interpreted = pytest.mark.skipif(
    not has_triton or os.environ.get("TRITON_INTERPRET") != "1",
    reason="needs Triton and TRITON_INTERPRET=1: make test-triton",
)


def assert_close(own: nn.Module, truth: nn.Module, tolerance: float) -> None:
    """Gradients and buffers; one that is zero but for rounding is compared to the largest."""
    gradients = [p.grad for p in truth.parameters() if p.grad is not None]
    floor = 1e-2 * max(float(gradient.norm()) for gradient in gradients)
    for (name, p), q in zip(own.named_parameters(), truth.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        assert q.grad is None or distance(p.grad, q.grad, floor) < tolerance, name
    for (name, found), expected in zip(own.named_buffers(), truth.buffers(), strict=True):
        assert distance(found, expected) < tolerance, name


@interpreted
@pytest.mark.parametrize(
    ("layers", "columns", "growth", "shape"),
    [(2, 8, 4, (2, 5, 7)), (3, 21, 12, (3, 9, 5)), (2, 70, 33, (1, 9, 13)), (1, 1, 1, (3, 1, 1))],
)
@pytest.mark.parametrize("training", [True, False])
def test_a_block_equals_the_plain_one_in_float64(
    layers: int, columns: int, growth: int, shape: tuple[int, int, int], training: bool
) -> None:
    """Output, gradients, running statistics; odd sizes, several tiles, frozen norms."""
    truth = random_block(layers, columns, growth)
    for buffer in truth.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5, generator=torch.manual_seed(2))
    truth.train(training)
    own = copy.deepcopy(truth).float()
    set_triton(own, CPU)
    x = random_input(shape[0], columns, *shape[1:])
    inputs = x.clone().requires_grad_(), x.float().requires_grad_()
    with plain_network():
        expected = truth(inputs[0])
    found = own(inputs[1])
    assert found.is_contiguous(memory_format=torch.channels_last)
    weight = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view(expected.shape)
    torch.autograd.backward([(expected * weight).sum(), (found * weight.float()).sum()])
    assert distance(found.detach(), expected.detach()) < 1e-5
    if x.numel() > 100:  # of three values a norm leaves rounding
        assert distance(inputs[1].grad, inputs[0].grad) < 1e-5
        assert_close(own, truth, 1e-5)


def step(net: DenseNet, images: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
    reduced = precision == torch.float16
    with torch.autocast("cpu", precision) if reduced else contextlib.nullcontext():
        logits: Tensor = net(images)
    loss = nn.functional.cross_entropy(logits.to(images.dtype), torch.arange(len(images)) % 5)
    torch.autograd.backward(loss)
    return loss.detach()


@interpreted
@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
@pytest.mark.parametrize(("frozen", "norms"), [((), "auto"), (("stem", "block1"), "0"), ((), "1")])
def test_a_step_of_the_network_equals_the_plain_one_in_float64(
    variant: Variant, frozen: tuple[str, ...], norms: str
) -> None:
    """Loss, gradients, running statistics; frozen stages, frozen norms."""
    truth = small_net(variant).double()
    set_frozen(truth, frozen, norms)
    own = copy.deepcopy(truth).float()
    set_triton(own, CPU)
    images = random_images(3, 37, 42)
    with plain_network():
        expected = step(truth, images.double())
    torch.testing.assert_close(step(own, images).double(), expected, rtol=1e-5, atol=0)
    assert_close(own, truth, 1e-5)


@interpreted
def test_poolings_that_were_changed_are_computed_as_they_are() -> None:
    truth: Any = small_net().double()
    truth.features.transition1.pool = torch.nn.AvgPool2d(2, stride=1)
    truth.features.pool0 = torch.nn.MaxPool2d(2)
    own = copy.deepcopy(truth).float()
    set_triton(own, CPU)
    images = random_images(3, 37, 42)
    with plain_network():
        expected = step(truth, images.double())
    torch.testing.assert_close(step(own, images).double(), expected, rtol=1e-5, atol=0)
    assert_close(own, truth, 1e-5)


@interpreted
@pytest.mark.parametrize("variant", ["paper", "model_zoo"])
def test_programs_of_several_tiles_equal_the_plain_network(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU each program of a large batch works on several tiles, one after another."""
    from densenet121.network.triton import launch, pooling

    for module, name in ((launch, "PROGRAMS"), (pooling, "PROGRAMS"), (launch, "_SHARES")):
        monkeypatch.setattr(module, name, 3)
    truth = small_net(variant).double()
    own = copy.deepcopy(truth).float()
    set_triton(own, CPU)
    images = random_images(5, 61, 58)
    with plain_network():
        expected = step(truth, images.double())
    torch.testing.assert_close(step(own, images).double(), expected, rtol=1e-5, atol=0)
    assert_close(own, truth, 1e-5)


@interpreted
def test_two_passes_have_the_same_bits_also_with_recomputed_transitions() -> None:
    net, images = small_net(), random_images(2, 33, 33)
    set_triton(net, CPU)
    first, second = copy.deepcopy(net), copy.deepcopy(net)
    set_recompute(second, True)
    assert torch.equal(step(first, images), step(second, images))
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=0)
    for found, expected in zip(first.buffers(), second.buffers(), strict=True):
        assert torch.equal(found, expected)


@interpreted
def test_fp16_is_about_as_far_from_the_truth_as_the_plain_network() -> None:
    """Of bf16 the interpreter multiplies the bits as whole numbers, so it cannot be checked."""
    truth = small_net().double().train()
    plain, own = copy.deepcopy(truth).float(), copy.deepcopy(truth).float()
    set_triton(own, CPU)
    images = random_images(4, 40, 40)
    with plain_network():
        step(truth, images.double())
        step(plain, images, torch.float16)
    step(own, images, torch.float16)
    total = [
        torch.cat([p.grad.double().flatten() for p in net.parameters() if p.grad is not None])
        for net in (truth, plain, own)
    ]
    assert distance(total[2], total[0]) < 1.5 * distance(total[1], total[0])


@interpreted
def test_a_hook_inside_a_block_is_called() -> None:
    block: Any = random_block(2, 8, 4).float()
    set_triton(block, CPU)
    seen: list[bool] = []
    block.denselayer1.register_forward_hook(lambda *_: seen.append(True))
    block(random_input(1, 8, 4, 4).float())
    assert seen == [True]


# Needs no GPU: Triton has NVIDIA's assembler with it.
COMPILE = """
import sys, warnings
warnings.simplefilter("ignore")
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from densenet121.network.triton import backward_kernels, kernels, pooling_kernels

WHOLE = {"rows", "columns", "stride", "first", "depth", "tiles", "programs", "each", "width"}
WHOLE |= {"height", "down", "across", "pad_y", "pad_x"}
OF_FLOAT32 = {"gamma", "beta", "mean", "variance", "affine", "owed", "parts", "weights"}
OF_FLOAT32 |= {"d_gamma", "d_beta"}
FIXED = {"BM": 64, "BN": 64, "BK": 32, "BP": 64, "BD": 128, "PRECISION": "ieee"}
FIXED |= dict.fromkeys(("COPY", "NORM", "FROZEN", "ADD", "MAXIMUM"), True)
HELPERS = ("norm_at", "store_two", "tile_at", "through_norm")
capability = int(sys.argv[1])
for module in (kernels, backward_kernels, pooling_kernels):
    for name, kernel in vars(module).items():
        found = isinstance(kernel, triton.JITFunction) and kernel.__module__ == module.__name__
        if not found or name in HELPERS or name.startswith("_"):
            continue
        fixed = {name: value for name, value in FIXED.items() if name in kernel.arg_names}
        kinds = {name: "*fp32" if name in OF_FLOAT32 else "*bf16" for name in kernel.arg_names}
        kinds |= dict.fromkeys(WHOLE & kinds.keys(), "i32") | dict.fromkeys(fixed, "constexpr")
        kinds |= {"eps": "fp32"} if "eps" in kinds else {}
        kinds |= {"chosen": "*i8"} if "chosen" in kinds else {}
        source = ASTSource(kernel, kinds, constexprs=fixed)
        code = triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]
        print(name, len(code) > 0)
"""


@interpreted
def test_every_kernel_compiles_for_an_nvidia_gpu() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, "80"],
        env=environment(TRITON_INTERPRET="0"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[::2] == [
        *("append", "statistics", "first_product", "normalise"),
        *("read_gradient", "open_relu", "norm_sums", "norm_gradient", "layer_gradient"),
        *("average", "maximum", "pool_sums", "pool_gradient"),
    ]
    assert set(done.stdout.split()[1::2]) == {"True"}


def test_without_a_gpu_the_kernels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UsageError, match="`triton` 1: Triton has no code for this device, cpu"):
        set_triton(small_net(), CPU)
    assert not any(block.triton for block in small_net().modules() if isinstance(block, DenseBlock))


@pytest.mark.skipif(has_triton, reason="Triton is installed")
def test_without_triton_the_kernels_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"the package triton, .* is not installed; pass `triton` 0"
    ):
        set_triton(small_net(), torch.device("cuda"))


def test_kernels_that_triton_cannot_compile_are_one_line() -> None:
    class OutOfResources(Exception):
        pass

    OutOfResources.__module__ = "triton.runtime.errors"
    with pytest.raises(InputError) as caught, named_compile_errors():
        raise OutOfResources("70000 of 65536 bytes")
    assert "(OutOfResources: 70000 of 65536 bytes)" in str(caught.value)
    assert str(caught.value).endswith("pass `triton` 0")
