"""Who is missing, asked by the ranks that still run once an exchange has failed."""

import threading
import time
from collections.abc import Callable

from torch._C._distributed_c10d import Store

_GRACE_SECONDS = 10.0  # ranks that wait for a hanging one give up nearly at the same time
_CLOSED_SECONDS = 2.0


class RollCall:
    """Names the rank that ended or hangs, by what each rank left in a store that all reach."""

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        """Nothing is written to ``store`` while all is well."""
        self._store, self._rank, self._world_size = store, rank, world_size

    def tell_failure(self, reason: str) -> None:
        """Leave word of this rank's own trouble before it ends."""
        self._try(lambda: self._store.set(f"failed/{self._rank}", reason), 1.0)

    def who(self, timed_out: bool) -> str:
        """Which rank the others were lost by, as well as can be told.

        Args:
            timed_out: an exchange did not end in time; else a connection was closed.
        """
        found: list[str] = []
        seconds = _GRACE_SECONDS if timed_out else _CLOSED_SECONDS
        self._try(lambda: found.append(self._ask(timed_out, seconds)), seconds + 2)
        if found:
            return found[0]
        return "the rank at whose host the ranks meet (rank 0, or its launcher) does not answer"

    def _ask(self, timed_out: bool, seconds: float) -> str:
        store = self._store
        store.set(f"here/{self._rank}", "")
        others = [rank for rank in range(self._world_size) if rank != self._rank]
        until = time.monotonic() + seconds
        while True:
            for rank in others:
                if store.check([f"failed/{rank}"]):
                    return f"rank {rank} failed: {store.get(f'failed/{rank}').decode()}"
            silent = [rank for rank in others if not store.check([f"here/{rank}"])]
            if not timed_out and store.check(["found"]):
                return store.get("found").decode()
            if not silent or time.monotonic() > until:
                break
            time.sleep(0.1)
        if not timed_out:
            return "a rank was killed or cut off"
        if not silent:
            return "every rank answers, so the network between them is at fault"
        names = " and ".join(f"rank {rank}" for rank in silent)
        text = f"{names} did not answer: stopped, hanging or cut off"
        store.set("found", text)
        return text

    def _try(self, action: Callable[[], object], seconds: float) -> None:
        """Run it, but wait no longer: the store's own host may be what hangs."""

        def run() -> None:
            try:
                action()
            except RuntimeError:
                return  # the store is gone

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(seconds)
