"""A call in Python with an argument of another type is refused in one line that names it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import densenet121
from densenet121 import EvalConfig, Predictor, TrainConfig
from densenet121.report import write_report
from densenet121.tasks import SingleLabel
from densenet121.utils.checks import number_in, whole_number_in
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


@pytest.mark.parametrize("text", ["0_1", "1_000", "٣", "\uff11", "", "1,5"])
def test_a_number_with_underscores_or_other_digits_is_none(text: str) -> None:
    for parser in (number_in, whole_number_in):
        with pytest.raises(ValueError, match=r"number|could not|invalid"):
            parser(text)


def test_numbers_are_read_as_python_reads_them() -> None:
    assert number_in("1e-4") == 1e-4 and number_in(" 2") == 2
    assert whole_number_in("-3") == -3 and whole_number_in("0x10", 16) == 16
