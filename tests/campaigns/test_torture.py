"""A few cases of ``make torture``: harm at random moments loses nothing."""

import time
from pathlib import Path

import pytest

from campaigns.torture import one, prepared


@pytest.mark.parametrize("number", range(2))
def test_harm_at_a_random_moment_loses_nothing(number: int, tmp_path: Path) -> None:
    seed = int(time.time())
    print(f"python -m campaigns.torture --seed {seed} --first {number} --count 1")
    bench = prepared(tmp_path)
    try:
        one(bench, seed, number)
    finally:
        bench.close()
