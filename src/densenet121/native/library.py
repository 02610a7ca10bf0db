"""Loading what setup.py built."""

import ctypes
import importlib.machinery
from pathlib import Path


def load_library(folder: Path, name: str) -> ctypes.CDLL | str:
    """What setup.py built for an instruction set and put into ``folder``, or why it is not there.

    OpenMP's functions are left open in it: they must come from the OpenMP that torch has loaded. A
    second one would keep threads of its own, which get in the way of torch's.
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
