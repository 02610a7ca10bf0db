"""How torch's threads wait for each other. Imports no torch: it must come first."""

import os
import sys
from collections.abc import MutableMapping

# Some 50 to 100 microseconds; without a setting libgomp takes 300,000, several milliseconds.
_SPINS = {"GOMP_SPINCOUNT": "2000"}
_OF_THE_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def limit_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads that wait for others sleep soon, unless the user has chosen how they wait.

    A thread that spins uses up its share of a processor that it has to share with another process,
    and then all threads wait for it. libgomp reads the variable when it is loaded, with torch;
    where it is loaded already nothing is changed.
    """
    if "torch" not in sys.modules:
        environment.update(spinning_limit(environment))


def spinning_limit(environment: MutableMapping[str, str]) -> dict[str, str]:
    """What ``limit_spinning`` sets: nothing where the user has chosen."""
    return {} if any(name in environment for name in _OF_THE_USER) else dict(_SPINS)
