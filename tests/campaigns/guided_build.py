"""Builds the image kernel with libFuzzer and clang's sanitizers: guided_images.cpp."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

_HERE = Path(__file__).parent
_KERNEL = _HERE.parents[1] / "src" / "densenet121" / "native" / "images"
_COMMON = ["-std=c++17", "-O1", "-g1", "-fno-math-errno", "-ffp-contract=off"]
_COMMON += ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
_AVX2 = ["-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2"]
_FUNCTIONS = ("instruction_set", "agrees", "jpeg_size", "image", "affine", "sharpen", "crc32c")


def find_clang() -> str | None:
    """CXX if that is clang, else the first clang++ that is installed."""
    own = os.environ.get("CXX", "")
    names = [own] if "clang" in own else []
    names += ["clang++", *(f"clang++-{version}" for version in range(25, 13, -1))]
    return next((found for name in names if (found := shutil.which(name))), None)


def build(clang: str, folder: Path, kernel: Path = _KERNEL) -> Path:
    """The program, in ``folder``; ``kernel`` has images.cpp.

    Raises:
        RuntimeError: clang refuses it, as without its runtime libraries.
    """
    folder.mkdir(parents=True, exist_ok=True)
    other, program = folder / "other.o", folder / "images"
    names = [f"-Ddensenet121_{name}=other_{name}" for name in _FUNCTIONS]
    avx2 = _AVX2 if platform.machine().lower() in ("x86_64", "amd64") else []
    source = _HERE / "guided_images.cpp"
    for command in (
        [*_COMMON, *names, "-c", kernel / "images.cpp", "-o", other],
        [*_COMMON, *avx2, f"-I{kernel}", source, other, "-o", program],
    ):
        done = subprocess.run(
            [clang, *map(str, command)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{clang} does not build {source.name}: {done.stderr[-1000:]}")
    return program
