"""The int8 kernels for AMX, compiled with its instructions in plain C++ (emulated_tiles.cpp)."""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import densenet121.native.network as native
from densenet121.native.network import INSTRUCTION_SETS, Kernels
from densenet121.native.processor import capabilities

SOURCE = Path(__file__).with_suffix(".cpp")
_FLAGS = {
    "avx512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mf16c"),
    "avx2": ("-mavx2", "-mfma", "-mf16c"),
}


@functools.cache
def emulated_tiles() -> Kernels | None:
    """A library that has int8 inference alone; None without AVX2 or a C++ compiler (3 s)."""
    name = next((n for n in _FLAGS if capabilities().issuperset(INSTRUCTION_SETS[n])), None)
    headers = Path(native.__file__).parent
    if name is None or not (compiler := shutil.which("g++")) or not (headers / "tiles.h").exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        library, compiled = (str(Path(folder) / f"tiles.{end}") for end in ("so", "o"))
        flags = (*_FLAGS[name], "-O1", "-std=c++17", "-fPIC", "-fno-math-errno", "-Wno-psabi")
        command = [compiler, "-c", "-fopenmp", *flags, f"-I{headers}", str(SOURCE), "-o", compiled]
        subprocess.run(command, check=True, timeout=120)
        # Not linked to OpenMP: it takes torch's, as the other libraries do.
        subprocess.run([compiler, "-shared", compiled, "-o", library], check=True, timeout=120)
        return Kernels("amx", ctypes.CDLL(library))
