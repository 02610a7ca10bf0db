"""What passes between a task and those who ask it. ``N`` is the number of images."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
Metrics = dict[str, Any]


@dataclass(frozen=True)
class Scores:
    """What a task keeps of scored images.

    Attributes:
        columns: by name, an array with one row an image.
        loss_sum: loss times weight, summed: a mean of means would be wrong where the last batch
            is shorter.
        weight: sum of the weights.
    """

    columns: Mapping[str, NDArray[Any]]
    loss_sum: float
    weight: float

    @classmethod
    def joined(cls, parts: Sequence["Scores"]) -> "Scores":
        """Of several batches or ranks, in their order; a part without images has no columns."""
        filled = [part.columns for part in parts if part.columns]
        names = filled[0] if filled else {}
        return cls(
            {name: np.concatenate([columns[name] for columns in filled]) for name in names},
            sum((part.loss_sum for part in parts), 0.0),
            sum((part.weight for part in parts), 0.0),
        )

    def ordered(self, order: NDArray[np.int64]) -> "Scores":
        """The same with the images in another order."""
        columns = {name: column[order] for name, column in self.columns.items()}
        return Scores(columns, self.loss_sum, self.weight)


class Validation(NamedTuple):
    """One validation of a run; ``metrics`` are the task's."""

    epoch: int
    step: int
    loss: float
    metrics: Metrics


class CheckpointScore(NamedTuple):
    """One evaluated weights file; ``metrics`` are the task's."""

    checkpoint: str
    digest: str
    loss: float
    metrics: Metrics


@dataclass(kw_only=True)
class Results:
    """What a run folder holds for a task to report on.

    Attributes:
        validations: after each epoch.
        scores: of eval.json; more than one where several weights files were evaluated.
        predictions: rows of predictions.csv, as ``Task.read_prediction`` made them.
        class_names: in the order of the labels.
        data_dir: folder of the evaluated images, where it is known.
        error_map: JPEG of the class-activation map of an image by its path, where there is one.
    """

    validations: list[Validation]
    scores: list[CheckpointScore]
    predictions: list[Any]
    class_names: list[str]
    data_dir: Path | None = None
    error_map: Callable[[str], bytes | None] = lambda path: None


class ImageError(NamedTuple):
    """A wrong answer: its position in the scores, how bad it is, and the output to explain."""

    position: int
    badness: float
    output: int


class Curve(NamedTuple):
    """A line of the report's plot of validation metrics, one value a validation."""

    label: str
    values: Sequence[float]


@dataclass(frozen=True)
class ReportPart:
    """What a task adds to the report of a run.

    Attributes:
        cards: HTML of the headline numbers.
        curves_title: above the plot of validation metrics, with the unit.
        curves: its lines, the most important first.
        sections: HTML, in their order.
        figures: PNG files to write into the run folder, by name; also those left from an earlier
            report that are to be removed (None).
    """

    cards: Sequence[str]
    curves_title: str
    curves: Sequence[Curve]
    sections: Sequence[str]
    figures: Mapping[str, bytes | None]


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """What a caller wants to know of an image; a task takes what applies to it.

    Attributes:
        top_k: number of classes to return.
        coverage: of the prediction set, in (0, 1); None for no set.
        abstain_below: probability below which there is no answer; None for what calibration stored.
    """

    top_k: int = 5
    coverage: float | None = None
    abstain_below: float | None = None


class Answer(ABC):
    """What the network says of one image."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """For programs, as predict in JSON lines and the server write it."""

    @abstractmethod
    def text(self) -> str:
        """For people, on one line."""

    @abstractmethod
    def csv_rows(self) -> list[Sequence[object]]:
        """The values of ``Task.answer_columns``; more than one row where there is more to say."""


class Calibrated(NamedTuple):
    """What ``Task.calibrate`` learnt.

    Attributes:
        calibration: an object whose ``to_json()`` is stored with the weights.
        lines: to print.
    """

    calibration: Any
    lines: Sequence[str]


class Compared(ABC):
    """Two evaluations of the same images, B against A."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The whole comparison."""

    @abstractmethod
    def text(self, top: int) -> str:
        """For people, with the ``top`` most important rows of each table."""

    @property
    @abstractmethod
    def drop(self) -> float:
        """By how much B is worse, in percentage points; negative where it is better."""
