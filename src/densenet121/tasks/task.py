"""What a task decides: the meaning of labels and logits, and all that follows from it.

Training, evaluation, reports and servers ask a task; they know neither softmax nor top-k. Shapes:
``N`` images, ``C`` classes, ``K`` outputs of the network.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.utils.errors import InputError

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
        """For programs, as predict --format jsonl and the server write it."""

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


class Task(ABC):
    """What a label means. Stateless but for its settings, so any number of runs can share one.

    A subclass must define what training, evaluation and prediction need. The rest (calibration,
    comparison, parts of the report) has defaults that leave it out or say that it is missing.

    Attributes:
        name: stored with weights and runs.
        prediction_columns: of predictions.csv, after "path", that must not be empty.
        answer_columns: of ``Answer.csv_rows``, for the head of a CSV file.
        every_image_weighs_one: the loss is a mean over images. Otherwise ranks exchange the
            weights of their batches in every step.
    """

    name: ClassVar[str]
    prediction_columns: ClassVar[tuple[str, ...]]
    answer_columns: ClassVar[tuple[str, ...]]
    every_image_weighs_one: ClassVar[bool] = True

    # Labels

    @abstractmethod
    def num_outputs(self, num_classes: int) -> int:
        """Outputs of the network for so many classes."""

    @abstractmethod
    def targets(self, dataset: ImageDataset, indices: NDArray[np.int64]) -> Tensor:
        """What the loss and the metrics compare with: ``(N, ...)``, on the CPU."""

    # Training

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Training loss, the weighted mean over the batch: a scalar.

        Args:
            logits: ``(N, K)``, of any float type.
            targets: as ``targets`` made them, on the logits' device.
        """

    def weight(self, targets: Tensor) -> float:
        """Weight of a batch in the mean over batches and ranks; ``targets`` are on the CPU."""
        return float(len(targets))

    # Evaluation

    @abstractmethod
    def score(self, logits: Tensor, targets: Tensor) -> Scores:
        """What to keep of a batch of logits ``(N, K)``, float32 on the CPU.

        Raises:
            InputError: a logit is nan or infinite.
        """

    @abstractmethod
    def metrics(self, scores: Scores, targets: Tensor) -> Metrics:
        """Metrics of all images, as metrics.jsonl and eval.json hold them; "loss" is among them.

        Args:
            scores: of at least one image, in the dataset's order.
            targets: of the same images.
        """

    @abstractmethod
    def is_better(self, metrics: Metrics, than: Metrics) -> bool:
        """Whether weights with ``metrics`` should replace the best so far."""

    @abstractmethod
    def log_lines(self, metrics: Metrics) -> list[str]:
        """What the log says after an evaluation."""

    @abstractmethod
    def best_line(self, metrics: Metrics) -> str:
        """The metrics of the best epoch, for the last lines of a log."""

    @abstractmethod
    def table_row(self, metrics: Metrics) -> dict[str, str]:
        """The metrics that a table of several weights files shows, by column."""

    @abstractmethod
    def digest_columns(self, scores: Scores, targets: Tensor) -> list[NDArray[Any]]:
        """What makes two evaluations the same: integers, one row an image."""

    @abstractmethod
    def csv_columns(
        self, scores: Scores, targets: Tensor, class_names: Sequence[str]
    ) -> dict[str, list[Any]]:
        """The columns of predictions.csv after ``path``."""

    def worst_errors(self, scores: Scores, targets: Tensor) -> list[ImageError]:
        """Wrong answers to draw class-activation maps of, in any order."""
        return []

    # Answers

    @abstractmethod
    def answers(
        self,
        logits: Logits,
        class_names: Sequence[str],
        calibration: Any = None,
        options: AnswerOptions = AnswerOptions(),
    ) -> Sequence[Answer]:
        """What the network says of images with these logits, ``(N, K)``.

        Raises:
            InputError: an option needs calibrated weights.
        """

    @abstractmethod
    def explained_output(self, logits: Logits) -> NDArray[np.int64]:
        """``(N,)``: the output that a class-activation map should explain, for each image."""

    @abstractmethod
    def same_answers(self, a: Logits, b: Logits) -> NDArray[np.bool_]:
        """``(N,)``: whether two networks give the same answer."""

    # Calibration and comparison

    def read_calibration(self, content: Mapping[str, Any]) -> Any:
        """The calibration that was stored with weights.

        Raises:
            InputError: it is damaged, or this task has none.
        """
        raise InputError(f"the task {self.name} has no calibration")

    def calibrate(
        self,
        logits: Logits,
        targets: Tensor,
        *,
        seed: int,
        target_accuracy: float | None,
        note: Mapping[str, Any],
    ) -> Calibrated:
        """Learn from held-out images how sure the network may be.

        Args:
            logits: ``(N, K)``.
            targets: of the same images.
            seed: of any random split.
            target_accuracy: of the answers that are given, where the caller asks for one.
            note: where the images come from; stored with what is learnt.

        Raises:
            InputError: the target cannot be reached, or this task has no calibration.
        """
        raise InputError(f"the task {self.name} has no calibration")

    def read_prediction(self, row: Mapping[str, str]) -> Any:
        """One row of predictions.csv; None where it is damaged."""
        return None

    def compare(
        self,
        a: Mapping[str, Mapping[str, str]],
        b: Mapping[str, Mapping[str, str]],
        *,
        resamples: int,
        seed: int,
    ) -> Compared:
        """Compare two evaluations of the same images.

        Args:
            a: rows of predictions.csv by the path of their image, as the csv module reads them.
            b: rows of the same images.
            resamples: of a bootstrap.
            seed: of a bootstrap.

        Raises:
            InputError: their labels differ, or this task cannot be compared.
        """
        raise InputError(f"evaluations of the task {self.name} cannot be compared")

    # Report

    def check_metrics(self, found: Mapping[str, Any]) -> Metrics:
        """The task's metrics of a row that was read from a file.

        Raises:
            KeyError, TypeError, ValueError: the row is damaged.
        """
        return dict(found)

    def disagreement(self, results: Results) -> str | None:
        """In which way predictions.csv contradicts eval.json; None where they agree."""
        return None

    @abstractmethod
    def report(self, results: Results) -> ReportPart:
        """The task's part of the report of a run."""
