"""Load the libraries that setup.py built."""

import contextlib
import ctypes
import functools
import importlib.machinery
import os
from collections.abc import Sequence
from pathlib import Path

import torch


def load_library(
    folder: Path, name: str, version: int, structures: Sequence[type[ctypes.Structure]]
) -> ctypes.CDLL | str:
    """The library in ``folder`` for an instruction set, or the reason why there is none.

    ``structures`` are those that are filled in here and read in C++, in the library's order, and
    ``version`` what their fields mean: the library must have been built with the same.

    Its OpenMP functions are unresolved: they must come from the OpenMP that torch has loaded. A
    second one would have its own threads, which would compete with torch's.
    """
    for suffix in reversed(importlib.machinery.EXTENSION_SUFFIXES):  # the plain one first
        path = folder / f"_{name}{suffix}"
        if path.exists():
            break
    else:
        return "not built (no C++ compiler at installation?)"
    _share_openmp()
    try:
        library = ctypes.CDLL(str(path))
        library.densenet121_instruction_set.restype = ctypes.c_char_p
        built_for = library.densenet121_instruction_set().decode()
        agrees = getattr(library, "densenet121_agrees", None)
    except (OSError, AttributeError) as error:
        return str(error)
    if built_for != name:
        # A library that is not what its name says could use instructions that are not there.
        return f"{path.name} was built for {built_for}; install the package again"
    sizes = (ctypes.c_int64 * len(structures))(*map(ctypes.sizeof, structures))
    if not agrees or not agrees(ctypes.c_int64(version), sizes, ctypes.c_int64(len(structures))):
        # It would read other memory than what is filled in here.
        return f"{path.name} was built from other sources; install the package again"
    return library


@functools.cache
def _share_openmp() -> None:
    """Make the OpenMP that torch has loaded visible to the libraries that are loaded later.

    torch for x86 does so itself. In torch for ARM only torch's own libraries see it.
    """
    if hasattr(ctypes.CDLL(None), "GOMP_parallel") or not hasattr(os, "RTLD_NOLOAD"):
        return
    package = Path(torch.__file__).parent
    places = (package / "lib", package.with_name("torch.libs"))
    packed = [str(path) for place in places for path in sorted(place.glob("libgomp*.so*"))]
    for name in [*packed, "libgomp.so.1"]:
        # Those that are not loaded, and only those, are an error here.
        with contextlib.suppress(OSError):
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL | os.RTLD_NOLOAD)
            return
