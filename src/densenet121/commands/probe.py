"""The ``probe`` command: a new head on the features of frozen weights."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from densenet121.checkpoint.native import ModelInfo, data_note, save_weights
from densenet121.commands import DONE, FAILED, print_notes
from densenet121.config import ProbeConfig, absolute, settings_of, weights_choices
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.engine.features import Features, compute_features
from densenet121.engine.heads import (
    MAX_ITERATIONS,
    Head,
    choose_strength,
    class_means,
    fit_labels,
    fit_logistic,
    nearest_neighbours,
)
from densenet121.engine.images import find_datasets
from densenet121.inference.classifier import Choices, Classifier, load_classifier
from densenet121.network import DenseNet
from densenet121.runs.best import plain_metrics
from densenet121.runs.record import describe_run
from densenet121.runtime import Runtime, runtime_of
from densenet121.tasks import Metrics, MultiLabel, Scores, SingleLabel, Task
from densenet121.utils.errors import InputError, some
from densenet121.utils.files import check_output
from densenet121.utils.output import say


@dataclass(frozen=True)
class ProbeResult:
    """Result of ``probe``.

    Attributes:
        output: file of the weights with the new head; None for the method knn.
        metrics: on the validation images; those of ``SingleLabel``, for knn only top-1.
        feature_seconds: time that the features took.
        fit_seconds: time that the head took.
        bad: (path, reason) of each image that could not be read.
    """

    output: Path | None
    metrics: Metrics
    feature_seconds: float
    fit_seconds: float
    bad: tuple[tuple[str, str], ...]


@torch.no_grad()
def probe(config: ProbeConfig) -> ProbeResult:
    """Compute the features of all images once, fit a head, measure it, and write the weights.

    Raises:
        UsageError: a setting cannot be used.
        InputError: images or weights cannot be used.
    """
    runtime = runtime_of(config)
    source = absolute(config.pretrained)
    output = absolute(config.output or str(source.with_name(f"{source.stem}_probe.safetensors")))
    if config.method != "knn":
        check_output(output, "output", [source])
    classifier = load_classifier(source, Choices(**weights_choices(config)), any_head=True)
    model = classifier.model
    assert isinstance(model, DenseNet)
    model.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    train, val = _open(config)
    start = time.perf_counter()
    features = [_features(config, classifier, side, runtime) for side in (train, val)]
    feature_seconds = time.perf_counter() - start
    say(f"features: {len(train)} + {len(val)} images in {feature_seconds:.1f} s")
    values, labels = features[0].values, train.labels[features[0].indices]
    _check_counts(train, labels, 1)
    start = time.perf_counter()
    bad = features[0].bad + features[1].bad
    if config.method == "knn":
        found = nearest_neighbours(values, labels, features[1].values, config.num_neighbours)
        fit_seconds = time.perf_counter() - start
        say(f"{config.num_neighbours} nearest neighbours by cosine: {fit_seconds:.1f} s")
        metrics = _top1(found, val.labels[features[1].indices])
        say(f"val: {SingleLabel().best_line(metrics)}; no linear layer, so no weights are written")
        return ProbeResult(None, metrics, feature_seconds, fit_seconds, bad)
    head, how = _fit(config, train, values, labels)
    fit_seconds = time.perf_counter() - start
    say(f"{how}: {fit_seconds:.1f} s")
    _put(head, model, runtime)
    task = MultiLabel() if config.task == MultiLabel.name else SingleLabel()
    metrics = _measure(features[1], val, task, model, runtime)
    say(f"val: {task.best_line(metrics)}, loss {task.table_row(metrics)['loss']}")
    preprocessing = classifier.preprocessing.changed(tta="none")  # as measured
    info = ModelInfo(
        classifier.net, classifier.variant, train.class_names, preprocessing, task.name
    )
    settings = settings_of(config) | runtime.settings()
    run = describe_run("probe", settings, runtime, info.task, train.class_names, train, val)
    origin = {"probe": how, "features": source.name, **plain_metrics(metrics)}
    save_weights(output, model.state_dict(), info, origin, data=data_note(run["data"]))
    say(f"weights: {output}")
    return ProbeResult(output, metrics, feature_seconds, fit_seconds, bad)


def _open(config: ProbeConfig) -> tuple[ImageDataset, ImageDataset]:
    """The training and the validation images."""
    train, val = find_datasets(config)
    if val is None:
        raise InputError(
            f"{train.root}: there are no validation images to measure on; pass `val_dir`, or a "
            "`data_dir` that holds train/ and val/"
        )
    print_notes((*train.notes, *val.notes))
    _check_counts(train, train.labels, 1)
    return train, val


def _check_counts(train: ImageDataset, labels: NDArray[Any], least: int) -> None:
    """Refuse a class, or a value of a label, with fewer training images than ``least``.

    Nothing could be learned about it without one, and nothing be chosen with a single one.
    """
    if labels.ndim == 1:
        counts = np.bincount(labels, minlength=len(train.class_names))
        found = {f"class {name}": n for name, n in zip(train.class_names, counts, strict=True)}
    else:
        found = {
            f"label {name}, {word}": int((labels[:, k] == value).sum())
            for k, name in enumerate(train.class_names)
            for value, word in ((1, "positive"), (0, "negative"))
        }
    few = [what for what, count in found.items() if count < least]
    if few and least == 1:
        raise InputError(f"{train.root}: no training image of {some(few)}")
    if few:
        raise InputError(
            f"{train.root}: a single training image of {some(few)}, so `C` cannot be chosen by "
            "cross-validation; pass `C`, for example 0.01"
        )


def _features(
    config: ProbeConfig, classifier: Classifier, images: ImageDataset, runtime: Runtime
) -> Features:
    assert isinstance(classifier.model, DenseNet)
    return compute_features(
        classifier.model,
        images,
        classifier.preprocessing,
        runtime,
        skip_bad=config.on_bad_image == "skip",
    )


def _fit(
    config: ProbeConfig, train: ImageDataset, values: NDArray[np.float32], labels: NDArray[Any]
) -> tuple[Head, str]:
    """The head, and how it was found."""
    if config.method == "class_mean":
        return class_means(values, labels), "nearest class mean"
    C, origin = config.C, ""
    if C is None:
        _check_counts(train, labels, 2)
        C, folds = choose_strength(values, labels, config.seed)
        origin = f" (lowest log loss in cross-validation, {folds} folds of the training images)"
    head = (fit_logistic if labels.ndim == 1 else fit_labels)(values, labels, C)
    if not head.converged:
        _warn(f"no convergence in {MAX_ITERATIONS} iterations; a smaller C is easier to fit")
    return head, f"logistic regression, C {C:g}{origin}"


def _put(head: Head, model: DenseNet, runtime: Runtime) -> None:
    """Replace the classifier of the network."""
    classifier = torch.nn.Linear(model.num_features, len(head.bias))
    classifier.weight.copy_(torch.from_numpy(head.weight))
    classifier.bias.copy_(torch.from_numpy(head.bias))
    model.classifier, model.num_classes = classifier.to(runtime.device), len(head.bias)


def _measure(
    features: Features, val: ImageDataset, task: Task, model: DenseNet, runtime: Runtime
) -> Metrics:
    """The metrics that ``eval`` gives for the weights."""
    targets = task.targets(val, features.indices)
    logits = features.logits(model.classifier, runtime)
    parts = torch.split(targets, [len(batch) for batch in logits])
    scores = [task.score(batch, part) for batch, part in zip(logits, parts, strict=True)]
    return task.metrics(Scores.joined(scores), targets, val.class_names)


def _top1(found: NDArray[np.int64], truth: NDArray[np.int64]) -> Metrics:
    correct, total = int((found == truth).sum()), len(truth)
    return {"top1_correct": correct, "total": total, "top1": correct / total}


def _warn(line: str) -> None:
    print(f"densenet121: {line}", file=sys.stderr)  # noqa: T201 (the command's output)


def run(config: ProbeConfig) -> int:
    """Probe and print; 1 if images had to be skipped."""
    result = probe(config)
    for _, reason in result.bad:
        _warn(reason)  # begins with the path
    return FAILED if result.bad else DONE
