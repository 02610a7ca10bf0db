"""A few cases of ``make torture``: harm at random moments loses nothing."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from campaigns.harms import Bench, clock_environment
from campaigns.torture import one, prepared


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_harm_at_a_random_moment_loses_nothing(number: int, tmp_path: Path) -> None:
    seed = int(time.time())
    print(f"python -m campaigns.torture --seed {seed} --first {number} --count 1")
    bench = prepared(tmp_path)
    try:
        one(bench, seed, number)
    finally:
        bench.close()


def test_the_wall_clock_of_the_harm_jumps_and_nothing_else(tmp_path: Path) -> None:
    """The campaign itself: a clock that stood still could find nothing."""
    more = clock_environment(tmp_path / "clock")
    if not more:
        pytest.skip("needs a C compiler")
    bench = Bench(tmp_path, tmp_path, tmp_path, clock=tmp_path / "clock")
    code = """
import sys, threading, time
start, wall, lock = time.monotonic(), time.time(), threading.Lock()
lock.acquire()
print("ready", flush=True)
sys.stdin.readline()
moved = time.time() - wall
lock.acquire(timeout=0.05)
time.sleep(0.05)
print(round(moved / 1e8), time.strftime("%Y"), time.monotonic() - start < 60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **more},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        bench.set_clock(10**8)
        said, _ = process.communicate("\n", timeout=60)
    year = time.strftime("%Y", time.localtime(time.time() + 10**8))
    assert said.split() == ["1", year, "True"]
