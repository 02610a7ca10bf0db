"""Libraries of the int8 kernels as no processor at hand may load them."""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import densenet121.native.network as native
from densenet121.native.network import INSTRUCTION_SETS, Kernels
from densenet121.native.processor import capabilities

HERE = Path(__file__).parent
_FLAGS = {
    "avx512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mf16c"),
    "avx2": ("-mavx2", "-mfma", "-mf16c"),
}


@functools.cache
def emulated_tiles() -> Kernels | None:
    """AMX's instructions in plain C++; None without AVX2 or a C++ compiler (3 s)."""
    return _int8_kernels("amx", HERE / "emulated_tiles.cpp", ["avx512", "avx2"])


@functools.cache
def emulated_vnni() -> Kernels | None:
    """AVX-VNNI's instructions in plain C++; None without AVX2 or a C++ compiler (3 s)."""
    return _int8_kernels("avx2_vnni", HERE / "emulated_vnni.cpp", ["avx2"])


@functools.cache
def without_vnni() -> Kernels | None:
    """AVX-512 that is told that there is no VNNI; None without AVX-512 or a C++ compiler (3 s)."""
    return _int8_kernels("avx512", HERE / "without_vnni.cpp", ["avx512"])


def _int8_kernels(instruction_set: str, source: Path, builds: list[str]) -> Kernels | None:
    """A library of int8 inference alone, compiled for the first of the builds that runs here."""
    name = next((n for n in builds if capabilities().issuperset(INSTRUCTION_SETS[n])), None)
    headers = Path(native.__file__).parent
    if name is None or not (compiler := shutil.which("g++")) or not (headers / "tiles.h").exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        library, compiled = (str(Path(folder) / f"int8.{end}") for end in ("so", "o"))
        flags = (*_FLAGS[name], "-O1", "-std=c++17", "-fPIC", "-fno-math-errno", "-Wno-psabi")
        command = [compiler, "-c", "-fopenmp", *flags, f"-I{headers}", str(source), "-o", compiled]
        subprocess.run(command, check=True, timeout=120)
        # Not linked to OpenMP: it takes torch's, as the other libraries do.
        subprocess.run([compiler, "-shared", compiled, "-o", library], check=True, timeout=120)
        return Kernels(instruction_set, ctypes.CDLL(library))
