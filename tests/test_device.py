"""Devices that are not here: torch's answers are replaced, and nothing of ours."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from densenet121.datasets.loader import Batch
from densenet121.device import (
    describe_device,
    has_bf16,
    pick_device,
    pick_precision,
    set_exact,
)
from densenet121.engine.clock import StepClock
from densenet121.runtime import Runtime, make_runtime
from densenet121.utils.cores import default_workers
from densenet121.utils.errors import InputError, UsageError

deterministic: Any = torch.utils.deterministic
CUDA = torch.device("cuda", 0)
VISIBLE = ("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "ROCR_VISIBLE_DEVICES")


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let torch report accelerators of a kind."""
    for name in VISIBLE:
        monkeypatch.delenv(name, raising=False)

    def replace(kind: str = "cuda", count: int = 1, **functions: Any) -> None:
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
        monkeypatch.setattr(torch.accelerator, "set_device_index", lambda index: None)
        module = SimpleNamespace(**functions)
        monkeypatch.setattr(torch, "get_device_module", lambda device: module)

    return replace


@pytest.fixture
def torch_settings() -> Iterator[None]:
    """PyTorch's defaults, and what a test sets in the whole process taken back."""
    before = dict(os.environ)
    set_defaults()
    yield
    set_defaults()
    os.environ.clear()
    os.environ.update(before)


def set_defaults() -> None:
    torch.use_deterministic_algorithms(False)
    deterministic.fill_uninitialized_memory = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.mark.parametrize(("kind", "pins"), [("cuda", True), ("xpu", True), ("mps", False)])
def test_memory_is_pinned_only_where_that_is_known_to_work(
    kind: str, pins: bool, present: Callable[..., None]
) -> None:
    """On MPS pinned memory is on the device, and ``.numpy()`` of the loader fails."""
    present(kind, is_bf16_supported=lambda including_emulation=True: False)
    assert make_runtime(amp="fp16").pins_memory == pins


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_a_gpu_that_emulates_bf16_gets_fp16(kind: str, present: Callable[..., None]) -> None:
    """As on T4, V100 and RTX 20, where torch says True by default."""
    present(kind, is_bf16_supported=lambda including_emulation=True: including_emulation)
    assert not has_bf16(torch.device(kind, 0))
    assert pick_precision(None, torch.device(kind, 0)) == torch.float16


def test_a_device_without_emulation_is_asked_without_the_argument(
    present: Callable[..., None],
) -> None:
    present("npu", is_bf16_supported=lambda: True)
    device = SimpleNamespace(type="npu")
    assert has_bf16(device)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"), [("CUDA_VISIBLE_DEVICES", "3"), ("ROCR_VISIBLE_DEVICES", "GPU-1")]
)
def test_a_process_that_sees_one_device_takes_it(
    name: str, value: str, present: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM with --gpus-per-task, and wrappers that set CUDA_VISIBLE_DEVICES for each rank."""
    present(count=1)
    monkeypatch.setenv(name, value)
    assert pick_device(None, local_rank=3) == CUDA


def test_more_processes_than_devices_are_refused(
    present: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    present(count=1)
    with pytest.raises(UsageError, match=r"process 3 .* which has 1 cuda devices"):
        pick_device(None, local_rank=3)
    present(count=2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    with pytest.raises(UsageError, match=r"process 3 .* which has 2 cuda devices"):
        pick_device(None, local_rank=3)
    assert pick_device(None, local_rank=1) == torch.device("cuda", 1)


@pytest.mark.usefixtures("torch_settings")
def test_exact_kernels_are_deterministic_and_fill_no_memory() -> None:
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    set_exact(CUDA, exact=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not deterministic.fill_uninitialized_memory
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.usefixtures("torch_settings")
def test_a_workspace_of_the_user_is_kept() -> None:
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":16:8"
    set_exact(CUDA, exact=True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.usefixtures("torch_settings")
def test_fast_kernels_are_measured_and_not_deterministic() -> None:
    set_exact(CUDA, exact=False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark


@pytest.mark.usefixtures("torch_settings")
@pytest.mark.parametrize("exact", [True, False])
def test_the_cpu_is_exact_without_any_setting(exact: bool) -> None:
    set_exact(torch.device("cpu"), exact)
    assert not torch.are_deterministic_algorithms_enabled()
    assert deterministic.fill_uninitialized_memory
    assert not torch.backends.cudnn.benchmark


@pytest.mark.usefixtures("torch_settings")
def test_fp32_is_not_tf32(present: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    present()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert torch.backends.cudnn.allow_tf32  # torch's default
    runtime = make_runtime(amp="fp32")
    assert (runtime.precision, runtime.precision_name) == (torch.float32, "float32")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    runtime = make_runtime(amp="tf32")
    assert (runtime.precision, str(runtime)) == (torch.float32, "tf32 on cuda:0")
    assert torch.backends.cudnn.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32


def test_tf32_is_refused_where_it_is_not(
    present: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"`amp` tf32 needs an NVIDIA GPU .*, and this is cpu"):
        pick_precision("tf32", torch.device("cpu"))
    present()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(UsageError, match="this is cuda:0"):
        pick_precision("tf32", CUDA)


def test_the_gpu_is_described(
    present: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    properties = SimpleNamespace(name="NVIDIA T4", total_memory=16_000_000_000)
    present(get_device_properties=lambda device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91000)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.1\nGCC version: 12\n")
    monkeypatch.setattr("densenet121.device._NVIDIA_DRIVER", driver)
    found = describe_device(CUDA)
    assert json.loads(json.dumps(found)) == {
        "type": "cuda",
        "name": "NVIDIA T4",
        "bytes": 16_000_000_000,
        "capability": "7.5",
        "cuda": "13.0",
        "cudnn": 91000,
        "driver": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.1",
    }
    assert describe_device(torch.device("cpu")) is None


def test_a_lack_of_memory_is_one_line_that_says_what_to_do(present: Callable[..., None]) -> None:
    present(
        mem_get_info=lambda device: (200_000_000, 15_900_000_000),
        max_memory_allocated=lambda device: 14_100_000_000,
        is_bf16_supported=lambda including_emulation: False,
    )
    runtime = make_runtime()
    with pytest.raises(InputError) as error, runtime.named_memory_errors():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    assert str(error.value) == (
        "out of memory on cuda:0 with `per_batch_size` 256: 0.2 of 15.9 GB are free, and this "
        "process needed 14.1 GB; pass a smaller `per_batch_size`, in training with as much more "
        "`gradient_accumulation`"
    )


def test_a_lack_of_memory_of_the_cpu_is_told_likewise() -> None:
    runtime = make_runtime(device="cpu", batch_size=7)
    expected = pytest.raises(InputError, match="on cpu with `per_batch_size` 7; pass")
    with expected, runtime.named_memory_errors():
        torch.empty(10**16)


def test_other_errors_keep_their_traceback() -> None:
    expected = pytest.raises(RuntimeError, match="cannot be multiplied")
    with expected, make_runtime(device="cpu").named_memory_errors():
        torch.ones(2, 3) @ torch.ones(2, 3)


@pytest.mark.parametrize(
    ("environment", "cores", "expected"),
    [
        ({}, 16, 16),
        ({"LOCAL_WORLD_SIZE": "4"}, 16, 4),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 16, 4),
        ({"SLURM_NTASKS_PER_NODE": "8"}, 16, 2),
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x2)", "SLURM_NTASKS_PER_NODE": "16"}, 16, 2),
        ({"SLURM_STEP_TASKS_PER_NODE": "8"}, 2, 2),  # srun gave each its own 2 of 16
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "x"}, 16, 16),
        ({"LOCAL_WORLD_SIZE": "64"}, 16, 1),
    ],
)
def test_processes_of_any_launcher_share_the_cores(
    environment: dict[str, str], cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "LOCAL_WORLD")):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    assert default_workers() == expected


class Timeline:
    """In place of torch.Event: a device that works ``busy`` ms on what was launched before."""

    now = 0.0  # of the host
    free_at = 0.0  # when the device has done all its work

    def __init__(self, device: torch.device, *, enable_timing: bool = False) -> None:
        assert enable_timing
        self.passed = 0.0

    def record(self) -> None:
        self.passed = max(Timeline.now, Timeline.free_at)

    def elapsed_time(self, later: "Timeline") -> float:
        return later.passed - self.passed


@pytest.mark.parametrize(("busy", "share"), [(5000.0, 0.0), (1000.0, 0.5), (0.0, 1.0)])
def test_a_wait_counts_only_while_the_device_has_nothing_to_do(
    busy: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host waits for 2 s; the device still works for ``busy`` ms of them."""
    monkeypatch.setattr(torch, "Event", Timeline)
    Timeline.now, Timeline.free_at = 0.0, busy

    def batches() -> Iterator[Batch]:
        Timeline.now += 2000
        yield Batch(torch.empty(0), np.empty(0, np.int64), ())

    clock = StepClock(CUDA)
    clock._start = clock._first = 0.0
    clock.wait_for(batches())
    monkeypatch.setattr("time.perf_counter", lambda: 2.0)
    assert clock.lap()[1] == pytest.approx(share)
    assert clock.waited_share == pytest.approx(share)


def test_copies_are_asynchronous_only_from_pinned_memory() -> None:
    runtime = Runtime(make_runtime(device="cpu").process, torch.device("meta"), torch.float32, 1, 0)
    assert not runtime.pins_memory
    assert runtime.to_device(torch.ones(2)).device.type == "meta"
