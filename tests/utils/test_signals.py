"""Which signals ask a run to stop."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from densenet121.utils.signals import StopRequest

from helpers.commands import environment


@pytest.mark.parametrize("kept", [signal.SIG_IGN, lambda *_: None])
def test_a_signal_that_is_ignored_or_handled_stays_so(kept: signal.Handlers) -> None:
    before = signal.signal(signal.SIGHUP, kept)  # as nohup ignores it
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is kept
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_innermost_of_two_requests_has_the_signal() -> None:
    with StopRequest() as outer:
        with StopRequest() as inner:
            signal.raise_signal(signal.SIGUSR1)
        assert (outer.requested, inner.requested) == (False, True)
        signal.raise_signal(signal.SIGUSR1)
        assert outer.requested


def test_a_long_computation_ends_at_the_first_signal_and_is_not_begun_after_it() -> None:
    done = []

    def compute() -> str:
        done.append("begun")
        if len(done) > 1:
            signal.raise_signal(signal.SIGTERM)
        done.append("ended")
        return "result"

    with StopRequest() as stop:
        assert stop.at_once(compute) == "result"
        assert stop.at_once(compute) is None
        assert stop.at_once(compute) is None
        assert stop.requested
        signal.raise_signal(signal.SIGTERM)  # elsewhere it only asks
    assert done == ["begun", "ended", "begun"]


def test_a_server_does_not_outlive_its_terminal() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with StopRequest(notices=False):
        assert signal.getsignal(signal.SIGHUP) is before


SWALLOWED = """
import os, signal, sys

class Swallows:  # as torch does, while it imports numpy
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(1000): pass
            except BaseException:
                pass

sys.meta_path.insert(0, Swallows())
"""
FROM_A_TEXT = """
import os, signal, sys

def hook(event, values):
    if event == "open" and str(values[0]).endswith("weights.safetensors"):
        exec("os.kill(os.getpid(), signal.SIGINT)\\nfor _ in range(1000): pass")

sys.addaudithook(hook)
"""


@pytest.mark.parametrize("prepared", [SWALLOWED, FROM_A_TEXT])
def test_ctrl_c_is_one_line_and_its_status_whatever_is_interrupted(
    prepared: str, tmp_path: Path
) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"none")
    code = f"""{prepared}
signal.signal(signal.SIGINT, signal.default_int_handler)
from densenet121.__main__ import start
sys.exit(start(["inspect", "weights.safetensors"]))
"""
    (tmp_path / "interrupted.py").write_text(code)
    process = subprocess.run(
        [sys.executable, "-m", "interrupted"],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    stopped = "densenet121: stopped; everything saved before is intact\n"
    assert (process.returncode, process.stdout, process.stderr) == (143, "", stopped)


def test_a_process_that_ignores_ctrl_c_goes_on_to() -> None:
    code = """import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
from densenet121.utils.signals import handle_ctrl_c
handle_ctrl_c(143)
signal.raise_signal(signal.SIGINT)
"""
    process = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, check=False
    )
    assert (process.returncode, process.stderr) == (0, b"")
