"""Two AUROCs of each label or class on the same images, by DeLong's test of paired AUROCs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from densenet121.metrics.ranking import delong_test
from densenet121.metrics.several_tests import holm


@dataclass(frozen=True)
class LabelDifference:
    """The AUROC of one label in both evaluations, and DeLong's test of the difference.

    ``low`` and ``high`` are None where the difference has no variance, as are ``p_value`` and
    ``p_holm``, unless there is no difference. ``p_holm`` is corrected for the number of labels.
    """

    label: str
    auroc_a: float
    auroc_b: float
    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    p_holm: float | None

    @property
    def tested(self) -> str:
        """Interval and p-value, "-" where there are none."""
        ends = "-" if self.low is None else f"{self.low:+.4f} to {self.high:+.4f}"
        return f"({ends}), p = {p_text(self.p_value)}"


def label_differences(
    names: Sequence[str],
    truth: NDArray[np.float64],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
) -> list[LabelDifference]:
    """The difference of each label that has two positive and two negative images, in order.

    Args:
        names: the L labels.
        truth: ``(N, L)``: 1, 0 or nan for not known.
        a: ``(N, L)`` probabilities of A.
        b: those of B.
    """
    labels = []
    for k, name in enumerate(names):
        test = delong_test(truth[:, k], a[:, k], b[:, k])
        if test is not None:
            low, high = test.interval or (None, None)
            areas = (test.auroc_a, test.auroc_b, test.difference)
            labels.append(LabelDifference(name, *areas, low, high, test.p_value, None))
    corrected = holm([label.p_value for label in labels])
    return [replace(one, p_holm=p) for one, p in zip(labels, corrected, strict=True)]


def p_text(value: float | None) -> str:
    """A p-value with four digits."""
    return "-" if value is None else f"{value:.4g}"
