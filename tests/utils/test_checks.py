"""A call in Python with an argument of another type is refused in one line that names it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import densenet121
from densenet121 import EvalConfig, Predictor, TrainConfig
from densenet121.report import write_report
from densenet121.tasks import SingleLabel
from densenet121.utils.errors import UsageError

TRAIN, EVAL = TrainConfig(data_dir="x"), EvalConfig(data_dir="x", pretrained="y")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: densenet121.train({"lr": 1}), "`config` must be of type TrainConfig, got {'lr': "),  # type: ignore[arg-type]
        (lambda: densenet121.evaluate(TRAIN), "`config` must be of type EvalConfig, got TrainConf"),  # type: ignore[arg-type]
        (lambda: densenet121.training_datasets(EVAL), "`config` must be of type TrainConfig, got "),  # type: ignore[arg-type]
        (lambda: densenet121.evaluation_dataset(TRAIN), "`config` must be of type EvalConfig, got"),  # type: ignore[arg-type]
        (lambda: densenet121.train(TRAIN, "x"), "`task` must be of type Task or None, got 'x'"),  # type: ignore[arg-type]
        (lambda: densenet121.evaluate(EVAL, "x"), "`task` must be of type Task or None, got 'x'"),  # type: ignore[arg-type]
        (lambda: Predictor("y", task=SingleLabel), "`task` must be of type Task or None, got <cl"),  # type: ignore[arg-type]
        (lambda: Predictor(None), "`weights` must be of type str or PathLike, got None"),  # type: ignore[arg-type]
        (lambda: densenet121.load_model(b"y"), "`path` must be of type str or PathLike, got b'y'"),  # type: ignore[arg-type]
        (lambda: write_report(Path(), "x"), "`task` must be of type Task or None, got 'x'"),  # type: ignore[arg-type]
        (lambda: densenet121.DenseNetClassifier.load(None), "`path` must be of type str or PathL"),  # type: ignore[arg-type]
    ],
)
def test_an_argument_of_another_type_is_named(
    call: Callable[[], Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        call()
    assert str(caught.value).startswith(said)
    assert not list(tmp_path.iterdir())
