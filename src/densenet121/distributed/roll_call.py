"""Find the missing rank after an exchange has failed, from the ranks that still run."""

import threading
import time
from collections.abc import Callable

from torch._C._distributed_c10d import Store

_GRACE_SECONDS = 10.0  # ranks that wait for a hanging one time out almost at the same time
_CLOSED_SECONDS = 2.0


class RollCall:
    """Names the rank that ended or hangs, from entries of all ranks in a shared store."""

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        """Nothing is written to ``store`` until a failure."""
        self._store, self._rank, self._world_size = store, rank, world_size

    def report_failure(self, reason: str) -> None:
        """Record the failure of this rank before it ends."""
        self._try(lambda: self._store.set(f"failed/{self._rank}", reason), 1.0)

    def find_lost(self, timed_out: bool) -> str:
        """Text that names the lost rank, if it can be found.

        Args:
            timed_out: the exchange timed out; else a connection was closed.
        """
        found: list[str] = []
        most = _GRACE_SECONDS + _CLOSED_SECONDS
        self._try(lambda: found.append(self._ask(timed_out)), most + 2)
        if found:
            return found[0]
        return "the host of the shared store (rank 0, or its launcher) does not answer"

    def _ask(self, timed_out: bool) -> str:
        store = self._store
        store.set(f"here/{self._rank}", "")
        if timed_out:
            store.set("timed_out", "")
        others = [rank for rank in range(self._world_size) if rank != self._rank]
        began = time.monotonic()
        while True:
            for rank in others:
                if store.check([f"failed/{rank}"]):
                    return f"rank {rank} failed: {store.get(f'failed/{rank}').decode()}"
            silent = [rank for rank in others if not store.check([f"here/{rank}"])]
            if not timed_out and store.check(["found"]):
                return store.get("found").decode()
            if not silent or time.monotonic() - began > self._patience_seconds(timed_out):
                break
            time.sleep(0.1)
        if not timed_out:
            return "a rank was killed or disconnected"
        if not silent:
            return "every rank answers, so the network between them failed"
        names = " and ".join(f"rank {rank}" for rank in silent)
        text = f"{names} did not answer: stopped, hanging or disconnected"
        store.set("found", text)
        return text

    def _patience_seconds(self, timed_out: bool) -> float:
        if timed_out:
            return _GRACE_SECONDS
        if self._store.check(["timed_out"]):
            # A rank that times out closes its connections to those that are not lost, too. It
            # will name the rank that is.
            return _GRACE_SECONDS + _CLOSED_SECONDS
        return _CLOSED_SECONDS

    def _try(self, action: Callable[[], object], seconds: float) -> None:
        """Run it, but wait at most ``seconds``: the host of the store itself may hang."""

        def run() -> None:
            try:
                action()
            except RuntimeError:
                return  # the store is gone

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(seconds)
