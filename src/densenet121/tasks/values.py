"""Arguments and results of a task's methods. ``N`` is the number of images."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from densenet121.datasets.decoding import decode
from densenet121.utils.checks import check_share, check_whole

Logits = NDArray[np.float32]
Metrics = dict[str, Any]

TOP_K = 5  # classes of an answer, unless another number is asked for
# Begins the columns of predictions.csv with the probability of a class or label.
PROBABILITY = "probability_"


@dataclass(frozen=True)
class Scores:
    """Scores of images.

    Attributes:
        columns: name to array with one row per image.
        loss_sum: loss times weight, summed: a mean of means would be wrong if the last batch is
            shorter.
        weight: sum of the weights.
    """

    columns: Mapping[str, NDArray[Any]]
    loss_sum: float
    weight: float

    @classmethod
    def joined(cls, parts: Sequence["Scores"]) -> "Scores":
        """Join several batches or ranks, in order; a part without images has no columns."""
        filled = [part.columns for part in parts if part.columns]
        names = filled[0] if filled else {}
        return cls(
            {name: np.concatenate([columns[name] for columns in filled]) for name in names},
            sum((part.loss_sum for part in parts), 0.0),
            sum((part.weight for part in parts), 0.0),
        )

    def ordered(self, order: NDArray[np.int64]) -> "Scores":
        """The same scores with the images in another order."""
        columns = {name: column[order] for name, column in self.columns.items()}
        return Scores(columns, self.loss_sum, self.weight)


class Validation(NamedTuple):
    """One validation of a run; ``metrics`` are the task's."""

    epoch: int
    step: int
    loss: float
    metrics: Metrics


class AveragedValidation(NamedTuple):
    """One validation of the averaged weights of a run; ``metrics`` are the task's."""

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
    """Content of a run folder that a task reports.

    Attributes:
        validations: the validations after each epoch.
        scores: scores of eval.json; more than one if several weights files were evaluated.
        predictions: rows of predictions.csv, read by ``Task.read_prediction``.
        class_names: class names in the order of the labels.
        data_dir: folder of the evaluated images, if known.
        listed: paths outside of it that the list of the evaluated images names.
        decode: reads an image's file as it was read for the network, through its window.
        error_map: path of an image to the JPEG of its class-activation map, or None.
        averaged: the validations of the averaged weights; empty without `ema_decay`.
        calibration: what `calibrate` stored with the evaluated weights, as far as it is known.
    """

    validations: list[Validation]
    scores: list[CheckpointScore]
    predictions: list[Any]
    class_names: list[str]
    data_dir: Path | None = None
    listed: frozenset[str] = frozenset()
    decode: Callable[[bytes], NDArray[np.uint8]] = decode
    error_map: Callable[[str], bytes | None] = lambda path: None
    averaged: list[AveragedValidation] = field(default_factory=list)
    calibration: Mapping[str, Any] = field(default_factory=dict)


class ImageError(NamedTuple):
    """A wrong answer: its position in the scores, how bad it is, and the output to explain."""

    position: int
    badness: float
    output: int


class Curve(NamedTuple):
    """A line of the report's plot of validation metrics, one value per validation."""

    label: str
    values: Sequence[float]


@dataclass(frozen=True)
class ReportPart:
    """A task's part of the report of a run.

    Attributes:
        cards: HTML of the headline numbers.
        curves_title: title of the plot of validation metrics, with the unit.
        curves: lines of that plot, the most important first.
        sections: HTML of the sections, in order.
        figures: name to PNG to write into the run folder; None removes the file of an earlier
            report.
    """

    cards: Sequence[str]
    curves_title: str
    curves: Sequence[Curve]
    sections: Sequence[str]
    figures: Mapping[str, bytes | None]


class CardTable(NamedTuple):
    """A table of a model card, of plain text; the first column is text, the others are numbers."""

    title: str
    text: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class CardPart:
    """A task's part of a model card.

    Attributes:
        metrics: metrics for the hub: its type, such as "accuracy", to name and value.
        tables: in order, the main one first.
    """

    metrics: Mapping[str, tuple[str, float]]
    tables: Sequence[CardTable]


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """Options of an answer; a task refuses those that do not apply to it.

    Attributes:
        top_k: number of classes to return; None for ``TOP_K``.
        coverage: coverage of the prediction set, in (0, 1); None for no set.
        abstain_below: probability below which there is no answer; None uses the calibration's.
    """

    top_k: int | None = None
    coverage: float | None = None
    abstain_below: float | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range, such as percentages.

        Raises:
            UsageError: the text has the field and what is allowed.
        """
        check_whole("top_k", self.top_k, 1)
        check_share("coverage", self.coverage, ends=False)
        check_share("abstain_below", self.abstain_below, ends=True)


class Answer(ABC):
    """The network's answer for one image."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The answer as JSON values, for predict's JSON lines and for the server."""

    @abstractmethod
    def text(self) -> str:
        """The answer as one line of text."""

    @abstractmethod
    def csv_rows(self) -> list[Sequence[object]]:
        """The answer as one or more rows of ``Task.answer_columns``."""


class Calibrated(NamedTuple):
    """Result of ``Task.calibrate``.

    Attributes:
        calibration: an object whose ``to_json()`` is stored with the weights.
        lines: text lines to print.
    """

    calibration: Any
    lines: Sequence[str]


class LogitOffsets(NamedTuple):
    """Result of ``Task.offsets``.

    Attributes:
        values: ``(K,)``, what is added to the logits, and so to the bias of the classifier.
        effect: gives the text lines to print, from the logits before and after it was added, and
            the calibration that was then fitted to the logits after it.
    """

    values: NDArray[np.float64]
    effect: Callable[[Logits, Logits, Any], list[str]]


class Compared(ABC):
    """Comparison of two evaluations of the same images, B against A."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The whole comparison."""

    @abstractmethod
    def text(self, top: int) -> str:
        """The comparison as text, with the ``top`` most important rows of each table."""

    @property
    @abstractmethod
    def drop(self) -> float:
        """By how much B is worse, in percentage points; negative if it is better."""
