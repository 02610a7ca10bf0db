"""Logits as answers: the top classes, whether the network abstains, and prediction sets."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from densenet121.tasks.single_label.calibration import Calibration
from densenet121.tasks.single_label.predictions import Prediction
from densenet121.tasks.values import TOP_K, AnswerOptions, Logits
from densenet121.utils.errors import InputError


def answers(
    logits: Logits,
    shares: NDArray[np.float64],
    class_names: Sequence[str],
    calibration: Calibration | None,
    options: AnswerOptions,
) -> list[Prediction]:
    """The answer of each image, with a prediction set if it was asked for.

    Args:
        logits: ``(N, C)``.
        shares: ``(N, C)`` probabilities of the same images, with the calibration.
        class_names: the C classes.
        calibration: of the weights, or None.
        options: what the answer shall have.

    Raises:
        InputError: prediction sets of weights that are not calibrated.
    """
    coverage, abstain_below = options.coverage, options.abstain_below
    if coverage is not None and calibration is None:
        raise InputError("`coverage` needs calibrated weights; run densenet121 calibrate first")
    threshold = calibration.set_threshold(coverage) if calibration and coverage else 0.0
    if abstain_below is None:
        abstain_below = (calibration.abstain_below if calibration else None) or 0.0
    abstain_below = float(abstain_below)  # one of numpy's would make `abstained` numpy's, too
    most = TOP_K if options.top_k is None else options.top_k
    # For equal logits the lower class comes first, as in evaluation.
    order = np.argsort(-logits, axis=1, kind="stable")
    found = []
    for row, ranked in zip(shares, order, strict=True):
        top = ranked[:most]
        chosen = None
        if coverage is not None:
            inside = [k for k in ranked if row[k] >= threshold]
            # Never empty: adding the most probable class can only raise the coverage.
            chosen = tuple(class_names[k] for k in inside or ranked[:1])
        found.append(
            Prediction(
                classes=tuple(class_names[k] for k in top),
                probabilities=tuple(float(row[k]) for k in top),
                abstained=float(row[ranked[0]]) < abstain_below,
                prediction_set=chosen,
            )
        )
    return found
