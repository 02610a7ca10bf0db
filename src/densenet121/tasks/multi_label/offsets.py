"""Offsets of the labels' logits, fitted on held-out images, and what they change."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.metrics import offsets
from densenet121.tasks.multi_label.calibrate import known_cells
from densenet121.tasks.multi_label.calibration import Calibration, probabilities, saturated
from densenet121.tasks.values import LogitOffsets


def learn(
    logits: NDArray[np.float32], targets: NDArray[np.float64], names: Sequence[str]
) -> LogitOffsets:
    """An offset for each label: together with a temperature it has the lowest cross-entropy.

    Args:
        logits: ``(N, K)``.
        targets: ``(N, K)``, 1, 0 or nan for not known.
        names: the labels.

    Raises:
        InputError: a label lacks positive or negative images.
    """
    values = np.zeros(len(names))
    problems: dict[str, str] = {}
    for k, name in enumerate(names):
        raw, truth = known_cells(logits, targets, names, k)
        found = offsets.of_label(raw, truth)
        problem, value = found.problem, float(found.values[0])
        if saturated(raw + value, found.temperature) > saturated(raw, 1.0):
            problem = (
                f"the best temperature, {found.temperature:.4f}, makes probabilities exactly 0 or "
                "1; pass more held-out images"
            )
        if problem:
            problems[name] = problem
        else:
            values[k] = value

    def effect(before: NDArray[Any], after: NDArray[Any], calibration: Calibration) -> list[str]:
        lines = [
            f"warning: the label {name} has no offset: {text}" for name, text in problems.items()
        ]
        width = max(len(name) for name in names)
        for k, name in enumerate(names):
            (old, truth), (new, _) = (
                known_cells(part, targets, names, k) for part in (before, after)
            )
            lines.append(
                f"{name:<{width}}  offset {values[k]:+.4f}  mean probability "
                f"{probabilities(old).mean():.4f} before, "
                f"{probabilities(new, calibration.temperatures[k]).mean():.4f} with offset and "
                f"temperature; share of the images {truth.mean():.4f}"
            )
        return lines

    return LogitOffsets(values, effect)
