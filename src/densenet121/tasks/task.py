"""What a task decides: the meaning of labels and logits, and all that follows from it.

Training, evaluation, reports and servers ask a task; they know neither softmax nor top-k. Shapes:
``N`` images, ``C`` classes, ``K`` outputs of the network.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.tasks.values import (
    Answer,
    AnswerOptions,
    Calibrated,
    Compared,
    ImageError,
    Logits,
    Metrics,
    ReportPart,
    Results,
    Scores,
)
from densenet121.utils.errors import InputError


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
        options: AnswerOptions = AnswerOptions(),  # noqa: B008 (frozen)
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
