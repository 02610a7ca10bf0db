"""The ``calibrate`` command: calibrate the probabilities of weights on held-out images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import CLASSES_DTYPE, folder_digest, save_weights
from densenet121.checkpoint.weights import Weights
from densenet121.commands import DONE, print_notes
from densenet121.config import CalibrateConfig, absolute
from densenet121.datasets.groups import group_ids
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.engine.eval_weights import check_outputs, fit_classes, splits_of
from densenet121.engine.images import check_columns, open_images
from densenet121.inference.predictor import Predictor
from densenet121.metrics.bootstrap import group_numbers
from densenet121.network import DenseNet
from densenet121.pages.markup import mapping
from densenet121.runs.evaluated import SAME_IMAGES
from densenet121.tasks import Task, task_named
from densenet121.tasks.given import check_takes_groups, targets_of
from densenet121.utils.errors import InputError, visible_lines
from densenet121.utils.files import check_output
from densenet121.utils.progress import progress_bar

_LEAST = 20  # images; fewer are not enough for a coverage of 90 %
# What a calibration may have, and the setting that asks for it.
_CHOSEN = {
    "points": ("the thresholds of {} are", "operating_point"),
    "abstain_below": ("the confidence below which {} has no answer is", "target_accuracy"),
}
# What to say of images that the weights have seen.
_SEEN = {
    "train": (
        "warning: the weights were trained on these same images, on which they are surer and more "
        "often right than on new ones: temperature, prediction sets and thresholds will not hold; "
        "pass images that the training has not seen"
    ),
    "val": (
        "note: the training run validated on these same images; if it chose the weights by them, "
        "what is measured here is a little too good"
    ),
}


@dataclass(frozen=True)
class CalibrateResult:
    """Result of ``calibrate``.

    Attributes:
        output: file of the calibrated weights.
        calibration: the calibration stored in them.
    """

    output: Path
    calibration: Any


def calibrate(config: CalibrateConfig, task: Task | None = None) -> CalibrateResult:
    """Classify held-out images, fit a calibration, and write it with the weights.

    Args:
        config: the settings.
        task: the caller's own task; None uses the one that the weights name.

    Raises:
        InputError: weights or images cannot be used, or `target_accuracy` cannot be reached.
    """
    source = absolute(config.pretrained)
    name = f"{source.stem}_calibrated.safetensors"
    output = absolute(config.output) if config.output else source.with_name(name)
    if config.output:
        check_output(output, "output", [source])
    weights = read_weights(source)
    weights.check_head(source)
    info = weights.known_info(source)
    dataset = open_images(config, info.task, info.class_names)
    dataset = fit_classes(dataset, weights, source)
    known = task_named(info.task, source, task)
    check_outputs(source, weights.num_classes or 0, known, dataset)
    print_notes((*dataset.notes, *(f"note: {note}" for note in weights.notes)))
    print_notes(_SEEN[split] for split in splits_of(weights.data, dataset) if split in _SEEN)
    if len(dataset) < _LEAST:
        raise InputError(f"{dataset.root}: has {len(dataset)} images; at least {_LEAST} are needed")
    grouped = _groups(config, dataset, known)
    predictor, views = _predictor(config, source, task)
    logits = _logits(predictor, dataset)
    task = predictor.classifier.task
    targets = targets_of(task, dataset, np.arange(len(dataset)))
    note = _origin(weights, dataset, config.group)
    offsets, before, earlier = None, logits, _earlier_offsets(weights)
    if config.fit_bias:
        names = dataset.class_names
        offsets = task.offsets(logits, targets, seed=config.seed, class_names=names, **grouped)
        weights = _with_offsets(weights, offsets.values, predictor)
        # Not logits + offsets: the views of `tta` are averaged after the bias.
        logits = _logits(predictor, dataset)
        note["offsets"] = (offsets.values + earlier).tolist()
    calibration, lines = task.calibrate(
        logits,
        targets,
        seed=config.seed,
        target_accuracy=config.target_accuracy,
        note=note,
        operating_point=config.operating_point,
        class_names=dataset.class_names,
        **grouped,
    )
    info = replace(info, preprocessing=views)
    learnt = calibration.to_json()
    if earlier.any() and not config.fit_bias:  # the bias still has them
        learnt["note"]["offsets"] = earlier.tolist()
    save_weights(output, weights.state_dict, info, weights.origin, learnt, weights.data)
    print_notes(_left_out(weights.calibration or {}, learnt, config.pretrained))
    fitted = [] if offsets is None else offsets.effect(before, logits, calibration)
    for line in (*fitted, *lines, f"calibrated weights: {output}"):
        print(visible_lines([line.replace("`fit_bias`", "--fit_bias")]))  # noqa: T201 (the command's output)
    return CalibrateResult(output, calibration)


def _origin(weights: Weights, dataset: ImageDataset, group: str | None) -> dict[str, Any]:
    """What is stored of the images: without paths, since weights are passed on."""
    found: dict[str, Any] = {
        "folder": folder_digest(str(dataset.root)),
        "fingerprint": dataset.fingerprint,
    }
    same = splits_of(weights.data, dataset)
    found |= {SAME_IMAGES: same} if same else {}
    return found if group is None else {**found, "group": group}


def _groups(
    config: CalibrateConfig, dataset: ImageDataset, task: Task
) -> dict[str, NDArray[np.int64]]:
    """The number of each image's group as an argument of the task; nothing without groups."""
    if config.group is None:
        return {}
    asked = ("offsets", "calibrate") if config.fit_bias else ("calibrate",)
    check_takes_groups(task, *asked)
    check_columns(dataset, config.group, ())
    ids = group_ids(dataset.paths, dataset.columns, config.group, str(dataset.source))
    return {"groups": group_numbers(np.array(ids))}


def _predictor(
    config: CalibrateConfig, source: Path, task: Task | None
) -> tuple[Predictor, Preprocessing]:
    """The network without a calibration that the weights may have, and the views it averages."""
    predictor = Predictor(
        source,
        device=config.device,
        amp=config.amp,
        batch_size=config.per_batch_size,
        workers=config.num_workers,
        task=task,
    )
    views = predictor.classifier.preprocessing.changed(tta=config.tta)
    _ = views.transform  # raises if the image has no such views
    # The weights may have a calibration, with other views, which this one replaces.
    predictor.classifier = replace(predictor.classifier, preprocessing=views, calibration=None)
    return predictor, views


def _logits(predictor: Predictor, dataset: ImageDataset) -> NDArray[np.float32]:
    """Logits ``(N, K)`` of all images."""
    batches = -(-len(dataset) // predictor.batch_size)
    with progress_bar("calibrate", batches, unit="batch") as advance:
        found = [logits for _, logits in predictor.batches(dataset, advance=advance)]
    return np.concatenate(found)


def _earlier_offsets(weights: Weights) -> NDArray[np.float64]:
    """The offsets that an earlier calibration added to the bias, ``(K,)``; 0 if there was none."""
    found = mapping(mapping(weights.calibration).get("note")).get("offsets")
    count = weights.num_classes or 0
    try:
        earlier = np.array(found, dtype=np.float64)
    except (TypeError, ValueError):
        return np.zeros(count)
    return earlier if earlier.shape == (count,) and np.isfinite(earlier).all() else np.zeros(count)


def _with_offsets(weights: Weights, offsets: NDArray[np.float64], predictor: Predictor) -> Weights:
    """The weights with offsets added to the classifier's bias, which the predictor gets too.

    Epoch and score are left out: they are those of the network with the bias before.
    """
    before = weights.state_dict["classifier.bias"]
    bias = (before.double() + torch.from_numpy(offsets)).to(before.dtype)
    model = predictor.classifier.model
    assert isinstance(model, DenseNet)  # int8 weights are refused before
    with torch.no_grad():
        model.classifier.bias.copy_(bias)
    kept = {name: value for name, value in weights.origin.items() if name == CLASSES_DTYPE}
    return replace(weights, state_dict=weights.state_dict | {"classifier.bias": bias}, origin=kept)


def _left_out(before: Mapping[str, Any], after: Mapping[str, Any], source: str) -> Iterator[str]:
    """What the weights had and was not asked for again; it is of other probabilities."""
    for name, (what, setting) in _CHOSEN.items():
        if before.get(name) not in (None, (), []) and after.get(name) in (None, (), []):
            yield (
                f"note: {what.format(source)} left out, because the probabilities are others "
                f"now; pass --{setting} to choose anew"
            )


def run(config: CalibrateConfig) -> int:
    """Calibrate weights and print the result."""
    calibrate(config)
    return DONE
