"""The fused kernels of the network: C++ that is built at installation, once per instruction set.

Instruction sets that the compiler does not support are not built, and none is without a compiler.
Then ``kernels()`` returns the reason, and the network uses its plain implementation.
"""

import ctypes
import functools
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from densenet121.native.library import load_library
from densenet121.native.network.structures import STRUCTURES, VERSION
from densenet121.native.processor import capabilities

# Best first; each with the capabilities that its code needs.
_AVX512 = ("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq")
_AVX2 = ("avx2", "fma3", "f16c")
_ARMV8_2 = ("asimd", "atomics", "asimdrdm")
INSTRUCTION_SETS: dict[str, tuple[str, ...]] = {
    "amx": (*_AVX512, "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"),
    "avx512_bf16": (*_AVX512, "avx512_bf16", "avx512_vnni"),
    "avx512": _AVX512,
    "avx2_vnni": (*_AVX2, "avx_vnni"),
    "avx2": _AVX2,
    "neon_bf16": (*_ARMV8_2, "asimddp", "bf16", "i8mm"),
    "neon_dotprod": (*_ARMV8_2, "asimddp"),
    "neon": ("asimd",),
    "portable": (),
}
_NAMES = {torch.bfloat16: "bf16", torch.float32: "float", torch.float64: "double"}


@dataclass(frozen=True)
class Kernels:
    """A loaded library.

    Attributes:
        instruction_set: a key of INSTRUCTION_SETS.
        library: its functions, ``densenet121_<function>_<type>``.
    """

    instruction_set: str
    library: ctypes.CDLL

    def supports(self, dtype: torch.dtype) -> bool:
        """Whether it supports this dtype."""
        return self.has("block_forward", dtype)

    def has(self, function: str, dtype: torch.dtype) -> bool:
        """Whether it has this function; not all have those of the whole network for bf16."""
        return hasattr(self.library, f"densenet121_{function}_{_NAMES.get(dtype)}")

    @property
    def int8_patch_columns(self) -> int:
        """Columns of a register for int8's transformed 3x3 weights; 0: it reads none."""
        return int(self.library.densenet121_int8_patch_columns())

    def call(self, function: str, dtype: torch.dtype, arguments: ctypes.Structure) -> None:
        """Run ``function`` without the GIL.

        Raises:
            MemoryError: there was not enough memory.
        """
        self.run(f"{function}_{_NAMES[dtype]}", arguments)

    def run(self, function: str, arguments: ctypes.Structure) -> None:
        """Run a function that has one type of numbers, as ``call`` does.

        Raises:
            MemoryError: there was not enough memory.
        """
        run = getattr(self.library, f"densenet121_{function}")
        if run(ctypes.byref(arguments)) != 0:
            raise MemoryError(f"not enough memory for the kernel {function}")


def unknown_kernels() -> str | None:
    """What is wrong with the environment variable ``DENSENET121_KERNELS``; None: nothing."""
    wanted = os.environ.get("DENSENET121_KERNELS", "")
    allowed = ["off", *INSTRUCTION_SETS]
    if wanted in ("", *allowed):
        return None
    return f'DENSENET121_KERNELS is "{wanted}"; it must be one of {", ".join(allowed)}, or unset'


@functools.cache
def kernels() -> Kernels | str:
    """The best library that this machine can run, or the reason why there is none.

    The environment variable ``DENSENET121_KERNELS`` selects an instruction set, or ``off``.
    """
    wanted = os.environ.get("DENSENET121_KERNELS", "")
    if wanted == "off":
        return "DENSENET121_KERNELS is off"
    if (unknown := unknown_kernels()) is not None:
        return unknown
    reasons = []
    for name, needed in INSTRUCTION_SETS.items():
        if wanted not in ("", name):
            continue
        if not capabilities().issuperset(needed):
            reasons.append(f"{name}: not supported by this processor")
            continue
        loaded = _load(name)
        if isinstance(loaded, Kernels):
            return loaded
        reasons.append(f"{name}: {loaded}")
    return "; ".join(reasons)


def instruction_set(device: torch.device) -> str | None:
    """The instruction set of the kernels for this device; None: the plain implementation."""
    found = kernels() if device.type == "cpu" else None
    return found.instruction_set if isinstance(found, Kernels) else None


def _load(name: str) -> Kernels | str:
    library = load_library(Path(__file__).parent, name, VERSION, STRUCTURES)
    if isinstance(library, str):
        return library
    if library.densenet121_start() != 0:
        return "the operating system does not allow it"
    return Kernels(name, library)
