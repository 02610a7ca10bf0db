"""predictions.csv is read back with the names of the images that were evaluated."""

import os
from pathlib import Path

import pytest

from densenet121.runs.evaluations import (
    copy_evaluation,
    read_error_map,
    read_evaluation,
    write_error_maps,
    write_evaluation,
)

from helpers.commands import no_file_beyond

NAMES = ["cat/a\rb.png", "cat/a\nb.png", 'cat/"a", b.png', "cat/\r\n.png", os.fsdecode(b"\xff.png")]


def test_images_of_any_name_are_read_back(tmp_path: Path) -> None:
    text = ["cat\r"] * len(NAMES)
    columns = {"label": text, "predicted": text, "probability": ["0.5"] * len(NAMES), "rank": text}
    write_evaluation(tmp_path, {"task": "single_label"}, NAMES, columns)
    assert list(read_evaluation(tmp_path).rows) == NAMES


def test_new_answers_are_not_shown_with_the_maps_of_earlier_ones(tmp_path: Path) -> None:
    # As a longer run that is stopped after another epoch would leave them.
    write_error_maps(tmp_path, {"a.png": b"of the network before"})
    write_evaluation(tmp_path, {"task": "single_label"}, ["a.png"], {"label": ["cat"]})
    assert read_error_map(tmp_path, "a.png") is None


def test_results_that_have_no_room_where_the_run_goes_on_are_not_there_in_part(
    tmp_path: Path,
) -> None:
    """predictions.csv was cut short, and the error named the file of the other run."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    columns = dict.fromkeys(("label", "predicted", "probability", "rank"), ["1"] * 1000)
    write_evaluation(source, {"epoch": 0}, [f"{n}.png" for n in range(1000)], columns)
    with no_file_beyond(5000), pytest.raises(OSError, match="File too large") as told:
        copy_evaluation(source, target, 1)
    assert (told.value.filename, told.value.filename2) == (str(target / "predictions.csv"), None)
    assert not list(target.iterdir())
    copy_evaluation(source, target, 1)
    for name in ("eval.json", "predictions.csv"):
        assert (target / name).read_bytes() == (source / name).read_bytes()
