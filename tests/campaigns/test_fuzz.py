"""A short run of each campaign of hostile input; ``make fuzz`` runs long ones."""

import json
import random
from pathlib import Path

import pytest

from campaigns import fuzz
from campaigns.campaign import Target, case_of, run_target

NAMES = list(fuzz.targets(Path()))


@pytest.mark.parametrize("name", NAMES)
def test_hostile_input_is_read_or_refused_and_nothing_else(name: str, tmp_path: Path) -> None:
    if name == "requests":
        pytest.importorskip("fastapi")
    results = fuzz.fuzz([name], seed=7, first=0, count=150, seconds=20, keep=tmp_path / "faults")
    assert results[name].cases > 10
    assert not results[name].faults, results[name].faults[0]


def test_a_case_can_be_made_again(tmp_path: Path) -> None:
    known = fuzz.targets(tmp_path)
    known["images"].prepare()
    assert case_of(known["images"], 3, 14) == case_of(known["images"], 3, 14)
    assert case_of(known["images"], 3, 14) != case_of(known["images"], 3, 15)


def test_crashes_hangs_code_and_exceptions_are_faults() -> None:
    """The campaign itself: what it would not see, it could not find."""

    def run(case: int) -> str:
        import ctypes
        import faulthandler
        import os
        import time

        if case == 1:
            raise KeyError("x")
        if case == 2:
            faulthandler.disable()  # its report of this crash would look like one of the tests
            ctypes.string_at(0)
        if case == 3:
            with pytest.raises(PermissionError):
                os.system("true")
        if case == 4:
            start = time.process_time()
            while time.process_time() - start < 2.2:
                pass
        if case == 5:
            os._exit(3)
        return "fine"

    numbers = {random.Random(f"1/itself/{number}").random(): number for number in range(8)}
    target = Target("itself", lambda rng: numbers[rng.random()], run)
    result = run_target(target, 1, 0, 8, 60)
    found = dict(result.faults)
    assert set(found) == {1, 2, 3, 4, 5}
    assert "KeyError" in found[1] and "status -11" in found[2] and "os.system" in found[3]
    # 2.2 s of the processor; on a busy machine the clock of the campaign may be first.
    assert "took" in found[4] and "status 3" in found[5]
    assert result.outcomes == {"fine": 3} and result.cases == 8


def test_the_summary_has_the_seed_and_the_counts(tmp_path: Path) -> None:
    out = tmp_path / "fuzz.json"
    arguments = ["rank-tables", "--seed", "5", "--count", "30", "--json", str(out)]
    assert fuzz.main(arguments) == 0
    said = json.loads(out.read_text())
    assert said["seed"] == 5 and said["targets"]["rank-tables"]["cases"] == 30
