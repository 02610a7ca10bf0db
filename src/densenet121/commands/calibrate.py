"""The ``calibrate`` command: a temperature, conformal scores and an abstain threshold."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import save_weights
from densenet121.commands import DONE
from densenet121.config import AMP_NAMES, CalibrateConfig, absolute, default_workers
from densenet121.datasets.image_dataset import check_same_classes
from densenet121.datasets.sources.open import open_evaluation
from densenet121.inference.predictor import Predictor
from densenet121.tasks.single_label.calibration import (
    Calibration,
    abstain_threshold,
    fit_temperature,
    probabilities,
    reliability,
)
from densenet121.utils.errors import InputError
from densenet121.utils.progress import progress_bar

_LEAST = 20  # images; fewer say nothing about nine in ten


@dataclass(frozen=True)
class CalibrateResult:
    """What ``calibrate`` came to.

    Attributes:
        output: the calibrated weights.
        calibration: what was stored in them.
        ece_before: expected calibration error of the half that the temperature was not fitted on.
        ece_after: the same with the temperature.
    """

    output: Path
    calibration: Calibration
    ece_before: float
    ece_after: float


def calibrate(config: CalibrateConfig) -> CalibrateResult:
    """Classify held-out images, learn from them, write the weights with what was learnt.

    Raises:
        InputError: weights or images cannot be used, or --target_accuracy is out of reach.
    """
    source = absolute(config.pretrained)
    weights = read_weights(source)
    if weights.info is None:
        raise InputError(f"{source}: tells no classes; calibrate takes this program's weights")
    folder = open_evaluation(absolute(config.data_dir))
    check_same_classes(weights.info.class_names, str(source), folder.class_names, str(folder.root))
    if len(folder) < _LEAST:
        raise InputError(f"{folder.root}: {len(folder)} images, at least {_LEAST} are needed")
    predictor = Predictor(
        source,
        device=config.device,
        amp=AMP_NAMES.get(config.amp or "", config.amp),
        batch_size=config.per_batch_size,
        workers=default_workers() if config.workers is None else config.workers,
    )
    batches = -(-len(folder) // predictor.batch_size)
    with progress_bar("calibrate", batches, unit="batch") as advance:
        logits = np.concatenate([found for _, found in predictor.batches(folder, advance=advance)])
    calibration, before, after = learn(
        logits, folder.labels, seed=config.seed, target_accuracy=config.target_accuracy
    )
    note = {"data_dir": str(folder.root), "fingerprint": folder.fingerprint, "seed": config.seed}
    calibration = Calibration(
        calibration.temperature,
        calibration.scores,
        calibration.abstain_below,
        calibration.note | note,
    )
    name = f"{source.stem}_calibrated.safetensors"
    output = absolute(config.output) if config.output else source.with_name(name)
    save_weights(output, weights.state_dict, weights.info, weights.origin, calibration.to_json())
    _print(calibration, before, after, output)
    return CalibrateResult(output, calibration, before, after)


def learn(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    seed: int,
    target_accuracy: float | None,
) -> tuple[Calibration, float, float]:
    """The calibration, and the expected calibration error before and after it.

    One random half fits the temperature; scores, threshold and both errors are of the other, which
    it has not seen: only so do the prediction sets keep their promise.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)``.
        seed: of the halves.
        target_accuracy: of the answers that are given.

    Raises:
        InputError: no threshold reaches it.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    fitted, kept = order[: len(order) // 2], order[len(order) // 2 :]
    temperature = fit_temperature(logits[fitted], labels[fitted])
    correct = logits[kept].argmax(axis=1) == labels[kept]
    before = reliability(probabilities(logits[kept]).max(axis=1), correct).ece
    shares = probabilities(logits[kept], temperature)
    confidence = shares.max(axis=1)
    after = reliability(confidence, correct).ece
    below = None
    if target_accuracy is not None:
        below = abstain_threshold(confidence, correct, target_accuracy)
        if below is None:
            raise InputError(
                f"--target_accuracy {target_accuracy}: not reached at any confidence "
                f"({100 * correct.mean():.2f} % are right in all)"
            )
    scores = np.sort(1 - shares[np.arange(len(kept)), labels[kept]])
    answered = float((confidence >= below).mean()) if below is not None else 1.0
    note = {"pictures": len(labels), "target_accuracy": target_accuracy, "answered": answered}
    found = Calibration(temperature, tuple(float(score) for score in scores), below, note)
    return found, before, after


def _print(calibration: Calibration, before: float, after: float, output: Path) -> None:
    held = len(calibration.scores)
    print(  # noqa: T201 (the command's output)
        f"temperature {calibration.temperature:.4f}; expected calibration error "
        f"{100 * before:.2f} % before, {100 * after:.2f} % after "
        f"(on {held} images that it was not fitted on)"
    )
    if calibration.abstain_below is not None:
        print(  # noqa: T201
            f"below {calibration.abstain_below:.4f} predict abstains: it answers "
            f"{100 * calibration.note['answered']:.1f} % of these"
        )
    print(f"calibrated weights: {output}")  # noqa: T201


def run(config: CalibrateConfig) -> int:
    """Calibrate weights and print the result."""
    calibrate(config)
    return DONE
