"""Threads that wait for others leave their processor soon, unless the user chose otherwise."""

import os
import subprocess
import sys

import pytest

from densenet121.bench.compute import OWN_SIDES
from densenet121.bench.process import environment_of
from densenet121.utils.threads import limit_spinning, spinning_limit

COMMAND = "from densenet121 import cli; cli._load('{}')"


def spins_that_openmp_reads(program: str, **variables: str) -> str:
    """What the OpenMP that torch brings says at its start; skips where it is not GNU's."""
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**clean, "OMP_DISPLAY_ENV": "verbose", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    found = [line for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    if not found:
        pytest.skip("torch has another OpenMP than GNU's")
    return found[0].split("'")[1]


@pytest.mark.parametrize(
    ("program", "variables", "spins"),
    [
        (COMMAND.format("convert"), {}, "2000"),
        (COMMAND.format("convert"), {"GOMP_SPINCOUNT": "77"}, "77"),
        (COMMAND.format("bench"), {}, "300000"),  # OpenMP's own
    ],
)
def test_commands_limit_the_spinning_before_torch_is_loaded(
    program: str, variables: dict[str, str], spins: str
) -> None:
    assert spins_that_openmp_reads(program, **variables) == spins


def test_a_wait_policy_of_the_user_is_kept() -> None:
    assert spinning_limit({"OMP_WAIT_POLICY": "active"}) == {}


def test_where_torch_is_loaded_nothing_is_set() -> None:
    environment: dict[str, str] = {}
    limit_spinning(environment)
    assert environment == {}


def test_bench_sets_it_for_our_own_sides_only() -> None:
    def found(side: str) -> dict[str, str]:
        return environment_of(side, OWN_SIDES)

    assert found("ours") == spinning_limit(os.environ) == found("int8") == found("plain")
    for peer in ("torchvision", "timm", "torchvision-compile", "onnxruntime", "openvino"):
        assert found(peer) == {}
