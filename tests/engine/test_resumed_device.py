"""What a resume says about another GPU; the runs of this machine have none."""

from typing import Any

import pytest

from densenet121.config import differences
from densenet121.engine.resume import _changes

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
