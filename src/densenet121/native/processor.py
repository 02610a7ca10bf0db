"""What the processor can do, by the names that the tables of the kernels use."""

import ctypes
import functools
import platform
import re
from pathlib import Path

import torch

# Bits of AT_HWCAP and AT_HWCAP2 (Linux, arch/arm64/include/uapi/asm/hwcap.h) by their names in
# /proc/cpuinfo.
_HWCAP = {"asimd": 1, "atomics": 8, "asimdrdm": 12, "asimddp": 20}
_HWCAP2 = {"i8mm": 13, "bf16": 14}
_AT_HWCAP, _AT_HWCAP2 = 16, 26

# Names that torch and Linux spell differently.
_OF_TORCH = {f"avx512{name}": f"avx512_{name}" for name in ("f", "bw", "dq", "vl", "cd")}
_OF_TORCH |= {"fma": "fma3", "bmi1": "bmi"}


@functools.cache
def capabilities() -> frozenset[str]:
    """Names of torch.cpu on x86, of Linux on 64-bit ARM."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return _arm_capabilities()
    if not hasattr(torch.cpu, "get_capabilities"):  # torch 2.10
        return _listed_by_linux()
    return frozenset(name for name, has in torch.cpu.get_capabilities().items() if has)


def _listed_by_linux() -> frozenset[str]:
    """The flags of x86 processors in /proc/cpuinfo, which has those that the system allows."""
    try:
        listed = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    line = re.search(r"^flags\s*:(.*)$", listed, re.MULTILINE)
    return frozenset(_OF_TORCH.get(name, name) for name in (line[1].split() if line else ()))


def _arm_capabilities() -> frozenset[str]:
    try:
        getauxval = ctypes.CDLL(None).getauxval
    except (AttributeError, OSError):
        return frozenset({"asimd"})  # not Linux; every 64-bit ARM processor has it
    getauxval.argtypes, getauxval.restype = [ctypes.c_ulong], ctypes.c_ulong
    words = ((getauxval(_AT_HWCAP), _HWCAP), (getauxval(_AT_HWCAP2), _HWCAP2))
    return frozenset(name for word, bits in words for name, bit in bits.items() if word >> bit & 1)
