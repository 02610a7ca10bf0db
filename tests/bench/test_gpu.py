"""The script of `make test-gpu bench-gpu`: all of it runs on a CPU, in small."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.commands import environment
from helpers.forking import Forked

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"
CHECKS = {"choices", "against_float64", "reduced_precision", "no_waits", "equal_runs"}
CHECKS |= {"lack_of_memory", "command_line", "triton_blocks", "recomputed", "graphs", "optimizers"}


def script(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return Forked([SCRIPT, *arguments], environment()).finished(timeout_seconds=600)


def rows(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.slow
def test_every_check_runs_in_small_on_a_cpu() -> None:
    done = script("check", "--device", "cpu", "--dry")
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(done.stdout)
    assert found[-1] == {"part": "end", "failed": 0}
    assert {row["part"] for row in found} == CHECKS | {"machine", "end"}
    commands = [row["command"] for row in found if "command" in row]
    expected = ["train", "train", "resume is bit-equal", "train", "train"]
    ends = ("last.safetensors", "last_ema.safetensors")
    expected += [f"resume of fine-tuning: {name}" for name in ends]
    expected += ["eval", "predict", "export", "serve"]
    assert commands == expected


@pytest.mark.slow
def test_every_measurement_runs_in_small_on_a_cpu() -> None:
    done = script("measure", "--device", "cpu", "--dry")
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(done.stdout)
    sides = [(row["part"], row["side"]) for row in found if "side" in row]
    speeds = [row for row in found if row["part"] == "loading" and "images_per_second" in row]
    assert len(speeds) >= 3 and all(row["images_per_second"] > 0 for row in speeds)
    expected = {("train", side) for side in ("exact", "fast", "fast, recomputed")}
    assert expected | {("infer", "fast")} <= set(sides)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")
def test_without_an_accelerator_it_says_so_and_fails() -> None:
    done = script("check")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "gpu.py: this machine has no accelerator: nothing was checked\n"
