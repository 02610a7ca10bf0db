"""Steps per epoch and training time of a run, from its metrics."""

import math
from collections.abc import Sequence
from typing import Any

from densenet121.pages.markup import mapping
from densenet121.runs.metrics import TrainRow
from densenet121.runs.read import RunFiles
from densenet121.tasks import Validation


def epochs_done(run: RunFiles, rows: Sequence[TrainRow | Validation]) -> list[float] | None:
    """Epochs done with the step of each row; None if no epoch is complete.

    A run that was resumed on other ranks or data has epochs of different numbers of steps.
    """
    found = _steps_of_epochs(run)
    if not found:
        return None
    last = found[max(found)]
    return [(row.step + 1) / found.get(row.epoch, last) for row in rows]


def _steps_of_epochs(run: RunFiles) -> dict[int, float]:
    """Steps of each complete epoch. Step ``i`` of epoch ``e`` of ``n`` has the number e n + i."""
    last_steps: dict[int, int] = {}
    for row in run.rows:
        # The last row of an epoch, of which a part may have had another number of steps.
        last_steps[row.epoch] = row.step
    # An epoch is complete if it was evaluated or another one follows it.
    evaluated = {row.epoch for row in run.results.validations}
    return {
        epoch: (last + 1) / (epoch + 1)
        for epoch, last in last_steps.items()
        if epoch in evaluated or epoch < max(last_steps)
    }


def training_seconds(run: RunFiles) -> float | None:
    """Time in training steps, from images/s; without evaluation, saving and interruptions."""
    images, ends = training_images(run.record), epochs_done(run, run.train)
    if images is None or ends is None:
        return None
    in_steps = _images_of_an_epochs_steps(run.record) or images
    seconds, done = 0.0, 0.0
    for row, epochs in zip(run.train, ends, strict=True):
        if row.images_per_second > 0:
            seen = _images_seen(epochs, images, in_steps) - _images_seen(done, images, in_steps)
            seconds += max(seen, 0.0) / row.images_per_second
            done = epochs
    return seconds or None


def _images_seen(epochs: float, images: int, in_steps: int) -> float:
    """Images that so many epochs train on: all steps are whole but for the last of an epoch."""
    whole = int(epochs)
    return whole * min(images, in_steps) + min((epochs - whole) * in_steps, images)


def _images_of_an_epochs_steps(record: dict[str, Any] | None) -> int | None:
    """Images of an epoch if each step is whole; None if run.json does not say it.

    Those that do not fill a step are left out of the epoch, or the last step has fewer.
    """
    found = record or {}
    settings = mapping(found.get("settings"))
    parts = [found.get(name) for name in ("steps_per_epoch", "world_size")]
    parts += [settings.get(name) for name in ("per_batch_size", "gradient_accumulation")]
    counts = [part for part in parts if isinstance(part, int) and part > 0]
    return math.prod(counts) if len(counts) == len(parts) else None


def training_images(record: dict[str, Any] | None) -> int | None:
    """The number of training images in run.json, or None."""
    try:
        images = (record or {})["data"]["train"]["pictures"]
    except (KeyError, TypeError):
        return None
    return images if isinstance(images, int) and images > 0 else None
