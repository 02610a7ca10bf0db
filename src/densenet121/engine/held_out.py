"""Held-out predictions of a study: each run on its own fold, then those of all folds together."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from densenet121.config import StudyConfig, TrainConfig
from densenet121.datasets.division import Division, Images
from densenet121.datasets.image_dataset import check_same_classes
from densenet121.engine.images import find_datasets
from densenet121.inference.predictor import Predictor
from densenet121.metrics.label_errors import Doubts, doubtful_cells, doubtful_labels
from densenet121.runs.layout import LAST_AVERAGE, LAST_WEIGHTS
from densenet121.runs.study import HeldOut
from densenet121.tasks import MultiLabel, SingleLabel
from densenet121.tasks.values import PROBABILITY

Logits = NDArray[np.float32]


def weights_of(run: Path, config: TrainConfig) -> Path:
    """The weights of a run that are evaluated: the last ones, averaged if the run averages.

    Not the best ones, because they were chosen by the images that are held out.
    """
    return run / (LAST_WEIGHTS if config.ema_decay is None else LAST_AVERAGE)


def predict_held_out(
    run: Path, config: TrainConfig, should_stop: Callable[[], bool]
) -> HeldOut | None:
    """The logits of a run for the images of its fold, as ``eval`` computes them.

    Args:
        run: the run folder.
        config: the settings of the run.
        should_stop: called between batches.

    Returns:
        None if ``should_stop`` returned true.

    Raises:
        InputError: an image cannot be read, or the weights are not those of the study.
    """
    _, dataset = find_datasets(config)
    assert dataset is not None
    weights = weights_of(run, config)
    predictor = Predictor(
        weights,
        device=config.device,
        amp=config.amp,
        batch_size=config.per_batch_size,
        workers=config.num_workers,
    )
    names = predictor.classifier.class_names
    check_same_classes(names, str(weights), dataset.class_names, str(dataset.source))
    logits = np.full((len(dataset), predictor.num_outputs), np.nan, dtype=np.float32)
    errors: dict[int, str] = {}
    for batch, found in predictor.batches(dataset, skip_bad=config.on_bad_image == "skip"):
        logits[batch.indices] = found
        errors |= dict(batch.bad)
        if should_stop():
            return None
    return HeldOut(logits, errors)


@dataclass(frozen=True)
class Pooled:
    """The held-out predictions of all images, of one seed or of the mean over the seeds.

    Attributes:
        logits: ``(n, K)``, finite.
        probability: ``(n, K)``.
    """

    logits: Logits
    probability: NDArray[np.float64]


class Pool:
    """The images of a study and what its networks predict for them while they are held out.

    Attributes:
        scored: ``(n,)`` number of each image that could be read.
        errors: number of an image that could not be read, and the reason.
        seeds: seed to its predictions of the scored images.
        ensemble: the mean of the probabilities over the seeds.
    """

    def __init__(
        self, config: StudyConfig, images: Images, division: Division, found: Mapping[int, HeldOut]
    ) -> None:
        """``found`` has, by seed, the predictions of all folds in the order of the images."""
        self.task = MultiLabel() if images.several_labels else SingleLabel()
        self.images, self.division, self.config = images, division, config
        self.errors = {at: why for one in found.values() for at, why in one.errors.items()}
        every = range(len(images.paths))
        self.scored = np.array([at for at in every if at not in self.errors], dtype=np.int64)
        logits = {seed: one.logits[self.scored] for seed, one in found.items()}
        self.seeds = {seed: self._pooled(one) for seed, one in logits.items()}
        mean = next(iter(logits.values()))
        if len(logits) > 1:
            views = torch.from_numpy(np.stack(list(logits.values())))
            mean = self.task.mean_of_views(views).numpy()
        self.ensemble = self._pooled(mean)

    def _pooled(self, logits: Logits) -> Pooled:
        if self.images.several_labels:
            return Pooled(logits, self.task.probabilities(logits).astype(np.float64))
        # In float64: float32 rounds 1 - 3e-8 to 1, so that sure scores would be equal that are not,
        # which changes the AUROC, and the loss of a sure error would be too large.
        return Pooled(logits, torch.from_numpy(logits).double().softmax(dim=1).numpy())

    @property
    def truth(self) -> NDArray[np.float64]:
        """``(n, K)`` 1, 0 or nan for the scored images."""
        labels = self.images.labels[self.scored]
        if self.images.several_labels:
            return np.asarray(labels, dtype=np.float64)
        one_hot: NDArray[np.float64] = np.eye(len(self.images.names))[labels]
        return one_hot

    @property
    def fold(self) -> NDArray[np.int64]:
        """``(n,)`` fold in which each scored image is held out."""
        return self.division.part[self.scored]

    @property
    def ids(self) -> NDArray[np.str_] | None:
        """``(n,)`` id of each scored image's group; None without groups."""
        return None if self.config.group is None else np.array(self._ids)

    @property
    def _ids(self) -> list[str]:
        return [self.division.ids[at] for at in self.scored.tolist()]

    @property
    def paths(self) -> list[str]:
        """Paths of the scored images."""
        return [self.images.paths[at] for at in self.scored.tolist()]

    def places(self, taken: Collection[str]) -> dict[str, Sequence[object]]:
        """The first columns of every table: path, group if there are any, fold.

        The groups keep the name of their column, unless the table has another column called so.
        """
        columns: dict[str, Sequence[object]] = {"path": self.paths}
        name = self.config.group
        if name is not None:
            has_name = name in self.images.columns and name not in ("path", "fold", *taken)
            columns[name if has_name else "group"] = self._ids
        return columns | {"fold": self.fold.tolist()}

    def columns(self, pooled: Pooled) -> dict[str, Sequence[object]]:
        """The columns of a table of predictions: those of ``eval``, and every probability."""
        targets = torch.from_numpy(self.images.labels[self.scored])
        scores = self.task.score(torch.from_numpy(pooled.logits), targets)
        columns = self.task.csv_columns(scores, targets, self.images.names)
        for name, shares in zip(self.images.names, pooled.probability.T.tolist(), strict=True):
            columns[PROBABILITY + name] = [repr(share) for share in shares]
        return self.places(columns) | columns

    def label_errors(self) -> dict[str, Sequence[object]]:
        """The columns of the table of labels in doubt, the most doubtful first."""
        names, several = self.images.names, self.images.several_labels
        truth = self.truth
        agreeing = [set(self._doubts(truth, one)) for one in self.seeds.values()]
        rows = self._doubts(truth, self.ensemble)
        found: dict[str, Sequence[object]] = {}
        share = self.ensemble.probability
        if several:
            # The label is one of two: whether the image has it, as in the table.
            found["name"] = [names[k] for _, k, _ in rows]
            found["label"] = [1 - suggested for *_, suggested in rows]
            found["suggested"] = [suggested for *_, suggested in rows]
            found["probability"] = [repr(float(share[at, k])) for at, k, _ in rows]
        else:
            labels = truth.argmax(axis=1)
            found["label"] = [names[labels[at]] for at, *_ in rows]
            found["suggested"] = [names[suggested] for *_, suggested in rows]
            found["probability"] = [repr(float(share[at, labels[at]])) for at, *_ in rows]
            found["probability_suggested"] = [repr(float(share[at, k])) for at, _, k in rows]
        found["score"] = [repr(score) for score in rows.values()]
        found["seeds"] = [sum(row in one for one in agreeing) for row in rows]
        columns: dict[str, Sequence[object]] = {
            name: [cells[at] for at, *_ in rows] for name, cells in self.places(found).items()
        }
        return columns | found

    def _doubts(
        self, truth: NDArray[np.float64], pooled: Pooled
    ) -> dict[tuple[int, int, int], float]:
        """Image, label (0 if each image has one class) and what is suggested, to the score."""
        if not self.images.several_labels:
            parts = [doubtful_labels(truth.argmax(axis=1), pooled.probability)]
        else:
            columns = zip(truth.T, pooled.probability.T, strict=True)
            parts = [doubtful_cells(*column) for column in columns]
        rows = [row for k, one in enumerate(parts) for row in _rows(one, k)]
        return dict(sorted(rows, key=lambda row: -row[1]))


def _rows(found: Doubts, label: int) -> list[tuple[tuple[int, int, int], float]]:
    columns = found.image.tolist(), found.suggested.tolist(), found.score.tolist()
    return [((at, label, k), score) for at, k, score in zip(*columns, strict=True)]
