"""What a resume says and does on other devices and ranks; the runs of this machine have none."""

from pathlib import Path
from typing import Any

import pytest

from densenet121.config import differences
from densenet121.engine.resume import _changes, _effect, renumber
from densenet121.engine.state import RunState
from densenet121.runs.checkpoints import Checkpoint

T4 = {"type": "cuda", "name": "NVIDIA T4", "capability": "7.5", "cudnn": 91000, "driver": "580"}
RUN = {"device": "cuda:0", "threads": 8, "kernels": None, "world_size": 1, "accelerator": T4}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"name": "NVIDIA L4", "capability": "8.9"}, {"name", "capability"}),
        ({"cudnn": 91100}, {"cudnn"}),
        ({"driver": "590"}, {"driver"}),
        ({"type": "xpu"}, {"device"}),
    ],
)
def test_another_gpu_driver_or_library_is_named(change: dict[str, Any], expected: set[str]) -> None:
    assert set(_changes(RUN, RUN | {"accelerator": T4 | change})) == expected


def test_another_gpu_of_the_same_model_is_the_same() -> None:
    assert _changes(RUN, RUN | {"device": "cuda:1"}) == {}


def test_a_checkpoint_without_the_record_is_compared_by_its_device() -> None:
    old = {name: value for name, value in RUN.items() if name != "accelerator"}
    assert _changes(old, RUN) == {}
    assert _changes(old | {"device": "cpu"}, RUN) == {"device": ("cpu", "cuda:0")}


def test_a_run_is_resumed_with_the_exactness_it_began_with() -> None:
    assert differences({"exact": 1}, {"exact": 0}) == ["--exact was 1, is now 0"]
    assert differences({}, {"exact": 1}) == []  # a run from before the setting


@pytest.mark.parametrize(
    ("ranks", "steps", "done", "now_ranks", "now_steps", "expected"),
    [
        (1, 12, 8, 2, 6, 4),  # 8 batches are 4 steps of two ranks
        (2, 6, 4, 1, 12, 8),
        (1, 12, 7, 2, 6, 4),  # half a step: its other images wait, and none comes twice
        (1, 12, 12, 8, 1, 1),
        (8, 1, 1, 1, 12, 12),  # a whole epoch stays one
        (2, 6, 0, 1, 12, 0),
        (1, 12, 11, 8, 1, 1),
        (2, 6, 4, 2, 5, 4),  # other data
        (2, 6, 4, 2, 3, 3),
    ],
)
def test_another_number_of_ranks_goes_on_after_the_images_that_were_trained_on(
    ranks: int, steps: int, done: int, now_ranks: int, now_steps: int, expected: int
) -> None:
    before = {"world_size": ranks, "steps_per_epoch": steps}
    now = {"world_size": now_ranks, "steps_per_epoch": now_steps}
    state = RunState(3 * steps + done, 3, None, None, {})
    said = renumber(state, Checkpoint(Path("0-4_1.ckpt"), {}, {"run": before}), now)
    assert state.step == 3 * now_steps + expected
    assert said == [
        f"an epoch had {steps} steps and now has {now_steps}; continuing at step {state.step}"
    ]


def test_the_result_of_another_number_of_ranks_is_not_said_to_differ_in_the_last_bits_alone() -> (
    None
):
    assert _effect("world_size").endswith("so the result will differ")
    assert _effect("threads").endswith("so the result may differ in the last bits")
