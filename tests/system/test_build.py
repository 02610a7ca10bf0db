"""The libraries are compiled by as many compilers at once as there are cores."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Takes the place of gcc: notes when it began and ended, and makes an empty file of each output.
COMPILER = """#!/bin/sh
echo "$$ begins" >> {log}
sleep 0.5
while [ $# -gt 0 ]; do [ "$1" = -o ] && : > "$2"; shift; done
echo "$$ ends" >> {log}
"""


def test_an_editable_installation_compiles_with_all_cores(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one core")
    log, compiler, source = tmp_path / "log", tmp_path / "compiler", tmp_path / "source"
    compiler.write_text(COMPILER.format(log=log))
    compiler.chmod(0o755)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.so"))
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    program = str(compiler)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"),
            *("--no-deps", "--no-build-isolation", "--no-index"),
            *("--target", tmp_path / "installed", "--editable", source),
        ],
        env=os.environ
        | {"CC": program, "CXX": program, "LDSHARED": program, "LDCXXSHARED": program},
        check=True,
        timeout=120,
    )
    running: set[str] = set()
    most = 0
    for line in log.read_text().splitlines():
        process, what = line.split()
        (running.add if what == "begins" else running.discard)(process)
        most = max(most, len(running))
    assert most > 1
