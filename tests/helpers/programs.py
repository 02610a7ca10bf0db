"""Small C++ programs that use the headers of the network's kernels."""

import shutil
import subprocess
from pathlib import Path

import pytest

import densenet121.native.network


def compiled(folder: Path, source: str, threads: str) -> Path:
    """The program of ``source``; ``threads`` is the compiler's flag for them."""
    compiler = shutil.which("g++")
    if not compiler:
        pytest.skip("no C++ compiler")
    headers = Path(densenet121.native.network.__file__).parent
    (folder / "main.cpp").write_text(source)
    flags = ["-std=c++17", "-O1", threads, "-I", str(headers)]
    command = [compiler, *flags, str(folder / "main.cpp"), "-o", str(folder / "main")]
    subprocess.run(command, check=True)
    return folder / "main"
