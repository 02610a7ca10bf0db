"""Kills, full disks and other harm at random moments: ``python -m campaigns.torture`` from tests/.

Every case harms real processes one to four times, lets the work run to its end, and compares what
it left with what undisturbed work leaves. The harm and its moment are drawn from the seed and the
number of the case; what the process does at that moment is not, so that a case that is run again
may end otherwise.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path

from campaigns.harms import HARMS, Bench, clock_environment
from campaigns.torture_cases import COMMANDS, RUNS, torture_command, torture_run

from helpers.images import write_classes
from helpers.weights import write_weights


def prepared(folder: Path) -> Bench:
    """Images and weights for all cases."""
    names = ["ant", "bee", "cat"]
    write_classes(folder / "images" / "train", names, 8)
    write_classes(folder / "images" / "val", names, 7)  # calibrate needs 20
    write_classes(folder / "alone", names, 8)  # split takes no folder with a val beside it
    return Bench(folder, folder / "images", write_weights(folder / "weights.safetensors"))


def with_clock(bench: Bench) -> Bench:
    """A bench whose processes have a wall clock of their own; before the first of them starts."""
    more = clock_environment(bench.folder / "clock")
    os.environ.update(more)
    return replace(bench, clock=bench.folder / "clock") if more else bench


def one(bench: Bench, seed: int, number: int) -> str:
    """Run a case; what it was. An AssertionError says what was wrong."""
    rng = random.Random(f"{seed}/{number}")
    if rng.random() < 0.75:
        return torture_run(bench, rng, rng.choice(list(RUNS)))
    return torture_command(bench, rng, rng.choice(list(COMMANDS)))


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--count", type=int, default=10**9)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--harm", help='this one alone, for example "clock jumps"')
    parser.add_argument("--keep", type=Path, default=Path("faults"), help="folder for faults")
    parser.add_argument("--json", type=Path, help="file for the result")
    given = parser.parse_args(arguments)
    for name in [name for name in HARMS if given.harm not in (None, name)]:
        del HARMS[name]
    # Where large files are impossible, a compiled module would be stored cut short for all time.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    # A shell's background job ignores SIGINT, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print(f"seed {given.seed}; harms: {', '.join(HARMS)}", flush=True)
    found: Counter[str] = Counter()
    faults: list[tuple[int, str]] = []
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture", ignore_cleanup_errors=True) as folder:
        bench = with_clock(prepared(Path(folder)))
        try:
            for number in range(given.first, given.first + given.count):
                if time.monotonic() - start > given.seconds:
                    break
                try:
                    found[one(bench, given.seed, number)] += 1
                except KeyboardInterrupt:  # the summary is of what was done
                    break
                except Exception:
                    text = traceback.format_exc()
                    faults.append((number, text[-4000:]))
                    print(f"FAULT {number}: {text.strip().splitlines()[-1]}", flush=True)
                    print(f"  again: --seed {given.seed} --first {number} --count 1")
                    kept = given.keep / f"torture-{given.seed}-{number}"
                    with contextlib.suppress(OSError):
                        shutil.copytree(bench.case, kept, dirs_exist_ok=True)
                    kept.mkdir(parents=True, exist_ok=True)
                    (kept / "fault.txt").write_text(text)
        finally:
            bench.close()
    seconds = time.monotonic() - start
    print(f"{found.total() + len(faults)} cases in {seconds:.0f} s, {bench.harms.total()} harms, ")
    print(f"{len(faults)} faults; harms: {dict(sorted(bench.harms.items()))}")
    if given.json:
        content = {"seed": given.seed, "seconds": round(seconds, 1), "cases": found.total()}
        content |= {"kinds": dict(found), "harms": dict(bench.harms), "faults": faults}
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(content, indent=1) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
