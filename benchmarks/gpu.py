"""Checks and measures an accelerator: ``python benchmarks/gpu.py check|measure``.

Every result is a line of JSON, printed at once, so that a run that is cut off still tells. It needs
no network and no images, fits 16 GB, and takes about 8 minutes at most. Exit status: 0 if all
checks held, 1 if one failed or there is no accelerator. ``--device cpu --dry`` runs all of it in
small on a CPU, for the tests.
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch

from densenet121.device import describe_device, pick_device

from gpu_checks import CHECKS
from gpu_data import loading
from gpu_speed import MEASUREMENTS
from gpu_task import Rows, Task

_SECONDS = 480.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("check", "measure"))
    parser.add_argument("--device", help="default: the accelerator")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="no part begins after")
    parser.add_argument("--dry", action="store_true", help="small shapes, for the tests")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    if device.type == "cpu" and not arguments.dry:
        print("gpu.py: this machine has no accelerator: nothing was checked", file=sys.stderr)
        return 1
    task = Task(device, arguments.dry, time.monotonic() + arguments.seconds)
    say({"part": "machine", "torch": torch.__version__, "device": describe_device(device) or "cpu"})
    parts = CHECKS if arguments.what == "check" else (*MEASUREMENTS, loading)
    failed = sum([not run(part, task) for part in parts])
    say({"part": "end", "failed": failed})
    return 1 if failed else 0


def run(part: Callable[[Task], Rows], task: Task) -> bool:
    """Run one part and print its rows; whether every check in it held."""
    name, start, held = part.__name__, time.monotonic(), True
    if start > task.until:
        say({"part": name, "skipped": "no time was left"})
        return True
    try:
        for row in part(task):
            held = held and row.get("held", True)
            say({"part": name, **row})
    except Exception as error:  # a part that fails must not hide the others
        say({"part": name, "held": False, "error": f"{type(error).__name__}: {error}"[:500]})
        traceback.print_exc()
        held = False
    say({"part": name, "seconds": round(time.monotonic() - start, 1)})
    return held


def say(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    sys.exit(main())
