"""Hostile input by the thousand: ``python -m campaigns.fuzz`` from tests/; ``make fuzz`` runs it.

Every case is made from the seed, the name of its target and its number. A fault is printed with the
command that runs this one case again, and its input is kept.
"""

import argparse
import contextlib
import json
import os
import pickle
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from campaigns import (
    file_cases,
    image_cases,
    request_cases,
    setting_cases,
    source_cases,
    weight_cases,
)
from campaigns.campaign import Result, Target, attempt, case_of, run_target

_ALL = (image_cases, weight_cases, file_cases, source_cases, setting_cases, request_cases)


def targets(folder: Path) -> dict[str, Target]:
    """All targets, by name."""
    return {target.name: target for part in _ALL for target in part.targets(folder)}


def fuzz(
    names: list[str], seed: int, first: int, count: int, seconds: float, keep: Path
) -> dict[str, Result]:
    """Run the targets one after the other, each with its share of the time."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        known = targets(Path(folder))
        for name in names or known:
            share = seconds / len(names or known)
            result = results[name] = run_target(known[name], seed, first, count, share)
            print(f"{name}: {summary(result)}", flush=True)
            for number, text in result.faults:
                keep.mkdir(parents=True, exist_ok=True)
                file = keep / f"{name}-{seed}-{number}.pickle"
                with contextlib.suppress(Exception):  # where making it was the fault
                    file.write_bytes(pickle.dumps(_made(known[name], seed, number)))
                print(f"  FAULT {name} {number}: {text.strip().splitlines()[-1]}")
                print(f"  again: python -m campaigns.fuzz --seed {seed} --again {name} {number}")
    return results


def _made(target: Target, seed: int, number: int) -> object:
    target.prepare()
    return case_of(target, seed, number)


def summary(result: Result) -> str:
    """One line."""
    kinds = ", ".join(f"{count} {name}" for name, count in sorted(result.outcomes.items()))
    faults = f"{len(result.faults)} faults"
    return f"{result.cases} cases in {result.seconds:.0f} s, {faults} ({kinds})"


def again(name: str, number: int, seed: int) -> int:
    """One case, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        target = targets(Path(folder))[name]
        target.prepare()
        case = case_of(target, seed, number)
        print(repr(case)[:2000])
        outcomes: Counter[str] = Counter()
        text = attempt(target, case, outcomes)
        print(text or dict(outcomes))
    return 1 if text else 0


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="names (default: all)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--count", type=int, default=10**9, help="most cases of each target")
    parser.add_argument("--seconds", type=float, default=300, help="for all targets together")
    parser.add_argument("--keep", type=Path, default=Path("faults"), help="folder for faults")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--again", nargs=2, metavar=("TARGET", "NUMBER"), help="run one case")
    given = parser.parse_args(arguments)
    if given.again:
        return again(given.again[0], int(given.again[1]), given.seed)
    print(f"seed {given.seed}", flush=True)
    results = fuzz(given.targets, given.seed, given.first, given.count, given.seconds, given.keep)
    faults = sum(len(result.faults) for result in results.values())
    print(f"{sum(result.cases for result in results.values())} cases, {faults} faults")
    if given.json:
        content = {
            name: {
                "cases": result.cases,
                "seconds": round(result.seconds, 1),
                "outcomes": dict(sorted(result.outcomes.items())),
                "faults": result.faults,
            }
            for name, result in results.items()
        }
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({"seed": given.seed, "targets": content}, indent=1) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
