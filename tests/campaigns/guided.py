"""Fuzzing guided by coverage: ``python -m campaigns.guided`` from tests/; ``make fuzz-coverage``.

libFuzzer changes files and keeps those that reach new code: of C++ for the image kernel, of Python
for the readers (by atheris). It begins with the files in corpora/, and with those that earlier runs
kept in a folder of one's own. A fault ends its target's run; its file is kept.
"""

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from campaigns.guided_build import build, find_clang
from campaigns.guided_cases import READERS

CORPORA = Path(__file__).parent / "corpora"
_LONGEST = 4096  # bytes of a case
_STUCK_SECONDS, _MEMORY_MIB = 30, 4096
_CORPUS_BYTES = 12_000  # of each target, packed, in the repository


def command_of(name: str, work: Path) -> list[str] | None:
    """The program of a target; None if there is no clang++ to build it."""
    if name != "jpeg":
        own = work / "files" / name
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
        return [sys.executable, "-m", "campaigns.guided_child", name, str(own)]
    clang = find_clang()
    return [str(build(clang, work / "built"))] if clang else None


def kept_corpus(name: str) -> list[bytes]:
    """The files of a target in the repository."""
    file = CORPORA / f"{name}.zip"
    if not file.is_file():
        return []
    with zipfile.ZipFile(file) as opened:
        return [opened.read(member) for member in opened.namelist()]


def fuzz(
    name: str, command: Sequence[str], seed: int, seconds: float, work: Path, keep: Path
) -> dict[str, Any]:
    """Run a target, and say how it went."""
    corpus = work / "found" / name
    corpus.mkdir(parents=True, exist_ok=True)
    keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(kept_corpus(name)):
            (Path(folder) / f"{number}").write_bytes(data)
        flags = {
            "seed": seed % 2**32 or 1,
            "max_total_time": max(1, round(seconds)),
            "max_len": _LONGEST,
            "timeout": _STUCK_SECONDS,
            "rss_limit_mb": _MEMORY_MIB,
            "artifact_prefix": f"{keep}/{name}-",
            "print_final_stats": 1,
        }
        given = [f"-{flag}={value}" for flag, value in flags.items()]
        done = subprocess.run(
            [*command, *given, str(corpus), folder],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    return result_of(done.returncode, done.stderr)


def result_of(status: int, said: str) -> dict[str, Any]:
    """Executions, edges and faults from what libFuzzer wrote.

    Raises:
        RuntimeError: it did not begin.
    """
    runs = re.findall(r"stat::number_of_executed_units: (\d+)", said)
    edges = [int(number) for number in re.findall(r"\bcov: (\d+)", said)]
    faults = re.findall(r"Test unit written to (\S+)", said)
    if status and not runs and not faults:
        raise RuntimeError(said[-2000:])
    result = {"executions": int(runs[-1]) if runs else 0, "edges": max(edges, default=0)}
    if status and not faults:
        faults = [f"ended with status {status}"]
    return {**result, "faults": faults, "said": said[-3000:] if faults else ""}


def pack_corpus(name: str, command: Sequence[str], work: Path) -> None:
    """Replace the files in the repository by the smallest that reach as much, up to a limit."""
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        merged = Path(folder) / "merged"
        before.mkdir()
        merged.mkdir()
        for number, data in enumerate(kept_corpus(name)):
            (before / f"{number}").write_bytes(data)
        paths = [str(path) for path in (merged, before, work / "found" / name) if path.is_dir()]
        subprocess.run([*command, "-merge=1", *paths], capture_output=True, check=True)
        files = sorted((path.read_bytes() for path in merged.iterdir()), key=lambda d: (len(d), d))
    best = b""
    while files and (not best or len(best) > _CORPUS_BYTES):
        best = _packed(files)
        files = files[: int(len(files) * 0.9)]
    CORPORA.mkdir(exist_ok=True)
    (CORPORA / f"{name}.zip").write_bytes(best)


def _packed(files: Sequence[bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as opened:
        for number, data in enumerate(files):
            opened.writestr(zipfile.ZipInfo(f"{number}"), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="names (default: all)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--seconds", type=float, default=600, help="for all targets together")
    parser.add_argument("--work", type=Path, default=Path("corpora"), help="folder of found files")
    parser.add_argument("--keep", type=Path, default=Path("faults"), help="folder for faults")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--pack", action="store_true", help="renew the files in the repository")
    parser.add_argument("--again", nargs=2, metavar=("TARGET", "FILE"), help="run one file")
    given = parser.parse_args(arguments)
    if given.again:
        command = command_of(given.again[0], given.work)
        return subprocess.run([*(command or []), given.again[1]], check=False).returncode
    print(f"seed {given.seed}", flush=True)
    names = given.targets or ["jpeg", *READERS]
    results = {}
    for name in names:
        command = command_of(name, given.work)
        if command is None:
            print(
                "jpeg: left out, because there is no clang++; install clang and its runtime library"
            )
            continue
        if given.pack:
            pack_corpus(name, command, given.work)
            continue
        share = given.seconds / len(names)
        found = results[name] = fuzz(name, command, given.seed, share, given.work, given.keep)
        numbers = f"{found['executions']} executions, {found['edges']} edges"
        print(f"{name}: {numbers}, {len(found['faults'])} faults", flush=True)
        for fault in found["faults"]:
            print(f"  FAULT; again: python -m campaigns.guided --again {name} {fault}")
            print(found["said"])
    if given.json and results:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({"seed": given.seed, "targets": results}, indent=1) + "\n")
    return 1 if any(found["faults"] for found in results.values()) else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
