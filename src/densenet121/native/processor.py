"""What the processor can do, by the names that the tables of the kernels use."""

import ctypes
import functools
import platform

import torch

# Bits of AT_HWCAP and AT_HWCAP2 (Linux, arch/arm64/include/uapi/asm/hwcap.h) by their names in
# /proc/cpuinfo.
_HWCAP = {"asimd": 1, "atomics": 8, "asimdrdm": 12, "asimddp": 20}
_HWCAP2 = {"i8mm": 13, "bf16": 14}
_AT_HWCAP, _AT_HWCAP2 = 16, 26


@functools.cache
def capabilities() -> frozenset[str]:
    """Names of torch.cpu on x86, of Linux on 64-bit ARM."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return _arm_capabilities()
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return frozenset(name for name, has in found.items() if has)


def _arm_capabilities() -> frozenset[str]:
    try:
        getauxval = ctypes.CDLL(None).getauxval
    except (AttributeError, OSError):
        return frozenset({"asimd"})  # not Linux; every 64-bit ARM processor has it
    getauxval.argtypes, getauxval.restype = [ctypes.c_ulong], ctypes.c_ulong
    words = ((getauxval(_AT_HWCAP), _HWCAP), (getauxval(_AT_HWCAP2), _HWCAP2))
    return frozenset(name for word, bits in words for name, bit in bits.items() if word >> bit & 1)
