"""Any number of labels per image: sigmoid, masked binary cross-entropy, AUROC."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.losses import (
    Asymmetry,
    binary_distillation_loss,
    masked_asymmetric_loss,
    masked_binary_cross_entropy,
)
from densenet121.metrics.tables import tables
from densenet121.tasks.multi_label.answers import Findings, Row, read_row
from densenet121.tasks.multi_label.calibration import Calibration, probabilities
from densenet121.tasks.multi_label.metrics import all_metrics, metrics_with_intervals
from densenet121.tasks.read_scores import read_scores
from densenet121.tasks.subgroups import read_subgroups
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
from densenet121.utils.errors import InputError, NotFiniteError
from densenet121.utils.json_values import count
from densenet121.utils.rounding import four_digits


@dataclass(frozen=True)
class MultiLabel(Task):
    """Every image has any number of labels; of some it may not be known.

    Attributes:
        smooth_factor: s in the smoothed target ``y * (1 - s) + s / 2`` of the training loss.
        pos_weight: factor of the training loss of positive cells, by label; empty for none.
        gamma: exponent of the focal loss; 0 is cross-entropy.
        asymmetry: of the asymmetric loss, which takes none of the other settings; None for others.
    """

    smooth_factor: float = 0.0
    pos_weight: tuple[float, ...] = ()
    gamma: float = 0.0
    asymmetry: Asymmetry | None = None

    name = "multilabel"
    class_word = "labels"
    prediction_columns = ()
    answer_columns = ("label", "probability", "threshold", "positive")
    best_metrics = {"auroc": True, "average_precision": True, "loss": False}  # noqa: RUF012
    every_image_weighs_one = False

    def num_outputs(self, num_classes: int) -> int:
        """One logit per label."""
        return num_classes

    def targets(self, dataset: ImageDataset, indices: NDArray[np.int64]) -> Tensor:
        """``(N, K)`` float32: 1, 0, or nan for not known.

        Raises:
            InputError: the dataset has one class per image.
        """
        if dataset.labels.ndim != 2:
            raise InputError(
                f"{dataset.root}: has one class per image, but the task {self.name} needs a table "
                "of labels"
            )
        return torch.from_numpy(dataset.labels[indices])

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over the known cells, in nats: cross-entropy, or focal or asymmetric loss."""
        if self.asymmetry is not None:
            return masked_asymmetric_loss(logits, targets, self.asymmetry)
        weight = None
        if self.pos_weight:
            weight = torch.tensor(self.pos_weight, dtype=torch.float32, device=logits.device)
        return masked_binary_cross_entropy(
            logits,
            targets,
            smooth_factor=self.smooth_factor,
            pos_weight=weight,
            gamma=self.gamma,
        )

    def distillation(
        self, logits: Tensor, teacher: Tensor, targets: Tensor, temperature: float
    ) -> Tensor:
        """``T^2`` times the mean of ``KL(teacher || network)`` over the known cells."""
        return binary_distillation_loss(logits, teacher, targets, temperature)

    def weight(self, targets: Tensor) -> float:
        """The number of known cells."""
        return float((~targets.isnan()).sum())

    def mean_of_views(self, logits: Tensor) -> Tensor:
        """Logits of the mean of the sigmoid of each view."""
        # Not through the probabilities, of which the smallest would be 0.
        yes, no = (F.logsigmoid(sign * logits.double()).logsumexp(dim=0) for sign in (1, -1))
        return (yes - no).float()

    def score(self, logits: Tensor, targets: Tensor) -> Scores:
        """The logits themselves; metrics need those of all images together."""
        bad = int((~torch.isfinite(logits).all(dim=1)).sum())
        if bad:
            raise NotFiniteError(
                f"the weights give nan or infinite logits for {bad} of {len(logits)} images",
                "the checkpoint is damaged, its training diverged, or `amp` fp16 overflows "
                "(try `amp` fp32)",
            )
        return self._scores(logits, targets)

    def _scores(self, logits: Tensor, targets: Tensor) -> Scores:
        weight = self.weight(targets)
        # Without weights and smoothing, so that it does not depend on the training settings.
        loss = float(masked_binary_cross_entropy(logits.double(), targets)) * weight
        return Scores({"logits": logits.numpy()}, loss, weight)

    def metrics(self, scores: Scores, targets: Tensor, class_names: Sequence[str]) -> Metrics:
        """Loss, means over the labels, and the metrics of each label; None where undefined."""
        shares = probabilities(scores.columns["logits"])
        found = all_metrics(targets.double().numpy(), shares, class_names)
        return {
            "loss": scores.loss_sum / scores.weight if scores.weight else None,
            "auroc": found["macro"]["auroc"],
            "average_precision": found["macro"]["average_precision"],
            "total": len(targets),
            **found,
        }

    def calibrated(
        self, scores: Scores, targets: Tensor, calibration: Calibration | None
    ) -> Scores:
        """The scores with each logit over the temperature of its label, and their loss."""
        if calibration is None or not scores.columns:  # without an image there are no columns
            return scores
        logits = scores.columns["logits"] / np.asarray(calibration.temperatures)
        return self._scores(torch.from_numpy(logits), targets)

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
        """Every metric with its interval, at the operating points, and by subgroup.

        The scores are the result of ``calibrated``, and the temperatures those they are with.
        """
        thresholds = (calibration.thresholds if calibration else None) or ()
        found = metrics_with_intervals(
            targets.double().numpy(),
            probabilities(scores.columns["logits"]),
            class_names,
            thresholds=dict(zip(class_names, thresholds, strict=False)),
            group=group,
            by=by or {},
        )
        if calibration is not None:
            stored = {"temperatures": list(calibration.temperatures), "note": calibration.note}
            found["calibration"] = stored | ({"rule": calibration.rule} if thresholds else {})
        return found

    def is_better(self, metrics: Metrics, than: Metrics) -> bool:
        """Whether the mean AUROC is higher; of two equal epochs, the earlier one is kept."""
        return _or_nan(metrics["auroc"]) > _or_nan(than["auroc"], -math.inf)

    def log_lines(self, metrics: Metrics) -> list[str]:
        """One line with the means."""
        return [f"after allreduce eval: {self.best_line(metrics)}"]

    def best_line(self, metrics: Metrics) -> str:
        """Mean AUROC and average precision, and over how many labels they are."""
        labels, left_out = metrics["labels"], metrics["macro"]["left_out"]
        defined = len(labels) - len(left_out)
        return (
            f"auroc={four_digits(metrics['auroc'])}, "
            f"average_precision={four_digits(metrics['average_precision'])} "
            f"(means of {defined} of {len(labels)} labels), tot={metrics['total']}"
        )

    def table_row(self, metrics: Metrics) -> dict[str, str]:
        """Mean AUROC and average precision, loss and the number of images."""
        return {
            "auroc": four_digits(metrics["auroc"]),
            "ap": four_digits(metrics["average_precision"]),
            "loss": four_digits(metrics["loss"]),
            "tot": str(metrics["total"]),
        }

    def table_lines(self, content: Metrics) -> list[str]:
        """Tables of the labels with all intervals, and of each subgroup."""
        return tables(content)

    def digest_columns(self, scores: Scores, targets: Tensor) -> list[NDArray[Any]]:
        """The labels, and the side of 0 of each logit, not its last bits."""
        known = torch.where(targets.isnan(), -1, targets).to(torch.int64).numpy()
        return [*known.T, *(scores.columns["logits"] > 0).astype(np.int64).T]

    def csv_columns(
        self, scores: Scores, targets: Tensor, class_names: Sequence[str]
    ) -> dict[str, list[Any]]:
        """Each label (empty if not known), and its probability, as ``metrics`` reads them."""
        shares = probabilities(scores.columns["logits"])
        columns: dict[str, list[Any]] = {}
        for k, name in enumerate(class_names):
            columns[name] = ["" if math.isnan(y) else int(y) for y in targets[:, k].tolist()]
        for k, name in enumerate(class_names):
            # In full: rounding would make scores equal that are not, and change the AUROC.
            columns[PROBABILITY + name] = [repr(share) for share in shares[:, k].tolist()]
        return columns

    def worst_errors(self, scores: Scores, targets: Tensor) -> list[ImageError]:
        """The most wrong label of each image, which the map explains."""
        gaps = np.abs(targets.numpy() - probabilities(scores.columns["logits"]))
        gaps = np.nan_to_num(gaps, nan=0.0)
        worst = gaps.argmax(axis=1)
        return [
            ImageError(at, float(gaps[at, k]), int(k))
            for at, k in enumerate(worst)
            if gaps[at, k] > 0.5
        ]

    def answers(
        self,
        logits: Logits,
        class_names: Sequence[str],
        calibration: Calibration | None = None,
        options: AnswerOptions = AnswerOptions(),  # noqa: B008 (frozen)
    ) -> list[Findings]:
        """Every label of each image with its probability, threshold and decision."""
        for field, given in (
            ("top_k", options.top_k),
            ("coverage", options.coverage),
            ("abstain_below", options.abstain_below),
        ):
            if given is not None:
                raise InputError(
                    f"`{field}` is for one class per image, not for {self.name}; omit it"
                )
        names = tuple(class_names)
        thresholds = calibration.thresholds if calibration else None
        shares = self.probabilities(logits, calibration)
        return [Findings(names, tuple(row.tolist()), thresholds) for row in shares]

    def probabilities(
        self, logits: Logits, calibration: Calibration | None = None
    ) -> NDArray[np.float64]:
        """``(N, K)``: sigmoid of the logits over the temperature of each label."""
        return probabilities(logits, calibration.temperatures if calibration else 1.0)

    def explained_output(
        self, logits: Logits, calibration: Calibration | None = None
    ) -> NDArray[np.int64]:
        """The most probable of the positive labels; of all, if none is positive."""
        shares = self.probabilities(logits, calibration)
        if calibration is not None and calibration.thresholds is not None:
            positive = shares >= calibration.thresholds
            shares = np.where(positive | ~positive.any(axis=1, keepdims=True), shares, -1.0)
        return np.asarray(shares.argmax(axis=1))

    def same_answers(
        self, a: Logits, b: Logits, calibration: Calibration | None = None
    ) -> NDArray[np.bool_]:
        """Whether every label is on the same side of its threshold (without one: of 0.5)."""
        thresholds = (calibration.thresholds if calibration else None) or 0.5
        first, second = (self.probabilities(part, calibration) for part in (a, b))
        return np.asarray(((first >= thresholds) == (second >= thresholds)).all(axis=1))

    def read_calibration(self, content: Mapping[str, Any]) -> Calibration:
        """Temperatures and operating points."""
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
        """A temperature and, if asked for, a threshold for each label."""
        from densenet121.tasks.multi_label.calibrate import learn

        if target_accuracy is not None:
            raise InputError(
                f"`target_accuracy` is for one class per image; {self.name} takes `operating_point`"
            )
        truth = targets.double().numpy()
        return learn(logits, truth, class_names, operating_point, note, groups)

    def offsets(
        self,
        logits: Logits,
        targets: Tensor,
        *,
        seed: int,
        class_names: Sequence[str],
        groups: NDArray[np.int64] | None = None,
    ) -> LogitOffsets:
        """An offset for each label, fitted on all images."""
        from densenet121.tasks.multi_label.offsets import learn

        return learn(logits, targets.double().numpy(), class_names)

    def read_prediction(self, row: Mapping[str, str]) -> Row | None:
        """Labels and probabilities."""
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
        """Compare the AUROC of each label by DeLong's test, and their mean by a bootstrap."""
        from densenet121.tasks.multi_label.comparison import difference

        return difference(a, b, resamples=resamples, seed=seed, groups=groups)

    def check_metrics(self, found: Mapping[str, Any]) -> Metrics:
        """The means, and the metrics of each label."""
        means = {name: found[name] for name in ("auroc", "average_precision")}
        for value in means.values():
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{value} is no AUROC or average precision")
        more = {name: found[name] for name in ("n_groups", "intervals") if name in found}
        if found.get("n_groups") is not None:
            more["n_groups"] = count(found["n_groups"])
        more["subgroups"] = read_subgroups(found)
        return {"total": count(found["total"]), **read_scores(found), **means, **more}

    def report(self, results: Results) -> ReportPart:
        """Means, curves of each label, and a table with intervals."""
        from densenet121.tasks.multi_label.report import report

        return report(results)

    def card(self, results: Results) -> CardPart:
        """Means, and a table of labels with intervals and operating points."""
        from densenet121.tasks.multi_label.card import card

        return card(results)


def _or_nan(value: float | None, otherwise: float = math.nan) -> float:
    return otherwise if value is None else value
