"""Steps per epoch and training time of a run, from its metrics."""

from typing import Any

from densenet121.runs.read import RunFiles


def steps_per_epoch(run: RunFiles) -> float | None:
    """Steps per epoch, from the last complete epoch; None if there is none."""
    last_steps: dict[int, int] = {}
    for row in run.rows:
        last_steps[row.epoch] = max(row.step, last_steps.get(row.epoch, 0))
    if not last_steps:
        return None
    # An epoch is complete if it was evaluated or another one follows it.
    evaluated = {row.epoch for row in run.results.validations}
    whole = [epoch for epoch in last_steps if epoch in evaluated or epoch < max(last_steps)]
    return (last_steps[max(whole)] + 1) / (max(whole) + 1) if whole else None


def training_seconds(run: RunFiles) -> float | None:
    """Time in training steps, from images/s; without evaluation, saving and interruptions."""
    steps, images = steps_per_epoch(run), training_images(run.record)
    if steps is None or images is None:
        return None
    seconds, done = 0.0, 0
    for row in run.train:
        if row.images_per_second > 0:
            seconds += (row.step + 1 - done) * images / steps / row.images_per_second
            done = row.step + 1
    return seconds or None


def training_images(record: dict[str, Any] | None) -> int | None:
    """The number of training images in run.json, or None."""
    try:
        images = (record or {})["data"]["train"]["pictures"]
    except (KeyError, TypeError):
        return None
    return images if isinstance(images, int) and images > 0 else None
