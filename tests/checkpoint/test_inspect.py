"""`inspect` says what decides about the answers: temperatures, thresholds, when there is none."""

from pathlib import Path

import pytest

from densenet121.checkpoint.inspect import inspect
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import save_weights
from densenet121.tasks import MultiLabel, SingleLabel
from densenet121.tasks.multi_label.calibration import Calibration as OfLabels
from densenet121.tasks.multi_label.calibration import OperatingPoint
from densenet121.tasks.single_label.calibration import Calibration as OfClasses

from helpers.weights import write_weights

POINT = OperatingPoint(0.25, 1, 1, 2, 2)


@pytest.mark.parametrize(
    ("task", "calibration", "said"),
    [
        (SingleLabel.name, OfClasses(7.18254, (0.1, 0.2), 0.58461, {}),
         "temperature 7.183; no answer below 0.5846; prediction sets from 2 images"),
        (SingleLabel.name, OfClasses(1.5, (0.1,), None, {}),
         "temperature 1.5; prediction sets from 1 images"),
        (SingleLabel.name, OfClasses(1.5, (0.1, 0.2), None, {"groups": 4, "pictures": 9}),
         "temperature 1.5; prediction sets from 2 groups"),
        (MultiLabel.name, OfLabels((0.5, 2.0, 1.0), (POINT,) * 3, "sensitivity=0.8", {}),
         "temperatures 0.5, 2, 1; operating point sensitivity=0.8"),
        (MultiLabel.name, OfLabels((0.5, 2.0, 1.0), (), "", {}), "temperatures 0.5, 2, 1"),
    ],
)  # fmt: skip
def test_calibrated_weights_are_shown_to_be_calibrated(
    tmp_path: Path, task: str, calibration: OfClasses | OfLabels, said: str
) -> None:
    path = write_weights(tmp_path / "w.safetensors", calibration=calibration, task=task)
    rows = dict(line.split(None, 1) for line in inspect(path).splitlines())
    assert rows["calibration"] == said
    thresholds = "0.25, 0.25, 0.25" if "operating" in said else None
    assert rows.get("thresholds") == thresholds


def test_other_weights_have_no_such_line(tmp_path: Path) -> None:
    assert "calibration" not in inspect(write_weights(tmp_path / "w.safetensors"))


def test_scores_of_calibrated_weights_are_said_to_be_of_the_weights_before(tmp_path: Path) -> None:
    made = read_weights(write_weights(tmp_path / "w.safetensors"))
    assert made.info is not None
    learnt = OfClasses(1.5, (0.1,), None, {}).to_json()
    said = "scores are of the weights before calibrate"
    for origin, calibration, is_said in (
        ({"epoch": 1, "step": 9, "loss": 0.5}, learnt, True),
        ({"epoch": 1, "step": 9, "loss": 0.5}, None, False),
        ({"epoch": 1, "step": 9}, learnt, False),
    ):
        save_weights(tmp_path / "o.safetensors", made.state_dict, made.info, origin, calibration)
        assert (said in inspect(tmp_path / "o.safetensors")) == is_said


def test_it_is_said_that_convert_records_the_names_of_classes(tmp_path: Path) -> None:
    named = write_weights(tmp_path / "named.safetensors")
    plain = write_weights(
        tmp_path / "plain.safetensors", class_names=(), state=read_weights(named).state_dict
    )
    said = "its classes have no names; `convert` records them (`class_names`)"
    assert said in inspect(plain)
    assert said not in inspect(named)


def test_a_name_in_the_file_is_no_line_of_its_own(tmp_path: Path) -> None:
    names = ("ant\nnote  checked by the maker", "\x1b[2Abee")
    file = write_weights(tmp_path / "w.safetensors", class_names=names)
    shown = inspect(file)
    assert r"ant\nnote  checked by the maker, \x1b[2Abee" in shown
    assert "\x1b" not in shown and "\nnote  checked" not in shown
