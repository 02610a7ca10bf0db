"""What a reader is told, and in which words."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from densenet121.cli import COMMANDS

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "densenet121"
# Messages from here name fields (`lr`), which the command line turns into flags (--lr).
ROOMS_WITHOUT_FLAGS = (
    "audit",
    "checkpoint",
    "datasets",
    "device.py",
    "distributed",
    "engine",
    "inference",
    "integrations",
    "losses",
    "lr_scheduler",
    "metrics",
    "native",
    "network",
    "optimizers",
    "pages",
    "report",
    "runs",
    "runtime.py",
    "serve",
    "tasks",
    "utils",
)
FIELDS = {name for config in COMMANDS.values() for name in config.__dataclass_fields__}
EXPLAINED = PACKAGE / "utils" / "errors.py"  # the rule itself, with an example


def flags_in(source: str) -> Iterator[str]:
    """The flags that the strings of a module name, docstrings included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (name for name in re.findall(r"--(\w+)", node.value) if name in FIELDS)


@pytest.mark.parametrize("room", ROOMS_WITHOUT_FLAGS)
def test_messages_below_the_commands_name_fields_not_flags(room: str) -> None:
    place = PACKAGE / room
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    assert files
    found = {
        str(file.relative_to(PACKAGE)): flags
        for file in files
        if file != EXPLAINED and (flags := list(flags_in(file.read_text(encoding="utf-8"))))
    }
    assert found == {}


def test_a_planted_flag_is_found() -> None:
    assert list(flags_in('raise InputError(f"{path}: pass --lr {lr} or -- net")')) == ["lr"]
    assert list(flags_in('"pass `lr`, see --standalone"')) == []
