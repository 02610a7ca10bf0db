"""Which signals ask a run to stop."""

import signal

import pytest

from densenet121.utils.signals import StopRequest


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


def test_a_server_does_not_outlive_its_terminal() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with StopRequest(notices=False):
        assert signal.getsignal(signal.SIGHUP) is before
