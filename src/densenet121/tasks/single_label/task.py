"""One class per image: softmax, cross-entropy with the original's smoothing, top-1 and top-5."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.losses import distillation_loss, focal_loss, smooth_cross_entropy
from densenet121.tasks.single_label.answers import answers
from densenet121.tasks.single_label.calibration import Calibration, probabilities
from densenet121.tasks.single_label.each_class import (
    MOST_CLASSES,
    accuracies,
    logits_for_each,
    mean_auroc,
    metrics_with_intervals,
)
from densenet121.tasks.single_label.intervals import interval_lines, read_intervals
from densenet121.tasks.single_label.metrics import label_ranks
from densenet121.tasks.single_label.predictions import Prediction, Row, read_row, right
from densenet121.tasks.task import Task
from densenet121.tasks.values import (
    PROBABILITY,
    AnswerOptions,
    Calibrated,
    CardPart,
    Compared,
    ImageError,
    LogitOffsets,
    Logits,
    Metrics,
    ReportPart,
    Results,
    Scores,
)
from densenet121.utils.errors import UsageError
from densenet121.utils.json_values import count
from densenet121.utils.rounding import four_digits


@dataclass(frozen=True)
class SingleLabel(Task):
    """Every image has exactly one class.

    Attributes:
        smooth_factor: share that the training loss takes from the true class; see
            ``smooth_cross_entropy``.
        focal_gamma: exponent of the focal loss for training; None is cross-entropy.
        class_weights: weight of each class in the training loss, or None.
    """

    smooth_factor: float = 0.0
    focal_gamma: float | None = None
    class_weights: tuple[float, ...] | None = None

    name = "single_label"
    prediction_columns = ("label", "predicted")
    best_metrics = {  # noqa: RUF012
        "top1": True,
        "balanced_accuracy": True,
        "auroc": True,
        "quadratic_kappa": True,
        "loss": False,
    }
    answer_columns = ("rank", "class", "probability", "abstained", "prediction_set")

    def num_outputs(self, num_classes: int) -> int:
        """One logit per class."""
        return num_classes

    def targets(self, dataset: ImageDataset, indices: NDArray[np.int64]) -> Tensor:
        """Labels ``(N,)`` int64."""
        return torch.from_numpy(dataset.labels[indices])

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats per image with smoothed labels, or focal loss; weighted."""
        weights = self._weights(logits.device)
        if self.focal_gamma is not None:
            return focal_loss(logits, targets, self.focal_gamma, weights)
        return smooth_cross_entropy(logits, targets, self.smooth_factor, weights)

    def distillation(
        self, logits: Tensor, teacher: Tensor, targets: Tensor, temperature: float
    ) -> Tensor:
        """``T^2`` times the weighted mean of ``KL(teacher || network)`` at temperature ``T``."""
        weights = self._weights(logits.device)
        return distillation_loss(logits, teacher, targets, temperature, weights)

    def _weights(self, device: torch.device) -> Tensor | None:
        return _on_device(self.class_weights, device) if self.class_weights else None

    @property
    def every_image_weighs_one(self) -> bool:
        """Whether there are no class weights."""
        return self.class_weights is None

    def weight(self, targets: Tensor) -> float:
        """Sum of the weights of the classes of a batch, or the number of images."""
        if self.class_weights is None:
            return float(len(targets))
        return float(np.take(self.class_weights, targets.numpy()).sum())

    def mean_of_views(self, logits: Tensor) -> Tensor:
        """Logarithms of the mean of the softmax of each view."""
        # Not through the probabilities, of which the smallest would be 0.
        log_shares = logits.double().log_softmax(dim=2)
        return (log_shares.logsumexp(dim=0) - math.log(len(logits))).float()

    def score(self, logits: Tensor, targets: Tensor) -> Scores:
        """Predicted class, its probability and the rank of the label for each image."""
        ranks = label_ranks(logits, targets)
        # Without smoothing, so that an evaluation's loss does not depend on the training settings.
        loss = smooth_cross_entropy(logits, targets) * len(targets)
        columns = {
            # Not of the probabilities: of nearly equal logits these are equal, but not the ranks.
            "predicted": logits.argmax(dim=1).numpy(),
            "probability": logits.double().softmax(dim=1).amax(dim=1).numpy(),
            "rank": ranks.numpy(),
        }
        if logits.shape[1] <= MOST_CLASSES:
            columns["logits"] = logits.numpy()
        return Scores(columns, float(loss), float(len(targets)))

    def metrics(self, scores: Scores, targets: Tensor, class_names: Sequence[str]) -> Metrics:
        """Top-1 and top-5, loss, balanced accuracy, quadratic kappa, mean AUROC of the classes.

        There is no AUROC of more than 100 classes; it is None if all images are of one class.
        """
        labels, columns = targets.numpy(), scores.columns
        logits = columns.get("logits")
        answers, ranks = columns["predicted"], columns["rank"]
        found = accuracies(labels, answers, ranks, class_names, scores.loss_sum)
        return (
            found
            if logits is None
            else found | {"auroc": mean_auroc(labels, probabilities(logits))}
        )

    def metrics_with_intervals(
        self,
        scores: Scores,
        targets: Tensor,
        class_names: Sequence[str],
        *,
        calibration: Calibration | None = None,
        group: Sequence[str] | None = None,
        by: Mapping[str, Sequence[str]] | None = None,
    ) -> Metrics:
        """Intervals, each class against the others, subgroups; the temperature of the weights.

        No number is with the temperature.
        """
        columns = scores.columns
        found = metrics_with_intervals(
            targets.numpy(),
            columns["predicted"],
            columns["rank"],
            logits_for_each(columns),
            class_names,
            group,
            by or {},
        )
        if calibration is not None:
            stored = {"temperature": calibration.temperature, "note": calibration.note}
            found["calibration"] = stored
        return found

    def table_lines(self, content: Metrics) -> list[str]:
        """The accuracies with their intervals over groups, if there are any."""
        return interval_lines(content)

    def is_better(self, metrics: Metrics, than: Metrics) -> bool:
        """Whether more images have rank 1; of two equal epochs, the earlier one is kept."""
        return bool(metrics["top1_correct"] > than["top1_correct"])

    def log_lines(self, metrics: Metrics) -> list[str]:
        """The original's two lines, with every image in ``tot``, and one of the AUROC."""
        lines = [_counted(metrics, 1), _counted(metrics, 5)]
        if "auroc" in metrics:
            lines.append(f"auroc={four_digits(metrics['auroc'])}")
        return [f"after allreduce eval: {line}" for line in lines]

    def best_line(self, metrics: Metrics) -> str:
        """Top-1 in the original's form, and the AUROC."""
        more = f", auroc={four_digits(metrics['auroc'])}" if "auroc" in metrics else ""
        return _counted(metrics, 1) + more

    def table_row(self, metrics: Metrics) -> dict[str, str]:
        """Top-1, top-5, mean AUROC, loss and the number of images."""
        return {
            "top1": f"{100 * metrics['top1']:.2f}%",
            "top5": f"{100 * metrics['top5']:.2f}%",
            **({"auroc": four_digits(metrics["auroc"])} if "auroc" in metrics else {}),
            "loss": f"{metrics['loss']:.4f}",
            "tot": str(metrics["total"]),
        }

    def digest_columns(self, scores: Scores, targets: Tensor) -> list[NDArray[Any]]:
        """Label, prediction and rank; not the probability, whose last bits vary by machine."""
        return [targets.numpy(), scores.columns["predicted"], scores.columns["rank"]]

    def csv_columns(
        self, scores: Scores, targets: Tensor, class_names: Sequence[str]
    ) -> dict[str, list[Any]]:
        """Names of label and prediction, probability, rank of the label; then each class.

        Probabilities are in full: rounding would make scores equal that are not, and change the
        AUROC. More than 100 classes, or 5 million probabilities, have that of the prediction alone.
        """
        columns = scores.columns
        found: dict[str, list[Any]] = {
            "label": [class_names[label] for label in targets.tolist()],
            "predicted": [class_names[label] for label in columns["predicted"]],
            "probability": columns["probability"].tolist(),
            "rank": columns["rank"].tolist(),
        }
        logits = logits_for_each(columns)
        if logits is not None:
            for name, shares in zip(class_names, probabilities(logits).T, strict=True):
                found[PROBABILITY + name] = [repr(share) for share in shares.tolist()]
        return found

    def confusion(self, scores: Scores, targets: Tensor, class_names: Sequence[str]) -> bytes:
        """The confusion matrix of the report."""
        from densenet121.tasks.single_label import plots
        from densenet121.tasks.single_label.predictions import Row
        from densenet121.tasks.single_label.scores import compare

        predictions = scores.columns["predicted"].tolist()
        rows = [
            Row("", class_names[label], class_names[predicted], 0.0, 1)
            for label, predicted in zip(targets.tolist(), predictions, strict=True)
        ]
        return plots.confusion(compare(rows, class_names))

    def worst_errors(self, scores: Scores, targets: Tensor) -> list[ImageError]:
        """Every error; badness is the probability of the wrong class, which the map explains."""
        predicted, probability = scores.columns["predicted"], scores.columns["probability"]
        wrong = np.flatnonzero(predicted != targets.numpy()).tolist()
        return [ImageError(at, float(probability[at]), int(predicted[at])) for at in wrong]

    def answers(
        self,
        logits: Logits,
        class_names: Sequence[str],
        calibration: Calibration | None = None,
        options: AnswerOptions = AnswerOptions(),  # noqa: B008 (frozen)
    ) -> list[Prediction]:
        """The top classes of each image, with a prediction set if requested."""
        shares = self.probabilities(logits, calibration)
        return answers(np.asarray(logits), shares, class_names, calibration, options)

    def probabilities(
        self, logits: Logits, calibration: Calibration | None = None
    ) -> NDArray[np.float64]:
        """``(N, C)``: softmax of logits over the temperature, bit for bit as in evaluation."""
        return probabilities(logits, calibration.temperature if calibration else 1.0)

    def explained_output(
        self, logits: Logits, calibration: Calibration | None = None
    ) -> NDArray[np.int64]:
        """The most probable class."""
        return np.asarray(logits.argmax(axis=1))

    def same_answers(
        self, a: Logits, b: Logits, calibration: Calibration | None = None
    ) -> NDArray[np.bool_]:
        """Whether both have the same most probable class."""
        return np.asarray(a.argmax(axis=1) == b.argmax(axis=1))

    def read_calibration(self, content: Mapping[str, Any]) -> Calibration:
        """Temperature, conformal scores and abstain threshold."""
        return Calibration.from_json(content)

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
        """Fit on one half of the images and measure on the other."""
        from densenet121.tasks.single_label.calibrate import (
            describe,
            learn,
            no_operating_point,
            wrong_means,
        )

        if operating_point is not None:
            raise UsageError(no_operating_point(class_names))
        found, before, after = learn(
            logits, targets.numpy(), seed=seed, target_accuracy=target_accuracy, groups=groups
        )
        found = replace(found, note=found.note | dict(note) | {"seed": seed})
        lines = describe(found, before, after)
        if "offsets" not in note:
            labels, at = targets.numpy(), found.temperature
            lines += wrong_means(
                logits, labels, class_names, temperature=at, seed=seed, groups=groups
            )
        return Calibrated(found, lines)

    def offsets(
        self,
        logits: Logits,
        targets: Tensor,
        *,
        seed: int,
        class_names: Sequence[str],
        groups: NDArray[np.int64] | None = None,
    ) -> LogitOffsets:
        """An offset for each class, fitted on the half that ``calibrate`` fits on."""
        from densenet121.tasks.single_label.offsets import learn

        return learn(logits, targets.numpy(), class_names, seed, groups)

    def read_prediction(self, row: Mapping[str, str]) -> Row | None:
        """Label, predicted class, probability and rank."""
        return read_row(row)

    def compare(
        self,
        a: Mapping[str, Mapping[str, str]],
        b: Mapping[str, Mapping[str, str]],
        *,
        resamples: int,
        seed: int,
        groups: Mapping[str, str] | None = None,
    ) -> Compared:
        """Compare top-1 with McNemar's test and a paired bootstrap."""
        from densenet121.tasks.single_label.comparison import difference

        return difference(a, b, resamples=resamples, seed=seed, groups=groups)

    def check_metrics(self, found: Mapping[str, Any]) -> Metrics:
        """The counts, checked for consistency."""
        top1, top5, total = (
            count(found[name]) for name in ("top1_correct", "top5_correct", "total")
        )
        if not top1 <= top5 <= total:
            raise ValueError(
                f"top1_correct {top1}, top5_correct {top5} and total {total} are inconsistent"
            )
        counts = {"top1_correct": top1, "top5_correct": top5, "total": total}
        return counts | read_intervals(found)

    def disagreement(self, results: Results) -> str | None:
        """Whether the number of images, or of correct ones, differs."""
        correct, total = right(results.predictions), len(results.predictions)
        stated = results.scores[0].metrics
        if (correct, total) == (stated["top1_correct"], stated["total"]):
            return None
        return (
            f"{correct} of {total} correct in the former, {stated['top1_correct']} of "
            f"{stated['total']} in the latter"
        )

    def report(self, results: Results) -> ReportPart:
        """Accuracy, confusion, results per class, calibration and the most confident errors."""
        from densenet121.tasks.single_label.report import report

        return report(results)

    def card(self, results: Results) -> CardPart:
        """Accuracy with its interval, results per class, calibration and confusions."""
        from densenet121.tasks.single_label.card import card

        return card(results)


@lru_cache(maxsize=16)
def _on_device(weights: tuple[float, ...], device: torch.device) -> Tensor:
    """The weights on the device, cached: a copy for every batch would make the host wait."""
    with torch.inference_mode(False):
        return torch.tensor(weights, dtype=torch.float32, device=device)


def _counted(metrics: Metrics, k: int) -> str:
    correct, total = metrics[f"top{k}_correct"], metrics["total"]
    share = 100 * correct / total if total else 0.0
    return f"top{k}_correct={correct}, tot={total}, acc={share:.2f}%"
