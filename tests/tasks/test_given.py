"""What a caller's own task gives: numbers of numpy are taken, wrong counts and types refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from densenet121.commands.calibrate import calibrate
from densenet121.config import CalibrateConfig, EvalConfig
from densenet121.engine.evaluate import evaluate
from densenet121.engine.train import train
from densenet121.inference.predictor import Predictor
from densenet121.runs.metrics import read_rows
from densenet121.tasks import Calibrated, Scores, Task
from densenet121.tasks.given import check_weight, columns_of, metric_of, plain
from densenet121.utils.errors import InputError

from helpers.training import train_config
from tasks.ordinal import Ordinal

NAMES = ("low", "middle", "high")


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three ordered classes of eight images."""
    root = tmp_path_factory.mktemp("graded")
    for side in ("train", "val"):
        for number, name in enumerate(NAMES):
            folder = root / side / name
            folder.mkdir(parents=True)
            for index in range(8):
                cv2.imwrite(str(folder / f"{index}.png"), np.full((20, 20, 3), 90 * number + index))
    return root


class Numpy(Ordinal):
    """Its metrics are what numpy and torch compute, as one writes them first."""

    def metrics(self, scores: Scores, *known: Any) -> dict[str, Any]:
        found = super().metrics(scores, *known)
        error = np.float32(found["absolute_error"])
        quartiles = np.quantile(scores.columns["expected"], [0.25, 0.75])
        return found | {"absolute_error": error, "quartiles": quartiles, "one": torch.tensor(1)}


def test_metrics_of_numpy_and_torch_are_written_as_numbers(graded: Path, trained: Path) -> None:
    rows = [row for row in read_rows(trained / "metrics.jsonl") if row["kind"] == "eval"]
    assert rows[0]["one"] == 1 and len(rows[0]["quartiles"]) == 2
    found = json.loads((trained / "eval.json").read_text())
    assert isinstance(found["absolute_error"], float) and found["quartiles"] == rows[0]["quartiles"]


@pytest.fixture(scope="module")
def trained(graded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "run"
    train(train_config(graded, folder, per_batch_size=8, amp="fp32", max_epoch=1), task=Numpy())
    return folder


def own(method: str, gives: Callable[..., Any]) -> Task:
    """The task with one method that is wrong."""
    changed: Task = type("Own", (Ordinal,), {method: lambda self, *known: gives(*known)})()
    return changed


WRONG = [
    ("targets", lambda *_: torch.zeros(1, 2), "`targets` gave 1 rows for 24 images"),
    ("targets", lambda *_: np.zeros((24, 2)), "`targets` gave ndarray; it must give a tensor"),
    ("score", lambda *_: Scores({"x": np.zeros(3)}, 1.0, 1.0), "`x` gave 3 rows for 24 images"),
    ("score", lambda *_: 1.0, "`score` gave float; it must give Scores"),
    ("metrics", lambda *_: None, "`metrics` gave NoneType; it must give a dict"),
    ("metrics", lambda *_: {"absolute_error": 1.0}, "`metrics` did not give `loss`"),
    ("metrics", lambda *_: {"loss": 1.0, "r2": np.nan}, "`r2` gave nan; it must give None where"),
    ("digest_columns", lambda *_: [np.zeros(2)], "`digest_columns` gave 2 rows for 24 images"),
    ("csv_columns", lambda *_: {"label": ["low"]}, "`csv_columns` gave 1 rows for 24 images"),
]


@pytest.mark.parametrize(("method", "gives", "text"), WRONG)
def test_what_is_wrong_is_refused_by_the_name_of_the_method(
    method: str, gives: Callable[..., Any], text: str, trained: Path, graded: Path, tmp_path: Path
) -> None:
    config = EvalConfig(
        data_dir=str(graded),
        pretrained=str(trained / "best.safetensors"),
        output_dir=str(tmp_path / "eval"),
        per_batch_size=24,
        workers=0,
        device="cpu",
    )
    with pytest.raises(InputError) as caught:
        evaluate(config, task=own(method, gives))
    assert str(caught.value).startswith("the task ordinal: `") and text in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (lambda logits, _: logits.mean(dim=1), r"a tensor of shape \(8,\); it must give a scalar"),
        (lambda *_: 1.0, "float"),
        (lambda *_: torch.tensor(1.0), "a tensor without gradient"),
    ],
)
def test_a_loss_that_backward_cannot_begin_at_is_refused(
    loss: Callable[..., Any], text: str, graded: Path, tmp_path: Path
) -> None:
    config = train_config(graded, tmp_path / "run", per_batch_size=8, amp="fp32", max_epoch=1)
    with pytest.raises(InputError, match=f"the `loss` of the task gave {text}"):
        train(config, task=own("loss", loss))


def test_answers_of_other_images_are_never_given(trained: Path, graded: Path) -> None:
    weights, images = trained / "best.safetensors", sorted((graded / "val" / "low").iterdir())
    right = Predictor(weights, workers=0, task=Ordinal())
    assert len(right.predict(images)) == 8
    first = own("answers", lambda logits, *_: ["low"])
    with pytest.raises(InputError, match=r"ordinal: `answers` gave 1 rows for 8 images; it must"):
        Predictor(weights, workers=0, task=first).predict(images)


class Older(Ordinal):
    """Written before there were groups."""

    def calibrate(self, logits: Any, targets: Any, *, seed: int, **more: Any) -> Calibrated:
        return Calibrated(None, [])

    def offsets(self, logits: Any, targets: Any, *, seed: int, class_names: Any) -> Any:  # type: ignore[override]
        return None


def test_a_task_without_groups_is_told_what_to_take(trained: Path, graded: Path) -> None:
    config = CalibrateConfig(
        data_dir=str(graded / "val"),
        pretrained=str(trained / "best.safetensors"),
        group=r"(\d+)\.png",
        fit_bias=1,
    )
    text = "the task ordinal: `offsets` does not take the argument `groups`, which `group` needs"
    with pytest.raises(InputError, match=text):
        calibrate(config, Older())


def test_weights_that_the_ranks_would_not_see_are_refused() -> None:
    check_weight(Ordinal(), 4.0, 4)
    with pytest.raises(InputError, match=r"`weight` gave 2.5 for 4 images; .*weighs_one` = False"):
        check_weight(Ordinal(), 2.5, 4)


def test_a_best_metric_that_is_missing_is_named() -> None:
    with pytest.raises(InputError, match="did not give `f1`, which its `best_metrics` names"):
        metric_of(Ordinal(), {"loss": 1.0}, "f1")


def test_what_json_does_not_have_is_refused() -> None:
    found = plain(Ordinal(), "metrics", {"by": ({"a": np.int64(2)}, None, "text", True)})
    assert found == {"by": [{"a": 2}, None, "text", True]}
    with pytest.raises(InputError, match="`metrics` for `by` gave set; it must give numbers"):
        plain(Ordinal(), "metrics", {"by": {1, 2}})
    with pytest.raises(InputError, match="gave int, which has no rows for 2 images"):
        columns_of(Ordinal(), "digest_columns", [3], 2)
