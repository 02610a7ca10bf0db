"""Choose the device of this process and its arithmetic.

torch reports which accelerator is present. Device types are named here only where torch's own
answer is known to be wrong, or where there is none.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from densenet121.utils.errors import UsageError

_PRECISIONS = {
    "O0": torch.float32,
    "fp32": torch.float32,
    "tf32": torch.float32,
    "O2": torch.bfloat16,
    "bf16": torch.bfloat16,
    "O3": torch.float16,
    "fp16": torch.float16,
}
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
# Not mps: pinned memory is on the device there (pytorch#181374) or reused too early (#193819).
_PINNING_DEVICES = frozenset({"cuda", "xpu", "npu"})
# With these a launcher, or the job's scheduler, shows each process only its own devices.
_VISIBLE_DEVICES = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "ZE_AFFINITY_MASK",
    "ASCEND_RT_VISIBLE_DEVICES",
    "SLURM_STEP_GPUS",
)


def pick_device(name: str | None, local_rank: int = 0) -> torch.device:
    """The device called ``name``; None selects the accelerator if there is one, else the CPU.

    With several accelerators it is number ``local_rank``, unless ``name`` has a number. Where the
    environment shows this process only one, it is that one.

    Raises:
        UsageError: torch does not know that name, or the device is not present.
    """
    present = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name is None:
        return _numbered(present, local_rank) if present else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    kinds = ["cpu"] + ([present.type] if present else [])
    if device is None or device.type not in kinds:
        raise UsageError(f"`device` must be one of {', '.join(kinds)} on this machine, got {name}")
    if device.index is not None and device.type != "cpu":
        count = torch.accelerator.device_count()
        if device.index >= count:
            raise UsageError(f"`device` {name}: there are {count} devices, numbered from 0")
        torch.accelerator.set_device_index(device.index)
        return device
    return device if device.type == "cpu" else _numbered(device, local_rank)


def _numbered(device: torch.device, local_rank: int) -> torch.device:
    count = torch.accelerator.device_count()
    own = 0 if count == 1 and _is_shown_one() else local_rank
    if own >= count:
        raise UsageError(
            f"this is process {local_rank} (from 0) of this host, which has {count} {device.type} "
            "devices; start one process per device, or pass `device` cpu"
        )
    torch.accelerator.set_device_index(own)
    return torch.device(device.type, own)


def _is_shown_one() -> bool:
    """Whether the environment selects one device of this host for this process."""
    named = [os.environ[name] for name in _VISIBLE_DEVICES if os.environ.get(name)]
    return any("," not in value for value in named)


def pins_memory(device: torch.device) -> bool:
    """Whether copies from page-locked memory to the device are asynchronous and safe."""
    return device.type in _PINNING_DEVICES


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cpu":
        # Older releases of torch do not report it; the safe answer is no.
        found: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    supported = getattr(torch.get_device_module(device), "is_bf16_supported", None)
    if supported is None:
        return False
    try:  # by default CUDA and XPU count emulation, which is slower than float32
        return bool(supported(including_emulation=False))
    except TypeError:  # other devices have no emulation
        return bool(supported())


def pick_precision(amp: str | None, device: torch.device) -> torch.dtype:
    """The dtype of the network's arithmetic: ``amp`` by name, or the default for the device.

    The names are fp32, tf32, bf16 and fp16, or the original's O0, O2 and O3. The default is bf16
    if the device has it in hardware, else fp16 on an accelerator, else fp32.

    Raises:
        UsageError: there is no such name, or the device has no tf32.
    """
    if amp is not None and amp not in _PRECISIONS:
        raise UsageError(f"`amp` must be one of {', '.join(_PRECISIONS)}, got {amp}")
    if amp == "tf32" and not has_tf32(device):
        raise UsageError(f"`amp` tf32 needs an NVIDIA GPU from Ampere on, and this is {device}")
    if amp is not None:
        return _PRECISIONS[amp]
    if has_bf16(device):
        return torch.bfloat16
    return torch.float32 if device.type == "cpu" else torch.float16


def has_tf32(device: torch.device) -> bool:
    """Whether the device multiplies float32 with 10 bits of precision, as tf32."""
    if device.type != "cuda" or torch.version.hip:
        return False
    return torch.cuda.get_device_capability(device)[0] >= 8


def set_tf32(device: torch.device, on: bool) -> None:
    """Multiply float32 as tf32 or as float32, in the whole process; torch convolves in tf32."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = on
        torch.backends.cuda.matmul.allow_tf32 = on


def set_exact(device: torch.device, exact: bool) -> None:
    """Choose kernels whose result is the same in every run, or the fastest ones.

    It applies to the whole process. The CPU's kernels are the same in both cases.
    """
    if device.type == "cpu":
        return
    if exact:
        # cuBLAS reads it when it starts, before the first matrix product.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Else every new tensor is filled with nan, which costs a pass over memory.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(exact, warn_only=True)
    # Measured choices of kernels differ between two runs.
    torch.backends.cudnn.benchmark = not exact


def describe_device(device: torch.device) -> dict[str, object] | None:
    """Model, memory, capability and libraries of an accelerator for run.json; None for the CPU."""
    if device.type == "cpu":
        return None
    found: dict[str, object] = {"type": device.type}
    module = torch.get_device_module(device)
    if hasattr(module, "get_device_properties"):
        properties = module.get_device_properties(device)
        for name, key in (("name", "name"), ("total_memory", "bytes")):
            if hasattr(properties, name):
                found[key] = getattr(properties, name)
    if device.type == "cuda":
        found["capability"] = ".".join(map(str, torch.cuda.get_device_capability(device)))
        found["cuda"] = torch.version.hip or torch.version.cuda
        found["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        found["driver"] = _nvidia_driver()
    return found


def _nvidia_driver() -> str | None:
    """The first line of the driver's own file, on Linux."""
    try:
        return _NVIDIA_DRIVER.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return None


def arithmetic(device: torch.device, precision: torch.dtype) -> AbstractContextManager[object]:
    """A context in which the network computes in ``precision``; weights stay float32."""
    if precision == torch.float32:
        return contextlib.nullcontext()
    return _reduced(device, precision)


@contextlib.contextmanager
def _reduced(device: torch.device, precision: torch.dtype) -> Iterator[None]:
    with torch.autocast(device.type, precision):
        try:
            yield
        finally:
            # Within an autocast of the caller torch would keep the rounded weights of this step.
            torch.clear_autocast_cache()


def default_batch_size(device: torch.device) -> int:
    """256 images on an accelerator, as in the original's README, 32 on a CPU."""
    return 32 if device.type == "cpu" else 256
