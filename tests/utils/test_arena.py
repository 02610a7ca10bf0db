"""Large tensors of training steps in one piece of memory."""

import gc
import io
import os
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from densenet121.utils import arena as arena_module
from densenet121.utils.arena import Arena, new_tensor, use_arena

from helpers.commands import run_code
from helpers.kernels import needs_kernels, random_images, small_net

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux")
PAGE = 4096


@pytest.fixture
def arena(monkeypatch: pytest.MonkeyPatch) -> Arena:
    """The process's own, for one test."""
    made = Arena(1 << 30)
    monkeypatch.setattr(arena_module, "_arena", made)
    return made


@given(st.lists(st.tuples(st.integers(1, 5 * PAGE), st.integers(0, 8)), max_size=40))
def test_no_tensor_overlaps_another_and_freed_memory_is_used_again(
    moves: list[tuple[int, int]],
) -> None:
    arena = Arena(32 * PAGE)
    held: dict[int, torch.Tensor] = {}
    for number, (count, freed) in enumerate(moves):
        tensor = arena.place(count, torch.uint8)
        if tensor is not None:
            held[number] = tensor.fill_(number)
        elif not held:
            pytest.fail("nothing is held, and there was no place")
        del tensor
        held.pop(number - freed, None)
        assert all(bool((kept == n).all()) for n, kept in held.items())
    held.clear()
    assert arena.place(32 * PAGE, torch.uint8) is not None


def test_the_lowest_gap_that_is_large_enough_is_taken() -> None:
    arena = Arena(16 * PAGE)
    places = [arena.place(n * PAGE, torch.uint8) for n in (1, 3, 1, 2, 1)]
    first, second, _, fourth, _ = (0 if p is None else p.data_ptr() for p in places)
    places[1] = places[3] = None
    small, large = arena.place(2 * PAGE, torch.uint8), arena.place(2 * PAGE, torch.uint8)
    assert small is not None and large is not None
    assert (small.data_ptr(), large.data_ptr()) == (second, fourth)
    assert second == first + PAGE
    assert arena.place(9 * PAGE, torch.uint8) is None


@pytest.mark.parametrize("shape", [(4, 200, 41, 40), (1, 1, 1024, 1024), (6, 700, 300)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.uint8])
def test_a_tensor_is_as_torch_makes_it(
    shape: tuple[int, ...], dtype: torch.dtype, arena: Arena
) -> None:
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    expected = torch.empty(shape, dtype=dtype, memory_format=layout)
    found = new_tensor(shape, dtype)
    assert (found.shape, found.dtype, found.stride()) == (shape, dtype, expected.stride())
    assert found.is_leaf and not found._is_view() and found.data_ptr() % 64 == 0
    assert arena._free[0][0] == -(-found.numel() * dtype.itemsize // PAGE) * PAGE
    held = io.BytesIO()
    torch.save(found, held)  # its own numbers, not the whole arena
    assert held.tell() < found.numel() * dtype.itemsize + 4096


def test_small_tensors_and_those_that_find_no_place_are_torchs_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arena = Arena(1 << 22)
    monkeypatch.setattr(arena_module, "_arena", arena)
    new_tensor((1000,), torch.float32)
    large = new_tensor((1 << 20, 2), torch.float32)
    assert large.shape == (1 << 20, 2)
    assert arena._free == [(0, 1 << 22)]


@needs_kernels
def test_a_training_step_has_the_same_bits_and_gives_all_memory_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(0)
        net = small_net().train()
        images = random_images(4, 64, 64).contiguous(memory_format=torch.channels_last)
        torch.autograd.backward(net(images).square().sum())
        return [p.grad for p in net.parameters() if p.grad is not None]

    expected = gradients()
    arena = Arena(1 << 30)
    monkeypatch.setattr(arena_module, "_arena", arena)
    monkeypatch.setattr(arena_module, "_SMALLEST_BYTES", PAGE)
    for _ in range(2):
        found = gradients()
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        gc.collect()
        assert arena._returned  # the last of the many that the step placed
        new_tensor((1 << 20,), torch.uint8)
        assert len(arena._free) == 1


@needs_kernels
@pytest.mark.slow
def test_a_step_needs_less_memory_than_on_the_heap() -> None:
    """In processes of their own: what was the most that each ever had."""
    code = """
import sys, torch
from densenet121.bench.worker import peak_bytes
from densenet121.network import densenet121
from densenet121.utils.arena import use_arena
from densenet121.utils.memory import keep_freed_memory
keep_freed_memory()
assert sys.argv[1] == "heap" or use_arena()
net = densenet121(num_classes=10).train()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
images = torch.randn(16, 3, 128, 128).contiguous(memory_format=torch.channels_last)
before = peak_bytes()
for _ in range(4):
    optimizer.zero_grad()
    torch.autograd.backward(net(images).sum())
    optimizer.step()
print(peak_bytes() - before)
"""
    done = {where: run_code(code, where) for where in ("heap", "arena")}
    assert all(one.returncode == 0 for one in done.values()), done
    most = {where: int(one.stdout) for where, one in done.items()}
    assert most["arena"] < 0.95 * most["heap"], most


def test_without_addresses_to_reserve_the_heap_is_taken() -> None:
    code = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
import torch
from densenet121.utils.arena import new_tensor, use_arena
print(use_arena(), new_tensor((1 << 20,), torch.float32).shape)
"""
    if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 9 << 30:
        pytest.skip("the whole memory fits the limit")
    result = run_code(code)
    assert result.stdout.split(" ", 1)[0] == "False", result.stderr


def test_it_is_one_for_the_whole_process() -> None:
    assert use_arena() and use_arena()
