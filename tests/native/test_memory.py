"""A lack of memory or of threads in the kernels: an error in Python, or nothing at all."""

import os
import subprocess
import sys

import pytest
import torch

from helpers.commands import environment
from helpers.forking import Forked
from helpers.kernels import LIBRARY, distance, needs_kernels

# Parallel regions whose threads need more memory than there is. The structures and tensors exist
# before the limit is set, and the main thread has its own share: the other one finds none.
LACK = """
import resource, sys, time
import torch
from densenet121.native.network import kernels
from densenet121.network.fused.arguments import block_arguments, layer_parameters, make_plan
from densenet121.network.fused.inference import InferenceArguments
sys.path.insert(0, "tests")
from helpers.kernels import random_block, random_input

function, dtype = sys.argv[1], getattr(torch, sys.argv[2])
block = random_block(2, 16, 32).float() if dtype != torch.float64 else random_block(2, 16, 32)
x = random_input(2, 16, 4, 4000).to(dtype).contiguous(memory_format=torch.channels_last)
columns = 16 + 2 * 32
y = torch.empty((2, columns, 4, 4000), dtype=dtype, memory_format=torch.channels_last)
z = torch.empty((2, 128, 4, 4000), dtype=dtype, memory_format=torch.channels_last)
frozen = function != "block_forward"
layers = list(block)
norms = [norm for layer in layers for norm in (layer.norm1, layer.norm2)]
plan = make_plan(kernels(), dtype, layers, norms, x, frozen=frozen, patch_pixels=4)
weights = [p.detach() for layer in layers for p in layer_parameters(layer)]
arguments = block_arguments(plan, y, z, weights, 16)
arguments.x = x.data_ptr()
if frozen:
    arguments = InferenceArguments(block=arguments)
    plan.kernels.call("inference_fingerprint", dtype, arguments)
    real = torch.float64 if dtype == torch.float64 else torch.float32
    packed = torch.empty(arguments.weight_numbers, dtype=dtype)
    norms = torch.empty(arguments.norm_numbers, dtype=real)
    arguments.weights, arguments.norms = packed.data_ptr(), norms.data_ptr()
    if function == "inference_run":
        plan.kernels.call("inference_pack", dtype, arguments)
own = arguments.block if frozen else arguments

def call(threads, images):
    own.threads, own.images = threads, images
    plan.kernels.call(function, dtype, arguments)

if function != "inference_pack":  # which would keep the memory of a call before
    own.width = 8
    call(2, 2)  # both threads exist
    own.width = 4000
    call(1, 2)  # the main thread has all that it needs
first = y.clone()
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limits = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), limits[1]))
answer = "enough"
try:
    # On a busy machine a late thread may find no pieces left, or the main one goes on alone.
    until = time.monotonic() + 60
    while time.monotonic() < until:
        call(2, 2)
except MemoryError as error:
    answer = str(error)
resource.setrlimit(resource.RLIMIT_AS, limits)
call(2, 2)
if function == "inference_pack":  # one thread packs what two have packed
    y = packed.view(torch.int16)  # whole numbers, some of which would be nan
    first = y.clone()
    call(1, 2)
print(answer, torch.equal(first, y) or f"{(first - y).abs().max()}", flush=True)
"""


def run(code: str, *arguments: str, **more: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.strip()


# The memory is asked for in one place for all of them; each takes half a minute on a slow machine.
TYPES = ["float32", pytest.param("float64", marks=pytest.mark.slow), "bfloat16"]


@needs_kernels
@pytest.mark.parametrize("function", ["block_forward", "inference_run", "inference_pack"])
@pytest.mark.parametrize("name", TYPES)
def test_lack_of_memory_in_a_thread_is_an_error_and_the_next_call_is_right(
    function: str, name: str
) -> None:
    assert not isinstance(LIBRARY, str)
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("the sanitizer needs more address space than any limit")
    if not LIBRARY.supports(getattr(torch, name)):
        pytest.skip(f"no kernels for {name} on this machine")
    packs = name == "bfloat16" and LIBRARY.has("network_run", torch.bfloat16)
    if function == "inference_pack" and not packs:
        pytest.skip("it packs into the memory it is given")
    # Neither what was freed nor what a thread has in reserve is there for the threads.
    malloc = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    answer = run(LACK, function, name, OMP_NUM_THREADS="2", **malloc)
    assert answer.startswith(f"not enough memory for the kernel {function}_")
    assert answer.endswith(" True")


FEWER = """
import sys
import torch
sys.path.insert(0, "tests")
from helpers.kernels import random_block, random_input
torch.set_num_threads(4)
block, x = random_block(2, 40, 8), random_input(3, 40, 9, 9)
block(x).square().sum().backward()
block.zero_grad()
block(x).square().sum().backward()
torch.save([p.grad for p in block.parameters()], sys.argv[1])
"""


@needs_kernels
def test_fewer_threads_than_asked_for_give_the_same_gradients(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """OMP_THREAD_LIMIT and OMP_DYNAMIC give a region fewer threads than torch's setting."""
    folder = tmp_path_factory.mktemp("gradients")
    for limit in ("1", "4"):
        run(FEWER, str(folder / limit), OMP_THREAD_LIMIT=limit, OMP_NUM_THREADS=limit)
    few, many = (torch.load(folder / limit) for limit in ("1", "4"))
    assert max(distance(a, b) for a, b in zip(few, many, strict=True)) < 1e-11


BEYOND = """
import ctypes, mmap, sys
import torch
sys.path.insert(0, "tests")
from helpers.kernels import random_images, small_net, with_statistics

# A page that nobody may read follows the last pixel.
page = mmap.PAGESIZE
for layout in (torch.contiguous_format, torch.channels_last):
    for height, width in ((33, 37), (35, 61), (40, 47)):
        images = random_images(2, height, width).float()
        size = images.numel() * 4
        pages = -(-size // page)
        memory = mmap.mmap(-1, (pages + 1) * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        assert protect(start + pages * page, page, 0) == 0
        numbers = torch.frombuffer(memory, dtype=torch.float32, offset=pages * page - size,
                                   count=images.numel())
        strides = torch.empty(images.shape).to(memory_format=layout).stride()
        x = torch.as_strided(numbers, images.shape, strides, numbers.storage_offset())
        x.copy_(images)
        net = with_statistics(small_net(), images)
        for amp in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=amp):
                with torch.no_grad():
                    net.eval()(x)
                net.train()(x).sum().backward()
print("nothing was read", flush=True)
"""


@needs_kernels
def test_no_memory_after_the_last_pixel_is_read() -> None:
    done = Forked(["-c", BEYOND], environment()).finished()
    assert (done.returncode, done.stdout) == (0, "nothing was read\n"), done.stderr[-2000:]
