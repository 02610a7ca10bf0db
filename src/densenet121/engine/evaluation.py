"""Evaluation of a model on a dataset: the task scores each image exactly once."""

import hashlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.loader import Batch, load_batches
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.sampler import evaluation_batches
from densenet121.distributed.ranks import any_rank, gather, is_distributed, raise_together
from densenet121.inference.classifier import PendingLogits, begin_logits
from densenet121.network import constant_network
from densenet121.runs.evaluations import write_evaluation
from densenet121.runtime import Runtime
from densenet121.tasks import Scores, Task
from densenet121.tasks.given import columns_of, metrics_of, scores_of, targets_of
from densenet121.utils.errors import InputError
from densenet121.utils.logging import log
from densenet121.utils.modes import evaluation_mode
from densenet121.utils.progress import progress_bar


@dataclass(frozen=True)
class Evaluation:
    """Results of a model for every image of a dataset.

    Attributes:
        dataset: the images.
        task: the task that scored them.
        scored: ``(N,)`` index into the dataset of each image that was scored, ascending.
        scores: the scores of these images.
        bad: (path, reason) of each image that could not be read.
    """

    dataset: ImageDataset
    task: Task
    scored: NDArray[np.int64]
    scores: Scores
    bad: tuple[tuple[str, str], ...]

    @property
    def targets(self) -> Tensor:
        """Targets of the scored images."""
        return self.task.targets(self.dataset, self.scored)

    @property
    def paths(self) -> list[str]:
        """Paths of the scored images."""
        return [self.dataset.paths[index] for index in self.scored.tolist()]

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the task, as written to metrics.jsonl and eval.json.

        Raises:
            InputError: no image could be read.
        """
        if not len(self.scored):
            raise InputError("no image was evaluated, so no accuracy or loss can be reported")
        return metrics_of(self.task, self.scores, self.targets, self.dataset.class_names)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the path of every image and the task's ``digest_columns``."""
        digest = hashlib.sha256()
        count, columns = len(self.scored), []
        if count:
            columns = self.task.digest_columns(self.scores, self.targets)
            columns = columns_of(self.task, "digest_columns", columns, count)
        for path, *values in zip(self.paths, *columns, strict=True):
            row = "\t".join([path, *map(str, values)])
            digest.update(f"{row}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def to_json(self, checkpoint: str) -> dict[str, Any]:
        """The content of eval.json."""
        return {
            "checkpoint": checkpoint,
            **self.metrics,
            "task": self.task.name,
            "complete": not self.bad,
            "digest": self.digest,
            "class_names": list(self.dataset.class_names),
            "data_dir": str(self.dataset.root),
            "data_fingerprint": self.dataset.fingerprint,
            "bad_images": [{"path": path, "error": reason} for path, reason in self.bad],
        }

    def cells(self, column: str) -> list[str]:
        """The cells of a column of the table of labels, for the scored images."""
        known = self.dataset.columns[column]
        return [known[index] for index in self.scored.tolist()]

    def write(
        self,
        folder: Path,
        content: dict[str, Any],
        more_columns: Sequence[str] = (),
        run: Mapping[str, Any] | None = None,
    ) -> None:
        """Write eval.json and predictions.csv, with more columns of the table of labels.

        With ``run`` as its content also run.json.
        """
        names = self.dataset.class_names
        columns = self.task.csv_columns(self.scores, self.targets, names)
        columns = columns_of(self.task, "csv_columns", columns, len(self.scored))
        columns = {name: self.cells(name) for name in more_columns} | columns
        write_evaluation(folder, content, self.paths, columns, run)

    def draw_confusion(self) -> bytes | None:
        """The confusion matrix as a PNG image; None if the task has none."""
        return self.task.confusion(self.scores, self.targets, self.dataset.class_names)

    def log(self) -> None:
        """Log the lines of the task, which include those of the original."""
        for line in self.task.log_lines(self.metrics):
            log.info("%s", line)


@torch.inference_mode()
def evaluate_images(
    model: nn.Module,
    dataset: ImageDataset,
    task: Task,
    preprocessing: Preprocessing,
    runtime: Runtime,
    *,
    skip_bad: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Score every image once, shared by the ranks; None if ``should_stop`` returned true.

    Args:
        model: images ``(N, 3, H, W)`` to logits ``(N, K)``; its mode is restored afterwards.
        dataset: the images and their labels.
        task: what the labels mean.
        preprocessing: how each image is prepared.
        runtime: process, device, arithmetic, batch size and workers.
        skip_bad: skip images that cannot be read, and list them.
        should_stop: called between batches.

    Raises:
        InputError: an image cannot be read, or the weights give nan, on this rank or another.
    """
    rank, world_size, size = runtime.process.rank, runtime.process.world_size, runtime.batch_size
    batches = evaluation_batches(len(dataset), size, rank=rank, world_size=world_size)
    # Rank 0 has the most batches. The others must call any_rank as often.
    most = -(-len(range(0, len(dataset), world_size)) // size)
    loaded = load_batches(
        preprocessing.reader(dataset),
        batches,
        preprocessing.pixels_size,
        workers=runtime.workers,
        skip_bad=skip_bad,
        pin_memory=runtime.pins_memory,
    )
    begin = partial(begin_logits, model, preprocessing=preprocessing, task=task, runtime=runtime)
    own: list[Evaluation] = []
    steps = _score_share(dataset, task, loaded, begin, own)
    fault: InputError | None = None
    stopped = False
    progress = progress_bar("evaluate", len(batches), unit="batch")
    fixed = constant_network(model)
    with closing(loaded), closing(steps), evaluation_mode(model), fixed, progress as advance:
        for left in range(most, -1, -1):
            try:
                next(steps, None)
            except InputError as error:
                fault = error
            # A fault ends this on all ranks: the others would wait for the one that has it.
            stopped = left > 0 and any_rank(should_stop() or fault is not None)
            if stopped or fault is not None:
                break
            if left < most:  # the batch before has been scored
                advance()
    raise_together(fault)
    return None if stopped else _merge_ranks(own[0])


def _score_share(
    dataset: ImageDataset,
    task: Task,
    loaded: Iterable[Batch],
    begin: Callable[[Tensor], PendingLogits],
    own: list[Evaluation],
) -> Generator[None]:
    """Score the batches of this rank into ``own``; pauses after loading each."""
    scored: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    scores: list[Scores] = []
    bad: list[tuple[str, str]] = []
    waiting: list[tuple[NDArray[np.int64], PendingLogits]] = []
    for batch in loaded:
        yield
        bad += [(dataset.paths[index], reason) for index, reason in batch.bad]
        if len(batch.indices):
            # One batch late: the device works on this batch while the last one is scored.
            logits = begin(batch.images)
            scores += _score(waiting, dataset, task)
            waiting = [(batch.indices, logits)]
            scored.append(batch.indices)
    scores += _score(waiting, dataset, task)
    own.append(Evaluation(dataset, task, np.concatenate(scored), Scores.joined(scores), tuple(bad)))


def _score(
    found: Sequence[tuple[NDArray[np.int64], PendingLogits]], dataset: ImageDataset, task: Task
) -> list[Scores]:
    return [scores_of(task, logits.read(), targets_of(task, dataset, i)) for i, logits in found]


def _merge_ranks(own: Evaluation) -> Evaluation:
    """Merge the evaluations of all ranks, which scored different images of the same dataset."""
    if not is_distributed():
        return own
    parts: Sequence[tuple[NDArray[np.int64], Scores, tuple[tuple[str, str], ...]]]
    parts = gather((own.scored, own.scores, own.bad))
    scored = np.concatenate([part[0] for part in parts])
    order = np.argsort(scored, kind="stable")
    return replace(
        own,
        scored=scored[order],
        scores=Scores.joined([part[1] for part in parts]).ordered(order),
        bad=tuple(sorted(fault for part in parts for fault in part[2])),
    )
