"""Runs the cases of targets in processes of their own: a crash is a fault like any other.

Case ``n`` of a target is made from the seed, its name and ``n`` alone, so it can be made again.
"""

import json
import mmap
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SLOW_SECONDS = 2.0  # of the processor; a case that takes longer is a fault
_STUCK_SECONDS = 30
_MEMORY = 3 * 2**30  # that a case may take beyond what the process has at its start
# What a hostile file would do. Reading one does none of it.
_FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"),
    *("subprocess.Popen", "socket.connect", "shutil.rmtree", "code.__new__"),
)


@dataclass(frozen=True)
class Target:
    """A part of the program, and how to attack it.

    Attributes:
        name: of the target.
        make: the case for a generator.
        run: uses a case; returns what came of it, such as "refused" or "read". Every exception is
            a fault.
        prepare: called once in the process, before the first case.
    """

    name: str
    make: Callable[[random.Random], Any]
    run: Callable[[Any], str]
    prepare: Callable[[], None] = lambda: None


@dataclass
class Result:
    """What came of a target's cases.

    Attributes:
        outcomes: how often which.
        faults: number of the case and what happened, of each fault.
        seconds: how long it took.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def cases(self) -> int:
        """Number of cases."""
        return self.outcomes.total() + len(self.faults)


class _Stuck(BaseException):
    """The time of a case is over. Not an Exception: nobody else is to catch it."""


def case_of(target: Target, seed: int, number: int) -> Any:
    """A case, as often as wanted."""
    return target.make(random.Random(f"{seed}/{target.name}/{number}"))


def run_target(target: Target, seed: int, first: int, count: int, seconds: float) -> Result:
    """Run cases ``first`` .. ``first + count - 1``, or as many as the time allows."""
    result, start, number = Result(), time.monotonic(), first
    while number < first + count and (left := seconds - (time.monotonic() - start)) > 0:
        number = _in_a_child(target, seed, number, first + count, left, result)
        if len(result.faults) >= 20:
            break
    result.seconds = time.monotonic() - start
    return result


def _in_a_child(
    target: Target, seed: int, first: int, end: int, seconds: float, result: Result
) -> int:
    """The number of the next case: after the last one, or after one that ended the process."""
    now = mmap.mmap(-1, 8)  # shared: the number of the case that runs
    readable, writable = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(readable)
        status = 1
        try:
            _work(target, seed, first, end, seconds, now, writable)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writable)
    with os.fdopen(readable) as lines:
        for line in lines:
            said = json.loads(line)
            result.outcomes.update(said["outcomes"])
            result.faults += [(number, text) for number, text in said["faults"]]
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    number = int.from_bytes(now, "little")
    if status != 0:
        result.faults.append((number, f"the process ended with status {status}"))
    return number + 1


def _work(
    target: Target, seed: int, first: int, end: int, seconds: float, now: mmap.mmap, out: int
) -> None:
    target.prepare()
    watch()
    outcomes: Counter[str] = Counter()
    faults: list[tuple[int, str]] = []
    start = told = time.monotonic()
    for number in range(first, end):
        now[:] = number.to_bytes(8, "little")
        case = case_of(target, seed, number)
        text = attempt(target, case, outcomes)
        if text:
            faults.append((number, text))
        late = time.monotonic() - start > seconds
        if text or late or time.monotonic() - told > 1:
            _tell(out, outcomes, faults)
            told = time.monotonic()
        if late:
            return
    _tell(out, outcomes, faults)


def _tell(out: int, outcomes: Counter[str], faults: list[tuple[int, str]]) -> None:
    os.write(out, (json.dumps({"outcomes": outcomes, "faults": faults}) + "\n").encode())
    outcomes.clear()
    faults.clear()


def attempt(target: Target, case: Any, outcomes: Counter[str]) -> str:
    """Run one case; what was wrong, or nothing."""
    forbidden.clear()
    signal.signal(signal.SIGALRM, _over)
    signal.alarm(_STUCK_SECONDS)
    start = time.process_time()
    try:
        outcome = target.run(case)
    except _Stuck:
        return f"took more than {_STUCK_SECONDS} s"
    except BaseException as error:
        return "".join(traceback.format_exception(error))[-3000:]
    finally:
        signal.alarm(0)
    taken = time.process_time() - start
    if forbidden:
        return f"tried {forbidden[0]}"
    if taken > SLOW_SECONDS:
        return f"took {taken:.1f} s"
    outcomes[outcome] += 1
    return ""


forbidden: list[str] = []


def watch() -> None:
    """Note what a hostile file would do, and let no case take all memory."""

    def hook(event: str, args: Sequence[object]) -> None:
        if event in _FORBIDDEN:
            forbidden.append(f"{event} {args!r}"[:200])
            raise PermissionError(event)

    sys.addaudithook(hook)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _over(*_: object) -> None:
    raise _Stuck
