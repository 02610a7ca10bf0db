"""What pages show of labels and classes is checked when eval.json is read: no traceback later."""

import copy
import json
from typing import Any

import numpy as np
import pytest

from densenet121.metrics.summary import summarise
from densenet121.tasks import MultiLabel, SingleLabel
from densenet121.tasks.read_scores import read_scores

COUNTS = {"top1_correct": 30, "top5_correct": 40, "total": 40}


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, (40, 2)).astype(np.float64)
    thresholds = {"ill": 0.5}
    found = summarise(
        truth, random.random((40, 2)), ["ill", "well"], thresholds=thresholds, resamples=9
    )
    means = {name: found["macro"][name] for name in ("auroc", "average_precision")}
    both: dict[str, Any] = json.loads(json.dumps({**COUNTS, **means, **found}))
    return both


def test_sound_metrics_are_read_as_they_are(content: dict[str, Any]) -> None:
    assert read_scores(content)["labels"] == content["labels"]
    assert read_scores(content)["macro"] == content["macro"]


@pytest.mark.parametrize("task", [SingleLabel(), MultiLabel()])
@pytest.mark.parametrize("value", ["x", [1], -1, [0.5, None]])
@pytest.mark.parametrize(
    "place",
    [
        "labels ill",
        "labels ill n_positive",
        "labels ill auroc",
        "labels ill auroc_ci",
        "labels ill brier",
        "labels ill ppv",
        "labels ill sensitivity_ci",
        "macro auroc_ci",
        "macro average_precision_ci",
    ],
)
def test_damaged_metrics_are_refused(
    task: SingleLabel | MultiLabel, place: str, value: Any, content: dict[str, Any]
) -> None:
    damaged = copy.deepcopy(content)
    inside: Any = damaged
    *path, last = place.split()
    for key in path:
        inside = inside[key]
    inside[last] = value
    with pytest.raises((TypeError, ValueError)):
        task.check_metrics(damaged)


@pytest.mark.parametrize("place", ["labels ill auroc", "labels ill ppv", "macro left_out"])
def test_lacking_metrics_are_refused(place: str, content: dict[str, Any]) -> None:
    damaged = copy.deepcopy(content)
    inside: Any = damaged
    *path, last = place.split()
    for key in path:
        inside = inside[key]
    del inside[last]
    with pytest.raises(KeyError):
        read_scores(damaged)
