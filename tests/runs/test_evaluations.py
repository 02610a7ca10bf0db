"""predictions.csv is read back with the names of the images that were evaluated."""

import os
from pathlib import Path

from densenet121.runs.evaluations import (
    read_error_map,
    read_evaluation,
    write_error_maps,
    write_evaluation,
)

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
