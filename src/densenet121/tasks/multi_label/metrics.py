"""Metrics of each label, and their means over the labels for which they are defined."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.metrics.probabilities import brier, calibration_error, log_loss
from densenet121.metrics.ranking import auroc, average_precision, delong_interval

MEANS = ("auroc", "average_precision", "brier", "ece", "log_loss")


def label_metrics(truth: NDArray[np.float64], shares: NDArray[np.float64]) -> dict[str, Any]:
    """Metrics of one label; those that are not defined are None.

    Args:
        truth: ``(N,)``, 1, 0 or nan for not known.
        shares: ``(N,)`` probabilities.
    """
    interval = delong_interval(truth, shares)
    return {
        "n_positive": int((truth == 1).sum()),
        "n_negative": int((truth == 0).sum()),
        "n_unknown": int(np.isnan(truth).sum()),
        "auroc": auroc(truth, shares),
        "auroc_ci": None if interval is None else list(interval),
        "average_precision": average_precision(truth, shares),
        "brier": brier(truth, shares),
        "ece": calibration_error(truth, shares),
        "log_loss": log_loss(truth, shares),
    }


def all_metrics(
    truth: NDArray[np.float64], shares: NDArray[np.float64], names: Sequence[str]
) -> dict[str, Any]:
    """``labels`` by name, and ``macro``: means over the labels for which the AUROC is defined.

    A label of which all known images are alike has no AUROC; it is named in ``left_out`` and takes
    part in no mean.
    """
    labels = {name: label_metrics(truth[:, k], shares[:, k]) for k, name in enumerate(names)}
    left_out = [name for name, found in labels.items() if found["auroc"] is None]
    defined = [found for name, found in labels.items() if name not in left_out]
    macro: dict[str, Any] = {
        name: float(np.mean([found[name] for found in defined])) if defined else None
        for name in MEANS
    }
    return {"labels": labels, "macro": macro | {"left_out": left_out}}
