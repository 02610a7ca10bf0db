"""The ``calibrate`` command: calibrate the probabilities of weights on held-out images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import save_weights
from densenet121.commands import DONE, print_notes
from densenet121.config import CalibrateConfig, absolute
from densenet121.engine.eval_weights import check_outputs, fit_classes
from densenet121.engine.images import open_images
from densenet121.inference.predictor import Predictor
from densenet121.tasks import Task, task_named
from densenet121.utils.errors import InputError
from densenet121.utils.files import check_output
from densenet121.utils.progress import progress_bar

_LEAST = 20  # images; fewer are not enough for a coverage of 90 %
# What a calibration may have, and the setting that asks for it.
_CHOSEN = {
    "points": ("the thresholds of {} are", "operating_point"),
    "abstain_below": ("the confidence below which {} has no answer is", "target_accuracy"),
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
    check_outputs(source, weights.num_classes or 0, task_named(info.task, source, task), dataset)
    print_notes((*dataset.notes, *(f"note: {note}" for note in weights.notes)))
    if len(dataset) < _LEAST:
        raise InputError(f"{dataset.root}: has {len(dataset)} images; at least {_LEAST} are needed")
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
    batches = -(-len(dataset) // predictor.batch_size)
    with progress_bar("calibrate", batches, unit="batch") as advance:
        logits = np.concatenate([found for _, found in predictor.batches(dataset, advance=advance)])
    task = predictor.classifier.task
    targets = task.targets(dataset, np.arange(len(dataset)))
    calibration, lines = task.calibrate(
        logits,
        targets,
        seed=config.seed,
        target_accuracy=config.target_accuracy,
        note={"data_dir": str(dataset.root), "fingerprint": dataset.fingerprint},
        operating_point=config.operating_point,
        class_names=dataset.class_names,
    )
    info = replace(info, preprocessing=views)
    learnt = calibration.to_json()
    save_weights(output, weights.state_dict, info, weights.origin, learnt, weights.data)
    print_notes(_left_out(weights.calibration or {}, learnt, config.pretrained))
    for line in (*lines, f"calibrated weights: {output}"):
        print(line)  # noqa: T201 (the command's output)
    return CalibrateResult(output, calibration)


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
