"""A task of a user's own: ordered classes, as many outputs as steps between them.

Output k is the logit of "the class is above k" (the cumulative model of ordinal regression). The
package knows nothing of it; the tests hand it over, and run it on ranks by

    python ordinal.py train|eval|predict|report SETTINGS_AS_JSON
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.pages.markup import card, section, table
from densenet121.tasks import (
    Answer,
    AnswerOptions,
    Curve,
    ImageError,
    ReportPart,
    Results,
    Scores,
    Task,
)


@dataclass(frozen=True)
class Grade(Answer):
    name: str
    expected: float

    def to_json(self) -> dict[str, Any]:
        return {"grade": self.name, "expected": self.expected}

    def text(self) -> str:
        return f"{self.name} ({self.expected:.2f})"

    def csv_rows(self) -> list[Sequence[object]]:
        return [(self.name, f"{self.expected:.4f}")]


class Ordinal(Task):
    name = "ordinal"
    prediction_columns = ("label", "predicted")
    answer_columns = ("grade", "expected")

    def num_outputs(self, num_classes: int) -> int:
        return num_classes - 1

    def targets(self, dataset: ImageDataset, indices: NDArray[np.int64]) -> Tensor:
        labels = torch.from_numpy(dataset.labels[indices])
        return (labels[:, None] > torch.arange(len(dataset.class_names) - 1)).float()

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits.float(), targets)

    def score(self, logits: Tensor, targets: Tensor) -> Scores:
        count = float(len(targets))
        loss = float(self.loss(logits, targets)) * count
        columns = {"expected": logits.sigmoid().sum(dim=1).numpy(), "grade": _grades(logits)}
        return Scores(columns, loss, count)

    def metrics(
        self, scores: Scores, targets: Tensor, class_names: Sequence[str]
    ) -> dict[str, Any]:
        errors = np.abs(scores.columns["grade"] - targets.sum(dim=1).numpy())
        return {
            "loss": scores.loss_sum / scores.weight,
            "absolute_error": float(errors.mean()),
            "total": len(errors),
        }

    def is_better(self, metrics: dict[str, Any], than: dict[str, Any]) -> bool:
        return bool(metrics["absolute_error"] < than["absolute_error"])

    def log_lines(self, metrics: dict[str, Any]) -> list[str]:
        return [f"eval: {self.best_line(metrics)}"]

    def best_line(self, metrics: dict[str, Any]) -> str:
        return f"absolute_error={metrics['absolute_error']:.3f}, tot={metrics['total']}"

    def table_row(self, metrics: dict[str, Any]) -> dict[str, str]:
        return {"error": f"{metrics['absolute_error']:.3f}", "tot": str(metrics["total"])}

    def digest_columns(self, scores: Scores, targets: Tensor) -> list[NDArray[Any]]:
        return [targets.sum(dim=1).numpy().astype(np.int64), scores.columns["grade"]]

    def csv_columns(
        self, scores: Scores, targets: Tensor, class_names: Sequence[str]
    ) -> dict[str, list[Any]]:
        return {
            "label": [class_names[int(grade)] for grade in targets.sum(dim=1)],
            "predicted": [class_names[grade] for grade in scores.columns["grade"]],
            "expected": [f"{value:.4f}" for value in scores.columns["expected"]],
        }

    def worst_errors(self, scores: Scores, targets: Tensor) -> list[ImageError]:
        errors = np.abs(scores.columns["grade"] - targets.sum(dim=1).numpy())
        return [ImageError(int(at), float(errors[at]), 0) for at in np.flatnonzero(errors)]

    def answers(
        self,
        logits: NDArray[np.float32],
        class_names: Sequence[str],
        calibration: Any = None,
        options: AnswerOptions = AnswerOptions(),  # noqa: B008
    ) -> list[Grade]:
        found = torch.from_numpy(logits)
        expected = found.sigmoid().sum(dim=1).tolist()
        return [
            Grade(class_names[grade], value)
            for grade, value in zip(_grades(found), expected, strict=True)
        ]

    def explained_output(
        self, logits: NDArray[np.float32], calibration: Any = None
    ) -> NDArray[np.int64]:
        return np.asarray(np.abs(logits).argmin(axis=1))

    def same_answers(
        self, a: NDArray[np.float32], b: NDArray[np.float32], calibration: Any = None
    ) -> NDArray[np.bool_]:
        return np.asarray(_grades(torch.from_numpy(a)) == _grades(torch.from_numpy(b)))

    def read_prediction(self, row: Mapping[str, str]) -> tuple[str, str] | None:
        return (row["label"], row["predicted"]) if "label" in row else None

    def check_metrics(self, found: Mapping[str, Any]) -> dict[str, Any]:
        return {"absolute_error": float(found["absolute_error"]), "total": int(found["total"])}

    def report(self, results: Results) -> ReportPart:
        errors = [row.metrics["absolute_error"] for row in results.validations]
        shown = f"{errors[-1]:.3f}" if errors else "-"
        pairs = [f"{label} graded {said}" for label, said in results.predictions if label != said]
        rows = [(pair, pairs.count(pair)) for pair in sorted(set(pairs))]
        return ReportPart(
            cards=[card(shown, "Mean absolute error", "grades", main=True)],
            curves_title="Mean absolute error, grades",
            curves=[Curve("error", errors)],
            sections=[section("Wrong grades", "", table(("error", "images"), rows, texts=1))],
            figures={},
        )


def _grades(logits: Tensor) -> NDArray[np.int64]:
    """The number of steps that are more likely passed than not."""
    return np.asarray((logits > 0).sum(dim=1).numpy())


def main(command: str, settings: str) -> None:
    from densenet121.config import EvalConfig, TrainConfig
    from densenet121.engine.evaluate import evaluate
    from densenet121.engine.train import train

    flags = json.loads(settings)
    if command == "train":
        train(TrainConfig(**flags), task=Ordinal())
    else:
        evaluate(EvalConfig(**flags), task=Ordinal())


if __name__ == "__main__":
    main(*sys.argv[1:])
