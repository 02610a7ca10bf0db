"""Progress bars: on a terminal, unless a run shall show nothing."""

import contextlib
import io
import sys
from pathlib import Path

import pytest

from densenet121.utils.logging import log, quiet, run_log
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


def test_a_run_without_standard_output_has_no_bar_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python has None for it in a process that was started without."""
    monkeypatch.setattr(sys, "stdout", None)
    with run_log(tmp_path, "2020-08-22_time_16_58_56", 0) as file, progress_bar("x", 2) as advance:
        log.info("one line")
        advance()
    assert file.read_text().endswith("INFO:one line\n")
    assert capsys.readouterr().err == ""
