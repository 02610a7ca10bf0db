"""The runtime of a command: process, device, arithmetic, batch size and worker threads."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from densenet121.device import (
    arithmetic,
    default_batch_size,
    pick_device,
    pick_precision,
    pins_memory,
    set_tf32,
)
from densenet121.distributed.launchers import ALONE, Process, join
from densenet121.distributed.ranks import process_group
from densenet121.native.network import instruction_set, unknown_kernels
from densenet121.network.compiled import named_compile_errors
from densenet121.utils.cores import default_workers
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.memory import is_out_of_memory, memory_text, prepare_for_training


@dataclass(frozen=True)
class Runtime:
    """The runtime of a command.

    Attributes:
        process: this process and its group.
        device: the device of the network.
        precision: dtype of the network's arithmetic; weights stay float32.
        batch_size: images per forward and device.
        workers: threads that decode images; 0 decodes in the main thread.
        tf32: products of float32 are those of tf32.
        int8: the network computes in 8-bit integers, and in float32 what is left.
    """

    process: Process
    device: torch.device
    precision: torch.dtype
    batch_size: int
    workers: int
    tf32: bool = False
    int8: bool = False

    @property
    def precision_name(self) -> str:
        """Name of the dtype in torch, for example "bfloat16", or "tf32"."""
        if self.int8:
            return "int8"
        return "tf32" if self.tf32 else str(self.precision).removeprefix("torch.")

    @property
    def pins_memory(self) -> bool:
        """Whether batches are page-locked, for an asynchronous copy to the device."""
        return pins_memory(self.device)

    @property
    def timed_device(self) -> torch.device | None:
        """The device, if it works beside the host and has events that measure time."""
        return self.device if pins_memory(self.device) else None

    def to_device(self, tensor: Tensor) -> Tensor:
        """A copy on the device. Work on the device waits for it, the host does not."""
        if not self.pins_memory:
            return tensor.to(self.device)
        pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
        return pinned.to(self.device, non_blocking=True)

    @contextlib.contextmanager
    def named_memory_errors(self) -> Iterator[None]:
        """A context in which a lack of memory is one line that says what to do.

        Raises:
            InputError: the memory of the device, or of the host, does not suffice.
        """
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            found = memory_text(self.device)
        else:
            return
        raise InputError(
            f"out of memory on {self.device} with `per_batch_size` {self.batch_size}{found}; pass "
            "a smaller `per_batch_size`, in training with as much more `gradient_accumulation`"
        )

    def arithmetic(self) -> AbstractContextManager[object]:
        """A context in which the network computes in ``precision``."""
        return arithmetic(self.device, self.precision)

    def computing_in(self, fixed: str | None, amp: str | None, file: Path) -> "Runtime":
        """The runtime for a network whose arithmetic is fixed, so that no other is reported.

        Args:
            fixed: float32 or int8; None for a network that computes in ``precision``.
            amp: what the caller asked for.
            file: that of the network, for messages.

        Raises:
            UsageError: another arithmetic was asked for.
        """
        if fixed is None:
            return self
        if amp not in (None, "O0", "fp32"):
            raise UsageError(f"`amp` is {amp}, but {file} computes in {fixed}; omit `amp`")
        return replace(self, precision=torch.float32, int8=fixed == "int8")

    def settings(self) -> dict[str, object]:
        """The effective settings for run.json: field name to value."""
        return {
            "per_batch_size": self.batch_size,
            "amp": self.precision_name,
            "workers": self.workers,
            "device": str(self.device),
        }

    def __str__(self) -> str:
        """The arithmetic, for a log: "bfloat16 on 2 threads, kernels for avx512_bf16"."""
        if self.device.type != "cpu":
            return f"{self.precision_name} on {self.device}"
        kernels = instruction_set(self.device)
        return f"{self.precision_name} on {torch.get_num_threads()} threads" + (
            f", kernels for {kernels}" if kernels else ""
        )


class Settings(Protocol):
    """The fields that every command with a network has."""

    @property
    def device(self) -> str | None: ...  # noqa: D102
    @property
    def amp(self) -> str | None: ...  # noqa: D102
    @property
    def per_batch_size(self) -> int | None: ...  # noqa: D102
    @property
    def workers(self) -> int | None: ...  # noqa: D102


class RankSettings(Settings, Protocol):
    """The fields of a command that can run on several ranks."""

    @property
    def is_distributed(self) -> int: ...  # noqa: D102
    @property
    def rank(self) -> int: ...  # noqa: D102
    @property
    def group_size(self) -> int: ...  # noqa: D102
    @property
    def timeout_seconds(self) -> float: ...  # noqa: D102


def check_kernels() -> None:
    """Refuse kernels that do not exist: without them everything would run, slowly.

    Raises:
        UsageError: ``DENSENET121_KERNELS`` has an unknown name.
    """
    if (unknown := unknown_kernels()) is not None:
        raise UsageError(unknown)


def make_runtime(
    device: str | None = None,
    amp: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    process: Process = ALONE,
) -> Runtime:
    """Make the runtime from these choices; None selects the default for this machine.

    Args:
        device: name in torch (default: the accelerator, else the CPU).
        amp: name of the arithmetic, see ``pick_precision``.
        batch_size: images per forward (default: 256 on an accelerator, 32 on a CPU).
        workers: threads that decode (default: the number of cores).
        process: this process and its group.

    Raises:
        UsageError: there is no such device, or ``DENSENET121_KERNELS`` is unknown.
    """
    check_kernels()
    chosen = pick_device(device, process.local_rank)
    precision = pick_precision(amp, chosen)
    set_tf32(chosen, amp == "tf32")
    return Runtime(
        process=process,
        device=chosen,
        precision=precision,
        batch_size=batch_size or default_batch_size(chosen),
        workers=default_workers() if workers is None else workers,
        tf32=amp == "tf32",
    )


def runtime_of(settings: Settings, process: Process = ALONE) -> Runtime:
    """The runtime of a command's settings.

    Raises:
        UsageError: there is no such device.
    """
    return make_runtime(
        settings.device,
        settings.amp,
        settings.per_batch_size,
        settings.workers,
        process,
    )


@contextlib.contextmanager
def joined(
    settings: RankSettings,
    is_stopped: Callable[[], bool] = lambda: False,
    refusal: str | None = None,
) -> Iterator[Runtime]:
    """The runtime of a command that can run on several ranks, with its process group.

    Args:
        settings: those of the command.
        is_stopped: whether to wait no longer for rank 0 to start.
        refusal: what a command says that runs in one process alone. It says so before the ranks
            meet: one that leaves at once would be lost to those that are still connecting.

    Raises:
        UsageError: there is no such device, no launcher started the requested ranks, or there are
            several and the command refuses them.
        InputError: another rank was lost, memory does not suffice, or the network cannot be
            compiled.
    """
    process = join(bool(settings.is_distributed), settings.rank, settings.group_size)
    if refusal is not None and process.world_size > 1:
        raise UsageError(refusal)
    runtime = runtime_of(settings, process)
    with process_group(process, runtime.device, settings.timeout_seconds, is_stopped):
        if runtime.device.type == "cpu":
            prepare_for_training()
        with runtime.named_memory_errors(), named_compile_errors():
            yield runtime
