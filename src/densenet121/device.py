"""Choose the device of this process and its arithmetic.

torch reports which accelerator is present; no device type except "cpu" is named here.
"""

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch

from densenet121.utils.errors import UsageError

_PRECISIONS = {
    "O0": torch.float32,
    "fp32": torch.float32,
    "O2": torch.bfloat16,
    "bf16": torch.bfloat16,
    "O3": torch.float16,
    "fp16": torch.float16,
}


def pick_device(name: str | None, local_rank: int = 0) -> torch.device:
    """The device called ``name``; None selects the accelerator if there is one, else the CPU.

    With several accelerators it is number ``local_rank``, unless ``name`` has a number.

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
    if local_rank >= count:
        raise UsageError(
            f"this is process {local_rank} (from 0) of this host, which has {count} {device.type} "
            "devices; start one process per device, or pass `device` cpu"
        )
    torch.accelerator.set_device_index(local_rank)
    return torch.device(device.type, local_rank)


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cpu":
        # Older releases of torch do not report it; the safe answer is no.
        found: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    supported = getattr(torch.get_device_module(device), "is_bf16_supported", None)
    return bool(supported()) if supported is not None else False


def pick_precision(amp: str | None, device: torch.device) -> torch.dtype:
    """The dtype of the network's arithmetic: ``amp`` by name, or the default for the device.

    The names are fp32, bf16 and fp16, or the original's O0, O2 and O3. The default is bf16 if the
    device has it in hardware, else fp16 on an accelerator, else fp32.
    """
    if amp is not None:
        return _PRECISIONS[amp]
    if has_bf16(device):
        return torch.bfloat16
    return torch.float32 if device.type == "cpu" else torch.float16


def arithmetic(device: torch.device, precision: torch.dtype) -> AbstractContextManager[object]:
    """A context in which the network computes in ``precision``; weights stay float32."""
    if precision == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, precision)


def default_batch_size(device: torch.device) -> int:
    """256 images on an accelerator, as in the original's README, 32 on a CPU."""
    return 32 if device.type == "cpu" else 256
