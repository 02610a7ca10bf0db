"""Imports point one way: from the run down to the parts, and never sideways."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "densenet121"

LAYERS = (
    {"__main__"},
    {"cli"},
    {"commands"},
    {"bench", "integrations"},
    {"engine", "serve", "report", "audit", "card"},
    {"runs", "inference"},
    {"checkpoint"},
    {"tasks", "runtime"},
    {
        "network",
        "losses",
        "metrics",
        "lr_scheduler",
        "optimizers",
        "datasets",
        "device",
        "distributed",
        "pages",
        "config",
    },
    {"native", "utils", "version"},
)
DEPTH = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}
# Parts take plain arguments; these turn the settings into them.
MAY_IMPORT_CONFIG = {"cli", "commands", "engine", "bench", "integrations", "serve", "audit"}
# What only one room may do.
RUN_FILES = ("run.json", "metrics.jsonl", "eval.json", "predictions.csv", "best.safetensors")
EXCHANGE_BETWEEN_RANKS = {"distributed", "bench/ranks.py", "network/sync_batch_norm.py"}


def imported(source: str) -> Iterator[str]:
    """Dotted names of what a module imports, also inside functions; "." before relative ones."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def faults(importer: str, source: str) -> list[str]:
    """What breaks the order in the source of a module of the part ``importer``."""
    if importer not in DEPTH:
        return [f"{importer} has no layer yet"]
    found = []
    for name in imported(source):
        first, _, rest = name.partition(".")
        part = rest.partition(".")[0]
        if first == "":
            found.append(f"{importer} imports {name}, which is relative")
        elif first != "densenet121" or part == importer:
            continue
        elif part not in DEPTH:
            found.append(f"{importer} imports {name}, which has no layer")
        elif DEPTH[part] <= DEPTH[importer]:
            found.append(f"{importer} imports {name}, which is not below it")
        elif part == "config" and importer not in MAY_IMPORT_CONFIG:
            found.append(f"{importer} imports {name}, the settings of a run")
    return found


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_imports_only_what_lies_below_it(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert faults(part, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_the_original_scripts_know_only_the_command_line(script: str) -> None:
    names = list(imported((ROOT / script).read_text(encoding="utf-8")))
    assert [n for n in names if n.startswith("densenet121")] == ["densenet121.__main__.start"]


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("losses", "from densenet121.tasks.single_label.metrics import Counts"),  # sideways
        ("report", "import densenet121.engine.train"),
        ("version", "from densenet121.utils.errors import InputError"),
        ("utils", "from densenet121.network import build"),  # upwards
        ("checkpoint", "def f():\n    from densenet121.engine.train import train"),
        ("datasets", "if TYPE_CHECKING:\n    from densenet121.cli import main"),
        ("engine", "from .train import train"),  # relative
        ("losses", "from . import crossentropy"),
        ("network", "from ..utils import errors"),
        (
            "datasets",
            "from densenet121.config import TrainConfig",
        ),  # settings among the parts
        ("report", "from densenet121.config import ReportConfig"),
        ("checkpoint", "from densenet121 import config"),
        ("engine", "from densenet121 import DenseNet"),  # through the public face
        ("engine", "import densenet121"),
        ("engine", "import math, densenet121.helpers"),  # to a module without a place
        ("helpers", ""),  # a module without a place
    ],
)
def test_a_planted_fault_is_found(importer: str, source: str) -> None:
    assert len(faults(importer, source)) == 1


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("cli", "from densenet121.config import TrainConfig"),
        ("engine", "from densenet121.config import TrainConfig\nimport torch"),
        ("engine", "from densenet121.engine.state import RunState"),  # within one part
        ("checkpoint", "from densenet121.network import build"),
        ("utils", "from densenet121.utils.errors import InputError"),
        ("commands", "from densenet121.report import write_report"),
    ],
)
def test_an_import_downwards_is_no_fault(importer: str, source: str) -> None:
    assert faults(importer, source) == []


def test_only_runs_knows_the_file_names_of_a_run() -> None:
    found = []
    for path in modules():
        room = path.relative_to(PACKAGE).parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in RUN_FILES and room != "runs":
                found.append(f"{path.relative_to(PACKAGE)}: {node.value}")
    assert found == []


def test_only_distributed_exchanges_between_ranks() -> None:
    """Two exceptions: a norm over all ranks, and the bench that measures the exchange itself."""
    using = set()
    for path in modules():
        if any(n.startswith("torch.distributed") for n in imported(path.read_text("utf-8"))):
            inside = path.relative_to(PACKAGE)
            using.add("distributed" if inside.parts[0] == "distributed" else str(inside))
    assert using == EXCHANGE_BETWEEN_RANKS


def test_matplotlib_is_imported_in_the_one_way_that_no_environment_prevents() -> None:
    importing = set()
    for path in modules():
        if any(n.partition(".")[0] == "matplotlib" for n in imported(path.read_text("utf-8"))):
            importing.add(str(path.relative_to(PACKAGE)))
    assert importing == {"pages/plotting.py", "utils/drawing.py"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_function_fits_on_one_screen(path: Path) -> None:
    """60 lines; a training run, which reads from top to bottom, has 100."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            lines = node.end_lineno - node.lineno + 1
            assert lines <= (100 if path.match("engine/train.py") else 60), node.name
