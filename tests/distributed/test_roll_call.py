"""Which rank the others name after an exchange has failed."""

import threading
import time

import pytest
from torch._C._distributed_c10d import HashStore

from densenet121.distributed import roll_call
from densenet121.distributed.roll_call import RollCall

HANGS = "rank 1 did not answer: stopped, hanging or disconnected"


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_call, "_GRACE_SECONDS", 1.0)
    monkeypatch.setattr(roll_call, "_CLOSED_SECONDS", 0.4)


def answers(store: HashStore, ranks: dict[int, bool], seconds_between: float = 0) -> dict[int, str]:
    """What these of three ranks find, which ask in this order; whether each has timed out."""
    found = {}

    def ask(rank: int, timed_out: bool) -> None:
        found[rank] = RollCall(store, rank, 3).find_lost(timed_out)

    threads = [threading.Thread(target=ask, args=each) for each in ranks.items()]
    for thread in threads:
        thread.start()
        time.sleep(seconds_between)
    for thread in threads:
        thread.join()
    return found


def test_ranks_that_time_out_name_the_one_that_is_silent() -> None:
    assert answers(HashStore(), {0: True, 2: True}) == {0: HANGS, 2: HANGS}


@pytest.mark.parametrize("ranks", [{2: True, 0: False}, {0: False, 2: True}])
def test_a_rank_whose_connection_was_closed_by_one_that_timed_out_names_the_silent_one(
    ranks: dict[int, bool],
) -> None:
    assert answers(HashStore(), ranks, seconds_between=0.2) == {0: HANGS, 2: HANGS}


def test_a_closed_connection_alone_is_a_killed_rank_and_is_reported_soon() -> None:
    began = time.monotonic()
    lost = "a rank was killed or disconnected"
    assert answers(HashStore(), {0: False, 2: False}) == {0: lost, 2: lost}
    assert time.monotonic() - began < 1.0


def test_a_rank_that_failed_is_named_with_its_reason() -> None:
    store = HashStore()
    RollCall(store, 1, 3).report_failure("no space left")
    text = "rank 1 failed: no space left"
    assert answers(store, {0: True, 2: False}) == {0: text, 2: text}


def test_ranks_that_all_answer_blame_the_network() -> None:
    text = "every rank answers, so the network between them failed"
    assert answers(HashStore(), {0: True, 1: True, 2: True}) == dict.fromkeys(range(3), text)
