"""The answer for one image, and a row of predictions.csv."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from densenet121.tasks.values import PROBABILITY, Answer
from densenet121.utils.checks import number_in, whole_number_in
from densenet121.utils.rounding import percent


@dataclass(frozen=True)
class Prediction(Answer):
    """The classes of one image.

    Attributes:
        classes: names of the top classes, the most probable first.
        probabilities: their probabilities, calibrated if the weights are.
        abstained: whether the first is below the abstain threshold, so that there is no answer.
        prediction_set: classes that include the true one with the requested coverage; None if no
            coverage was requested.
    """

    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    abstained: bool = False
    prediction_set: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """The predicted class, null if the network abstains, and the top classes."""
        content: dict[str, Any] = {
            "predicted": None if self.abstained else self.classes[0],
            "top": [
                {"class": label, "probability": share}
                for label, share in zip(self.classes, self.probabilities, strict=True)
            ],
            "abstained": self.abstained,
        }
        if self.prediction_set is not None:
            content["prediction_set"] = self.prediction_set
        return content

    def text(self) -> str:
        """The top classes with their probabilities."""
        shown = "  ".join(
            f"{label} {percent(share)}"
            for label, share in zip(self.classes, self.probabilities, strict=True)
        )
        more = "  (abstains)" if self.abstained else ""
        if self.prediction_set is not None:
            more += f"  {{{', '.join(self.prediction_set)}}}"
        return shown + more

    def csv_rows(self) -> list[Sequence[object]]:
        """One row per class; probabilities have all their digits, as in JSON."""
        chosen = "" if self.prediction_set is None else ";".join(self.prediction_set)
        return [
            (rank, label, share, int(self.abstained), chosen)
            for rank, (label, share) in enumerate(
                zip(self.classes, self.probabilities, strict=True), start=1
            )
        ]


class Row(NamedTuple):
    """One row of predictions.csv: label and predicted are class names, rank counts from 1.

    ``shares`` has the probability of each class; it is empty in files of more than 100 classes, and
    in those of older versions.
    """

    path: str
    label: str
    predicted: str
    probability: float
    rank: int
    shares: Mapping[str, float] = MappingProxyType({})

    @property
    def correct(self) -> bool:
        """Whether the label was predicted."""
        return self.label == self.predicted


def read_row(row: Mapping[str, str]) -> Row | None:
    """Parse a row of the csv module; None if it is damaged."""
    try:
        path, label, predicted = (row[name] for name in Row._fields[:3])
        probability, rank = number_in(row["probability"]), whole_number_in(row["rank"])
        shares = {
            name.removeprefix(PROBABILITY): number_in(value)
            for name, value in row.items()
            if str(name).startswith(PROBABILITY)
        }
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if not (path and label and predicted and math.isfinite(probability)):
        return None
    if not all(0 <= share <= 1 for share in shares.values()):
        return None
    return Row(path, label, predicted, probability, rank, shares)


def right(rows: Sequence[Row]) -> int:
    """Number of images whose label was predicted."""
    return sum(row.correct for row in rows)
