"""Progress bars: on a terminal, unless a run shall show nothing."""

import contextlib
import io

import pytest

from densenet121.utils.logging import quiet
from densenet121.utils.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("shown", [True, False])
def test_a_quiet_run_has_no_bar(shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", terminal := Terminal())
    with (
        contextlib.nullcontext() if shown else quiet(),
        progress_bar("epoch 1/1", 2) as advance,
    ):
        advance(note="loss 1.000")
    assert ("epoch 1/1" in terminal.getvalue()) == shown
