"""Load the libraries that setup.py built."""

import ctypes
import importlib.machinery
from pathlib import Path


def load_library(folder: Path, name: str) -> ctypes.CDLL | str:
    """The library in ``folder`` for an instruction set, or the reason why there is none.

    Its OpenMP functions are unresolved: they must come from the OpenMP that torch has loaded. A
    second one would have its own threads, which would compete with torch's.
    """
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = folder / f"_{name}{suffix}"
        if path.exists():
            break
    else:
        return "not built (no C++ compiler at installation?)"
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        return str(error)
