"""The interface of a task: the meaning of labels and logits, and everything that depends on it.

Training, evaluation, reports and the server call a task; they do not know softmax or top-k. Shapes:
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
    CardPart,
    CardTable,
    Compared,
    ImageError,
    LogitOffsets,
    Logits,
    Metrics,
    ReportPart,
    Results,
    Scores,
)
from densenet121.utils.errors import InputError


class Task(ABC):
    """What a label means. It has no state except its settings, so several runs can share one.

    A subclass must define what training, evaluation and prediction need. The defaults of the rest
    (calibration, comparison, parts of the report) omit it or raise an error that it is missing.

    Attributes:
        name: stored with weights and runs.
        class_word: what pages call the classes.
        prediction_columns: columns of predictions.csv after "path" that must not be empty.
        answer_columns: columns of ``Answer.csv_rows``, for the header of a CSV file.
        best_metrics: metrics that can decide which weights are the best, and whether higher is
            better; ``is_better`` follows the first.
    """

    name: ClassVar[str]
    class_word: ClassVar[str] = "classes"
    prediction_columns: ClassVar[tuple[str, ...]]
    answer_columns: ClassVar[tuple[str, ...]]
    best_metrics: ClassVar[Mapping[str, bool]] = {"loss": False}

    # Labels

    @abstractmethod
    def num_outputs(self, num_classes: int) -> int:
        """Number of outputs of the network for this number of classes."""

    @abstractmethod
    def targets(self, dataset: ImageDataset, indices: NDArray[np.int64]) -> Tensor:
        """Targets of the loss and the metrics: ``(N, ...)``, on the CPU."""

    # Training

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Training loss, the weighted mean over the batch: a scalar.

        Args:
            logits: ``(N, K)``, of any float type.
            targets: the result of ``targets``, on the device of the logits.
        """

    @property
    def every_image_weighs_one(self) -> bool:
        """Whether the loss is a mean over images; else ranks exchange weights in every step."""
        return True

    def weight(self, targets: Tensor) -> float:
        """Weight of a batch in the mean over batches and ranks; ``targets`` are on the CPU."""
        return float(len(targets))

    def distillation(
        self, logits: Tensor, teacher: Tensor, targets: Tensor, temperature: float
    ) -> Tensor:
        """Loss against the logits of a teacher, with the weights of ``loss``: a scalar.

        Args:
            logits: ``(N, K)``, of any float type.
            teacher: ``(N, K)`` of a network for the same task, without gradient.
            targets: as for ``loss``.
            temperature: above 0; both networks' logits are divided by it.

        Raises:
            InputError: this task cannot learn from a teacher.
        """
        raise InputError(f"the task {self.name} cannot learn from a `teacher`")

    # Evaluation

    def mean_of_views(self, logits: Tensor) -> Tensor:
        """Logits whose probabilities are the mean over several views of the same images.

        Args:
            logits: ``(V, N, K)``, float32 on the CPU.

        Returns:
            ``(N, K)`` float32.

        Raises:
            InputError: this task has no such mean.
        """
        raise InputError(f"the task {self.name} has no test-time augmentation; omit `tta`")

    @abstractmethod
    def score(self, logits: Tensor, targets: Tensor) -> Scores:
        """The scores of a batch of logits ``(N, K)``, float32 on the CPU.

        Raises:
            InputError: a logit is nan or infinite.
        """

    @abstractmethod
    def metrics(self, scores: Scores, targets: Tensor, class_names: Sequence[str]) -> Metrics:
        """Metrics of all images, for metrics.jsonl and eval.json; they include "loss".

        Args:
            scores: scores of at least one image, in the order of the dataset.
            targets: targets of the same images.
            class_names: in the order of the labels.
        """

    def calibrated(self, scores: Scores, targets: Tensor, calibration: Any) -> Scores:
        """The scores of these targets as they are with the calibration of the weights."""
        return scores

    def metrics_with_intervals(
        self,
        scores: Scores,
        targets: Tensor,
        class_names: Sequence[str],
        *,
        calibration: Any = None,
        group: Sequence[str] | None = None,
        by: Mapping[str, Sequence[str]] | None = None,
    ) -> Metrics:
        """What ``eval`` adds to ``metrics``: intervals, thresholds, subgroups.

        Args:
            scores: scores of all images.
            targets: targets of the same images.
            class_names: in the order of the labels.
            calibration: of the weights, or None.
            group: what the images of one group, such as a patient, have in common.
            by: column to the subgroup of each image.

        Raises:
            InputError: groups or subgroups, and the task has no such metrics.
        """
        if group is not None or by:
            raise InputError(f"the task {self.name} has no metrics by `group` or `by`")
        return {}

    @abstractmethod
    def is_better(self, metrics: Metrics, than: Metrics) -> bool:
        """Whether weights with ``metrics`` should replace the best so far."""

    @abstractmethod
    def log_lines(self, metrics: Metrics) -> list[str]:
        """Log lines after an evaluation."""

    @abstractmethod
    def best_line(self, metrics: Metrics) -> str:
        """The metrics of the best epoch, for the end of the log."""

    @abstractmethod
    def table_row(self, metrics: Metrics) -> dict[str, str]:
        """Column to metric, for a table of several weights files."""

    def table_lines(self, content: Metrics) -> list[str]:
        """Lines that `eval` logs about eval.json; the default has none."""
        return []

    @abstractmethod
    def digest_columns(self, scores: Scores, targets: Tensor) -> list[NDArray[Any]]:
        """Integer columns, one row per image; two evaluations are equal if these are."""

    @abstractmethod
    def csv_columns(
        self, scores: Scores, targets: Tensor, class_names: Sequence[str]
    ) -> dict[str, list[Any]]:
        """The columns of predictions.csv after ``path``."""

    def worst_errors(self, scores: Scores, targets: Tensor) -> list[ImageError]:
        """Wrong answers that get class-activation maps, in any order."""
        return []

    def confusion(
        self, scores: Scores, targets: Tensor, class_names: Sequence[str]
    ) -> bytes | None:
        """The confusion matrix as a PNG image, for trackers; None if the task has none."""
        return None

    # Answers

    @abstractmethod
    def answers(
        self,
        logits: Logits,
        class_names: Sequence[str],
        calibration: Any = None,
        options: AnswerOptions = AnswerOptions(),  # noqa: B008 (frozen)
    ) -> Sequence[Answer]:
        """The answers for images with these logits, ``(N, K)``.

        Raises:
            InputError: an option needs calibrated weights.
        """

    def probabilities(self, logits: Logits, calibration: Any = None) -> NDArray[np.floating] | None:
        """``(N, K)``: the probability of each output; None if outputs have no such meaning."""
        return None

    @abstractmethod
    def explained_output(self, logits: Logits, calibration: Any = None) -> NDArray[np.int64]:
        """``(N,)``: the output that a class-activation map should explain, for each image."""

    @abstractmethod
    def same_answers(self, a: Logits, b: Logits, calibration: Any = None) -> NDArray[np.bool_]:
        """``(N,)``: whether two networks give the same answer, with this calibration."""

    # Calibration and comparison

    def read_calibration(self, content: Mapping[str, Any]) -> Any:
        """Read the calibration that is stored with weights.

        Raises:
            InputError: it is damaged, or this task has no calibration.
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
        operating_point: str | None = None,
        class_names: Sequence[str] = (),
        groups: NDArray[np.int64] | None = None,
    ) -> Calibrated:
        """Fit a calibration of the probabilities on held-out images.

        Args:
            logits: ``(N, K)``.
            targets: targets of the same images.
            seed: seed of any random split.
            target_accuracy: required accuracy of the answers given, or None.
            note: origin of the images; stored with the calibration.
            operating_point: rule for the thresholds of labels, or None.
            class_names: in the order of the labels.
            groups: ``(N,)`` number of each image's group, 0, 1, 2 ...; is left out without groups.

        Raises:
            InputError: the target cannot be reached, or this task has no calibration.
        """
        raise InputError(f"the task {self.name} has no calibration")

    def offsets(
        self,
        logits: Logits,
        targets: Tensor,
        *,
        seed: int,
        class_names: Sequence[str],
        groups: NDArray[np.int64] | None = None,
    ) -> LogitOffsets:
        """Fit what shall be added to the logits, on the images that ``calibrate`` fits on.

        Args:
            logits: ``(N, K)`` of held-out images.
            targets: targets of the same images.
            seed: seed of any random split; the one of ``calibrate``.
            class_names: in the order of the labels.
            groups: as for ``calibrate``.

        Raises:
            InputError: a label or class lacks images, or this task has no offsets.
        """
        raise InputError(f"the task {self.name} has no offsets of logits: omit `fit_bias`")

    def read_prediction(self, row: Mapping[str, str]) -> Any:
        """Read one row of predictions.csv; None if it is damaged."""
        return None

    def compare(
        self,
        a: Mapping[str, Mapping[str, str]],
        b: Mapping[str, Mapping[str, str]],
        *,
        resamples: int,
        seed: int,
        groups: Mapping[str, str] | None = None,
    ) -> Compared:
        """Compare two evaluations of the same images.

        Args:
            a: image path to row of predictions.csv, as read by the csv module.
            b: rows of the same images.
            resamples: number of bootstrap resamples.
            seed: seed of the bootstrap.
            groups: image path to the id of its group, which the bootstrap draws; None draws images.

        Raises:
            InputError: their labels differ, or this task cannot be compared.
        """
        raise InputError(f"evaluations of the task {self.name} cannot be compared")

    # Report

    def check_metrics(self, found: Mapping[str, Any]) -> Metrics:
        """The task's metrics in a row that was read from a file.

        Raises:
            KeyError, TypeError, ValueError: the row is damaged.
        """
        return dict(found)

    def disagreement(self, results: Results) -> str | None:
        """How predictions.csv contradicts eval.json; None if they agree."""
        return None

    @abstractmethod
    def report(self, results: Results) -> ReportPart:
        """The task's part of the report of a run."""

    def card(self, results: Results) -> CardPart:
        """The task's part of a model card.

        Args:
            results: with one score, that of the weights, and their predictions if there are any.
        """
        score = results.scores[0]
        numbers = {"loss": score.loss} | score.metrics
        rows = [
            [name.replace("_", " "), f"{value:.6g}"]
            for name, value in numbers.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        return CardPart({}, [CardTable("Metrics", "", ("metric", "value"), rows)])
