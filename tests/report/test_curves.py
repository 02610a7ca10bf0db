"""The figures with fixed places hold all of their numbers."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from densenet121.report.plots import curves
from densenet121.runs.metrics import TrainRow
from densenet121.runs.read import RunFiles
from densenet121.tasks import SingleLabel, Validation
from densenet121.tasks.single_label.calibration import reliability
from densenet121.tasks.single_label.plots import reliability as reliability_figure
from densenet121.tasks.values import Curve, ReportPart, Results


def darkest_of_edge(png: bytes) -> int:
    """The darkest pixel of the outermost two rows and columns, which are white."""
    pixels: NDArray[np.uint8] = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    edges = (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:])
    return min(int(edge.min()) for edge in edges)


@pytest.mark.parametrize(
    ("loss", "lr", "images_per_second"),
    [(1.27e-4, 1.27e-4, 1.1e-4), (980_000.0, 0.000973, 870_000.0), (1e9, 1e-9, 1e7)],
)
def test_no_number_of_the_curves_is_cut_off(
    loss: float, lr: float, images_per_second: float, tmp_path: Path
) -> None:
    scale = [1.0, 0.93, 0.97, 0.9]  # a narrow range has ticks of many digits
    rows = [
        TrainRow(at, at, loss * one, lr * one, images_per_second * one, 0.0)
        for at, one in enumerate(scale)
    ]
    validations = [Validation(row.epoch, row.step, row.loss, {}) for row in rows]
    results = Results(validations=validations, scores=[], predictions=[], class_names=[])
    run = RunFiles(folder=tmp_path, task=SingleLabel(), results=results, train=rows)
    part = ReportPart(
        cards=[],
        curves_title="Accuracy, %",
        curves=[Curve("top-1", [loss * one for one in scale])],
        sections=[],
        figures={},
    )
    assert darkest_of_edge(curves(run, part)) == 255


@pytest.mark.parametrize("images", [3, 100_000, 10_000_000])
def test_no_number_of_the_reliability_diagram_is_cut_off(images: int) -> None:
    confidence = np.linspace(0.2, 1.0, 12)
    found = reliability(confidence, confidence > 0.6)
    found = replace(found, counts=found.counts * images)
    assert darkest_of_edge(reliability_figure(found)) == 255
