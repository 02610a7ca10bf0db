"""Both sides of the structures that Python fills in and C++ reads agree, or nothing is loaded."""

import ctypes
import importlib.machinery
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from densenet121 import native
from densenet121.native import images
from densenet121.native.library import load_library
from densenet121.native.network import INSTRUCTION_SETS
from densenet121.native.network.structures import STRUCTURES, VERSION
from densenet121.native.processor import capabilities

NATIVE = Path(native.__file__).parent
SOURCES = [*sorted((NATIVE / "network").glob("*.h")), NATIVE / "images" / "images.cpp"]
ALL = (*STRUCTURES, images.ImageArguments)


def fields_in_cpp(name: str) -> list[tuple[str, str]]:
    """(name, type) of the fields of a C++ structure; a type as ``kind``."""
    (body,) = (
        found
        for path in SOURCES
        for found in re.findall(rf"^struct {name} \{{\n(.*?)^\}};", path.read_text(), re.M | re.S)
    )
    body = re.sub(r"//.*", "", body)
    fields = []
    for declaration in body.split(";"):
        if "(" in declaration or not declaration.strip():
            break  # methods follow the fields
        plain, declarators = matched(r"(?:const )?(\w+)(.*)", declaration.strip())
        for declarator in declarators.split(","):
            star, field, size = matched(r"\s*(\*?)\s*(\w+)(?:\[(\d+)\])?\s*", declarator)
            fields.append((field, "pointer" if star else plain + (f"[{size}]" if size else "")))
    return fields


def matched(pattern: str, text: str) -> tuple[str, ...]:
    found = re.fullmatch(pattern, text, re.S)
    assert found, text
    return found.groups()


def kind(given: Any) -> str:
    """As ``fields_in_cpp`` names the types."""
    if issubclass(given, ctypes.Array):
        return f"{kind(given._type_)}[{given._length_}]"
    names: dict[Any, str] = {ctypes.c_float: "float", ctypes.c_double: "double"}
    names |= {ctypes.c_int64: "int64_t", ctypes.c_uint64: "uint64_t", ctypes.c_uint8: "uint8_t"}
    pointer = given in (ctypes.c_void_p, ctypes.c_char_p) or issubclass(given, ctypes._Pointer)
    return "pointer" if pointer else names.get(given, given.__name__)


@pytest.mark.parametrize("structure", ALL, ids=lambda structure: structure.__name__)
def test_fields_have_the_same_names_types_and_order(structure: Any) -> None:
    in_python = [(name, kind(given)) for name, given in structure._fields_]
    assert fields_in_cpp(structure.__name__) == in_python


def arguments_of(path: Path) -> tuple[Path, str, int, tuple[type[ctypes.Structure], ...]]:
    name = path.name.split(".")[0][1:]
    if path.parent.name == "images":
        return path.parent, name, images.VERSION, (images.ImageArguments,)
    return path.parent, name, VERSION, STRUCTURES


LIBRARIES = sorted(NATIVE.glob("*/_*.so"))


@pytest.mark.parametrize("path", LIBRARIES, ids=lambda path: f"{path.parent.name}{path.name}")
def test_each_library_was_built_with_these_structures(path: Path) -> None:
    """And holds the code that its name says: those built at once must not take each other's."""
    name = path.name.split(".")[0][1:]
    if not capabilities().issuperset(INSTRUCTION_SETS[name]):
        pytest.skip("not supported by this processor, not even the question")
    loaded = load_library(*arguments_of(path))
    assert not isinstance(loaded, str), loaded


class Longer(ctypes.Structure):
    _fields_ = [("all", images.ImageArguments), ("more", ctypes.c_int64)]


@pytest.mark.parametrize("part", ["images", "network"])
def test_a_library_of_other_sources_is_not_loaded(part: str) -> None:
    path = next((p for p in LIBRARIES if p.parent.name == part and "_portable." in p.name), None)
    if path is None:
        pytest.skip("not built (no C++ compiler at installation?)")
    folder, name, version, structures = arguments_of(path)
    others: list[tuple[int, tuple[type[ctypes.Structure], ...]]] = [
        (version + 1, structures),
        (version, structures[:-1]),
        (version, (*structures[:-1], Longer)),
        (version, (*structures, Longer)),
    ]
    for other in others:
        assert load_library(folder, name, *other) == (
            f"{path.name} was built from other sources; install the package again"
        )


def test_an_older_library_which_cannot_be_asked_is_not_loaded(tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if not compiler:
        pytest.skip("no C++ compiler")
    source = 'extern "C" const char* densenet121_instruction_set() { return "portable"; }'
    target = tmp_path / f"_portable{importlib.machinery.EXTENSION_SUFFIXES[-1]}"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-x", "c++", "-", "-o", target],
        input=source,
        text=True,
        check=True,
    )
    assert load_library(tmp_path, "portable", VERSION, STRUCTURES) == (
        f"{target.name} was built from other sources; install the package again"
    )
