"""Evaluation: each image exactly once, counted, and one row for each of them."""

import csv
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.loader import load_batches
from densenet121.datasets.preparation import evaluation_images
from densenet121.datasets.sampler import evaluation_batches
from densenet121.datasets.transforms import EvalTransform
from densenet121.distributed.ranks import any_rank, gather, several
from densenet121.inference.classifier import logits_of
from densenet121.losses import smooth_cross_entropy
from densenet121.tasks.single_label.metrics import Counts, label_ranks, topk_correct
from densenet121.utils.files import write_atomic, write_json
from densenet121.utils.logging import log
from densenet121.utils.progress import progress_bar


@dataclass(frozen=True)
class Evaluation:
    """What the network said of every image of a folder.

    Attributes:
        folder: the images.
        counts: of right answers, over the images that could be read.
        scored: ``(N,)`` index into the folder of each image that was scored, ascending.
        predicted: ``(N,)`` class of the largest logit.
        probability: ``(N,)`` softmax of that class.
        rank: ``(N,)`` place of the true class, from 1.
        bad: (path, reason) of each image that could not be read.
    """

    folder: ImageDataset
    counts: Counts
    scored: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probability: NDArray[np.float32]
    rank: NDArray[np.int64]
    bad: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """SHA-256 over path, label, prediction and rank of every image, in the folder's order."""
        digest = hashlib.sha256()
        rows = zip(self.scored, self.predicted, self.rank, strict=True)
        for index, predicted, rank in rows:
            path = self.folder.paths[index]
            row = f"{path}\t{self.folder.labels[index]}\t{predicted}\t{rank}\n"
            digest.update(row.encode(errors="surrogateescape"))
        return digest.hexdigest()


@torch.inference_mode()
def evaluate_images(
    model: nn.Module,
    folder: ImageDataset,
    transform: EvalTransform,
    *,
    mean: Tensor,
    std: Tensor,
    batch_size: int,
    device: torch.device,
    precision: torch.dtype,
    workers: int,
    skip_bad: bool,
    should_stop: Callable[[], bool] = lambda: False,
    rank: int = 0,
    world_size: int = 1,
) -> Evaluation | None:
    """Classify every image of ``folder`` once; None if ``should_stop`` said so between batches.

    Several ranks share the images, and each returns the result of all.

    Args:
        model: images ``(N, 3, H, W)`` to logits ``(N, C)``; put into evaluation mode and back.
        folder: the images and their labels.
        transform: what each goes through.
        mean: ``(3,)`` of R, G, B, in grey levels.
        std: likewise.
        batch_size: images a step; the last batch may be smaller, none is dropped.
        device: where the model is.
        precision: dtype of the network's arithmetic.
        workers: threads that decode.
        skip_bad: leave images that cannot be read out, and list them.
        should_stop: asked between batches.
        rank: of this process.
        world_size: processes that evaluate together.

    Raises:
        InputError: an image cannot be read, or the weights give nan.
    """
    batches = evaluation_batches(len(folder), batch_size, rank=rank, world_size=world_size)
    # Those of rank 0 are the most; the others ask as often whether to stop.
    most = -(-len(range(0, len(folder), world_size)) // batch_size)
    loaded = load_batches(
        evaluation_images(folder, transform),
        batches,
        (transform.height, transform.width),
        workers=workers,
        skip_bad=skip_bad,
        pin_memory=device.type != "cpu",
    )
    was_training = model.training
    model.eval()
    counts = Counts()
    rows: list[tuple[NDArray[np.int64], ...]] = []
    probabilities: list[NDArray[np.float32]] = []
    bad: list[tuple[str, str]] = []
    with progress_bar("evaluate", len(batches), unit="batch") as advance:
        for batch in loaded:
            if any_rank(should_stop()):
                loaded.close()
                model.train(was_training)
                return None
            bad += [(folder.paths[index], reason) for index, reason in batch.bad]
            if len(batch.indices):
                labels = torch.from_numpy(folder.labels[batch.indices])
                logits = logits_of(model, batch.images, mean, std, device, precision)
                ranks = label_ranks(logits, labels)
                loss = smooth_cross_entropy(logits, labels) * len(labels)
                counts += Counts(
                    topk_correct(ranks, 1), topk_correct(ranks, 5), len(ranks), float(loss)
                )
                largest, predicted = logits.softmax(dim=1).max(dim=1)
                rows.append((batch.indices, predicted.numpy(), ranks.numpy()))
                probabilities.append(largest.numpy())
            advance()
    model.train(was_training)
    for _ in range(most - len(batches)):
        if any_rank(should_stop()):
            return None
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)] or [
        np.empty(0, "i8")
    ] * 3
    return _together(
        Evaluation(
            folder=folder,
            counts=counts,
            scored=columns[0],
            predicted=columns[1],
            rank=columns[2],
            probability=np.concatenate(probabilities or [np.empty(0, "f4")]),
            bad=tuple(bad),
        )
    )


def _together(own: Evaluation) -> Evaluation:
    """The evaluation of all ranks, each of which had other images of the same folder."""
    if not several():
        return own
    parts = gather(replace(own, folder=None))  # type: ignore[arg-type] # every rank has it
    counts = Counts()
    for part in parts:
        counts += part.counts
    scored = np.concatenate([part.scored for part in parts])
    order = np.argsort(scored, kind="stable")
    return Evaluation(
        folder=own.folder,
        counts=counts,
        scored=scored[order],
        predicted=np.concatenate([part.predicted for part in parts])[order],
        rank=np.concatenate([part.rank for part in parts])[order],
        probability=np.concatenate([part.probability for part in parts])[order],
        bad=tuple(sorted(fault for part in parts for fault in part.bad)),
    )


def log_counts(counts: Counts) -> None:
    """The original's two lines, with every image in ``tot``."""
    for k, correct in ((1, counts.top1_correct), (5, counts.top5_correct)):
        share = 100 * correct / counts.total if counts.total else 0.0
        log.info(
            "after allreduce eval: top%d_correct=%d, tot=%d, acc=%.2f%%",
            k,
            correct,
            counts.total,
            share,
        )


def metrics_of(counts: Counts) -> dict[str, Any]:
    """Counts and shares as metrics.jsonl and eval.json have them."""
    return {
        "loss": counts.loss,
        "top1_correct": counts.top1_correct,
        "top5_correct": counts.top5_correct,
        "total": counts.total,
        "top1": counts.top1,
        "top5": counts.top5,
    }


def result_of(evaluation: Evaluation, checkpoint: str) -> dict[str, Any]:
    """The content of eval.json."""
    return {
        "checkpoint": checkpoint,
        **metrics_of(evaluation.counts),
        "complete": not evaluation.bad,
        "digest": evaluation.digest,
        "class_names": list(evaluation.folder.class_names),
        "data_dir": str(evaluation.folder.root),
        "data_fingerprint": evaluation.folder.fingerprint,
        "bad_images": [{"path": path, "error": reason} for path, reason in evaluation.bad],
    }


def write_results(folder: Path, evaluation: Evaluation, result: dict[str, Any]) -> None:
    """Write eval.json and predictions.csv, each atomically."""
    names = evaluation.folder.class_names
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "predicted", "probability", "rank"])
    for index, predicted, probability, rank in zip(
        evaluation.scored,
        evaluation.predicted,
        evaluation.probability,
        evaluation.rank,
        strict=True,
    ):
        label = names[evaluation.folder.labels[index]]
        path = evaluation.folder.paths[index]
        writer.writerow([path, label, names[predicted], f"{probability:.6f}", rank])
    write_atomic(folder / "predictions.csv", text.getvalue().encode(errors="surrogateescape"))
    write_json(folder / "eval.json", result)
