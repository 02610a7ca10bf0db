"""A short run of ``make test-serve-load``."""

from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from campaigns.serve_load import Load, run


@pytest.mark.serve
def test_a_crowd_good_bad_slow_and_gone_loses_nothing(tmp_path: Path) -> None:
    result = run(tmp_path, seed=1, clients=200, seconds=40)
    print(result)
    assert not result["faults"]
    assert result["outcomes"]["good 200"] > 100


def test_wrong_answers_and_server_errors_are_faults() -> None:
    """The campaign itself: what it would not see, it could not find."""
    load = Load()
    load.note("good", 200, (200,))
    load.note("good", 503, (200,))  # busy: refused, not accepted
    load.note("damaged", 415, ())
    assert not load.faults
    load.note("good", 422, (200,))
    load.note("damaged", 500, ())
    load.note("bad", 200, (413,))
    assert len(load.faults) == 3
