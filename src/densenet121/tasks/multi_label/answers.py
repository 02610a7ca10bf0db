"""The answer for one image, and a row of predictions.csv."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from densenet121.tasks.values import PROBABILITY, Answer
from densenet121.utils.checks import number_in
from densenet121.utils.rounding import percent


@dataclass(frozen=True)
class Findings(Answer):
    """The labels of one image.

    Attributes:
        labels: their names.
        probabilities: their probabilities, calibrated if the weights are.
        thresholds: from which probability on each label is positive; None without an operating
            point: then nothing is decided, because 0.5 is no sensible threshold for rare labels.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    thresholds: tuple[float, ...] | None = None

    @property
    def positive(self) -> tuple[str, ...] | None:
        """The labels at or above their thresholds; None without thresholds."""
        if self.thresholds is None:
            return None
        rows = zip(self.labels, self.probabilities, self.thresholds, strict=True)
        return tuple(label for label, share, threshold in rows if share >= threshold)

    def _rows(self) -> list[tuple[str, float, float | None, bool | None]]:
        thresholds = self.thresholds or (None,) * len(self.labels)
        return [
            (label, share, threshold, None if threshold is None else share >= threshold)
            for label, share, threshold in zip(
                self.labels, self.probabilities, thresholds, strict=True
            )
        ]

    def to_json(self) -> dict[str, Any]:
        """Every label with its probability, threshold and decision."""
        return {
            "positive": None if self.positive is None else list(self.positive),
            "labels": [
                {"label": label, "probability": share, "threshold": threshold, "positive": is_on}
                for label, share, threshold, is_on in self._rows()
            ],
        }

    def text(self) -> str:
        """The positive labels with a plus, then the others; the most probable first."""
        rows = sorted(self._rows(), key=lambda row: (not row[3], -row[1]))
        return "  ".join(
            f"{'+' if is_on else ''}{label} {percent(share)}" for label, share, _, is_on in rows
        )

    def csv_rows(self) -> list[Sequence[object]]:
        """One row per label; numbers have all their digits, so that the decision follows."""
        return [
            (
                label,
                share,
                "" if threshold is None else threshold,
                "" if is_on is None else int(is_on),
            )
            for label, share, threshold, is_on in self._rows()
        ]


class Row(NamedTuple):
    """One row of predictions.csv; a target is 1, 0 or nan for not known."""

    path: str
    targets: Mapping[str, float]
    probabilities: Mapping[str, float]


def read_row(row: Mapping[str, str]) -> Row | None:
    """Parse a row of the csv module; None if it is damaged."""
    names = [name[len(PROBABILITY) :] for name in row if str(name).startswith(PROBABILITY)]
    try:
        targets = {name: number_in(row[name]) if row[name] else math.nan for name in names}
        shares = {name: number_in(row[PROBABILITY + name]) for name in names}
        path = row["path"]
    except (KeyError, TypeError, ValueError):
        return None
    known = [value for value in targets.values() if not math.isnan(value)]
    sound = all(value in (0, 1) for value in known) and all(0 <= s <= 1 for s in shares.values())
    return Row(path, targets, shares) if path and names and sound else None
