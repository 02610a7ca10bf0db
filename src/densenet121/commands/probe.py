"""The ``probe`` command: a new head on the features of frozen weights."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from densenet121.checkpoint.native import ModelInfo, data_note, save_weights
from densenet121.commands import DONE, FAILED
from densenet121.config import ProbeConfig, absolute, settings_of, weights_choices
from densenet121.datasets.image_dataset import ImageDataset, some
from densenet121.datasets.sources.open import open_training
from densenet121.engine.features import Features, compute_features
from densenet121.engine.heads import (
    MAX_ITERATIONS,
    Head,
    choose_strength,
    class_means,
    fit_logistic,
    nearest_neighbours,
)
from densenet121.inference.classifier import Choices, Classifier, load_classifier
from densenet121.network import DenseNet
from densenet121.runs.record import describe_run
from densenet121.runtime import Runtime, runtime_of
from densenet121.tasks import Metrics, Scores, SingleLabel
from densenet121.utils.errors import InputError
from densenet121.utils.files import check_output


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
    _say(f"features: {len(train)} + {len(val)} images in {feature_seconds:.1f} s")
    values, labels = features[0].values, train.labels[features[0].indices]
    _check_classes(train, labels)
    truth = val.labels[features[1].indices]
    start = time.perf_counter()
    bad = features[0].bad + features[1].bad
    if config.method == "knn":
        found = nearest_neighbours(values, labels, features[1].values, config.num_neighbours)
        fit_seconds = time.perf_counter() - start
        _say(f"{config.num_neighbours} nearest neighbours by cosine: {fit_seconds:.1f} s")
        metrics = _top1(found, truth)
        _say(f"val: {SingleLabel().best_line(metrics)}; no linear layer, so no weights are written")
        return ProbeResult(None, metrics, feature_seconds, fit_seconds, bad)
    head, how = _fit(config, train, values, labels)
    fit_seconds = time.perf_counter() - start
    _say(f"{how}: {fit_seconds:.1f} s")
    _put(head, model, runtime)
    metrics = _measure(features[1], truth, model, runtime)
    _say(f"val: {SingleLabel().best_line(metrics)}, loss {metrics['loss']:.4f}")
    preprocessing = classifier.preprocessing.changed(tta="none")  # as measured
    info = ModelInfo(classifier.net, classifier.variant, train.class_names, preprocessing)
    settings = settings_of(config) | runtime.settings()
    run = describe_run("probe", settings, runtime, info.task, train.class_names, train, val)
    origin = {"probe": how, "features": source.name, **metrics}
    save_weights(output, model.state_dict(), info, origin, data=data_note(run["data"]))
    _say(f"weights: {output}")
    return ProbeResult(output, metrics, feature_seconds, fit_seconds, bad)


def _open(config: ProbeConfig) -> tuple[ImageDataset, ImageDataset]:
    """The training and the validation images."""
    train, val = open_training(
        absolute(config.data_dir),
        absolute(config.val_dir) if config.val_dir else None,
        exclude=absolute(config.exclude) if config.exclude else None,
    )
    if val is None:
        raise InputError(
            f"{train.root}: there are no validation images to measure on; pass `val_dir`, or a "
            "`data_dir` that holds train/ and val/"
        )
    _check_classes(train, train.labels)
    return train, val


def _check_classes(train: ImageDataset, labels: NDArray[np.int64]) -> None:
    """Refuse a class without a training image: nothing could be learned about it."""
    counts = np.bincount(labels, minlength=len(train.class_names))
    empty = [name for name, count in zip(train.class_names, counts, strict=True) if not count]
    if empty:
        raise InputError(f"{train.root}: no training image of class {some(empty)}")


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
    config: ProbeConfig,
    train: ImageDataset,
    values: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> tuple[Head, str]:
    """The head, and how it was found."""
    if config.method == "class_mean":
        return class_means(values, labels), "nearest class mean"
    C, origin = config.C, ""
    if C is None:
        counts = np.bincount(labels)
        if counts.min() < 2:
            raise InputError(
                f"{train.root}: class {train.class_names[int(np.argmin(counts))]} has a single "
                "image, so `C` cannot be chosen by cross-validation; pass `C`, for example 0.01"
            )
        C, folds = choose_strength(values, labels, config.seed)
        origin = f" (lowest log loss in cross-validation, {folds} folds of the training images)"
    head = fit_logistic(values, labels, C)
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
    features: Features, truth: NDArray[np.int64], model: DenseNet, runtime: Runtime
) -> Metrics:
    """The metrics that ``eval`` gives for the weights."""
    task, targets = SingleLabel(), torch.from_numpy(truth)
    logits = features.logits(model.classifier, runtime)
    parts = torch.split(targets, [len(batch) for batch in logits])
    scores = [task.score(batch, part) for batch, part in zip(logits, parts, strict=True)]
    return task.metrics(Scores.joined(scores), targets, ())


def _top1(found: NDArray[np.int64], truth: NDArray[np.int64]) -> Metrics:
    correct, total = int((found == truth).sum()), len(truth)
    return {"top1_correct": correct, "total": total, "top1": correct / total}


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 (the command's output)


def _warn(line: str) -> None:
    print(f"densenet121: {line}", file=sys.stderr)  # noqa: T201 (the command's output)


def run(config: ProbeConfig) -> int:
    """Probe and print; 1 if images had to be skipped."""
    result = probe(config)
    for _, reason in result.bad:
        _warn(reason)  # begins with the path
    return FAILED if result.bad else DONE
