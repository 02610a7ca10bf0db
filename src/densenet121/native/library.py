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
        library = ctypes.CDLL(str(path))
        library.densenet121_instruction_set.restype = ctypes.c_char_p
        built_for = library.densenet121_instruction_set().decode()
    except (OSError, AttributeError) as error:
        return str(error)
    if built_for != name:
        # A library that is not what its name says could use instructions that are not there.
        return f"{path.name} was built for {built_for}; install the package again"
    return library
