"""Fit a calibration to the logits of held-out images."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.metrics.bootstrap import few_groups_note
from densenet121.metrics.classes import share_interval
from densenet121.metrics.decisions import threshold_text
from densenet121.metrics.probabilities import mean_is_off
from densenet121.tasks.single_label.calibration import (
    Calibration,
    abstain_threshold,
    fit_temperature,
    log_losses,
    probabilities,
    reliability,
    scores_of,
)
from densenet121.tasks.wrong_means import advice, of_mean
from densenet121.utils.errors import InputError
from densenet121.utils.rounding import percent, rounded_down


def learn(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    seed: int,
    target_accuracy: float | None,
    groups: NDArray[np.int64] | None = None,
) -> tuple[Calibration, float, float]:
    """The calibration, and the expected calibration error before and after it.

    The temperature is fitted on one random half. Scores, threshold and both errors are computed on
    the other half, because the guarantee of the prediction sets needs images not used for fitting.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)``.
        seed: seed of the split into halves.
        target_accuracy: required accuracy of the answers given, or None.
        groups: ``(N,)`` number of each image's group, 0, 1, 2 ..., which stays in one half.

    Raises:
        InputError: no threshold reaches the target.
    """
    fitted, kept = halves(len(labels), seed, groups)
    own = None if groups is None else groups[kept]
    temperature, problem = fit_temperature(logits[fitted], labels[fitted])
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
                f"`target_accuracy` {target_accuracy} is not reached at any confidence "
                f"(overall {rounded_down(float(correct.mean()), 2, times=100)} % are correct)"
            )
    scores = scores_of(shares[np.arange(len(kept)), labels[kept]], own)
    answered = float((confidence >= below).mean()) if below is not None else 1.0
    note: dict[str, Any] = {
        "pictures": len(labels),
        "target_accuracy": target_accuracy,
        "answered": answered,
    }
    note["expected_calibration_error"] = {"before": before, "after": after, "pictures": len(kept)}
    loss = log_losses(logits[kept], labels[kept])
    new_loss = log_losses(logits[kept], labels[kept], temperature)
    note["log_loss"] = {"before": float(loss.mean()), "after": float(new_loss.mean())}
    if more_than_chance(new_loss - loss, own):
        note["worse"] = True
    if groups is not None:
        note["groups"] = len(np.unique(groups))
    if below is not None:
        note["right"] = _right(correct, confidence >= below, own)
    if problem:
        note["no_temperature"] = problem
    found = Calibration(temperature, tuple(float(score) for score in scores), below, note)
    return found, before, after


def more_than_chance(differences: NDArray[np.float64], groups: NDArray[np.int64] | None) -> bool:
    """Whether a sum over images or groups is above 0 by more than chance (one-sided, 1 in 100)."""
    sums = differences if groups is None else np.bincount(groups, differences)
    return float(sums.sum()) > 2.326 * math.sqrt(float((sums**2).sum()))


def _right(
    correct: NDArray[np.bool_], answered: NDArray[np.bool_], groups: NDArray[np.int64] | None
) -> dict[str, Any]:
    """The share of the answers that are right, with its interval."""
    right = correct[answered]
    interval = share_interval(right, None if groups is None else groups[answered])
    return {"share": float(right.mean()), "ci": None if interval is None else list(interval)}


def halves(
    count: int, seed: int, groups: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The random half of the images, or of the groups, that is fitted on, and the other one.

    Raises:
        InputError: all images are of one group.
    """
    random = np.random.default_rng(seed)
    if groups is None:
        order = random.permutation(count)
        return order[: count // 2], order[count // 2 :]
    drawn = random.permutation(int(groups.max()) + 1)
    if len(drawn) < 2:
        raise InputError("all images are of one `group`: none is left to measure on; pass more")
    inside = np.isin(groups, drawn[: len(drawn) // 2])
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def describe(calibration: Calibration, before: float, after: float) -> list[str]:
    """Text lines: temperature, calibration error before and after, share of images answered."""
    problem = calibration.note.get("no_temperature")
    lines = [f"warning: the temperature stays 1: {problem}"] if problem else []
    first = "with the offsets alone" if "offsets" in calibration.note else "before"
    images = calibration.note["expected_calibration_error"]["pictures"]
    of = f" of {len(calibration.scores)} groups" if "groups" in calibration.note else ""
    loss = calibration.note["log_loss"]
    lines.append(
        f"temperature {calibration.temperature:.4f}; expected calibration error "
        f"{percent(before)} {first}, {percent(after)} after; log loss "
        f"{loss['before']:.4f} {first}, {loss['after']:.4f} after "
        f"(on {images} images{of} not used for fitting)"
    )
    if "worse" in calibration.note:
        lines.append(
            "warning: the probabilities of these images are worse with the temperature, by their "
            "log loss; pass more images, or keep the weights as they were"
        )
    if calibration.abstain_below is not None:
        right = calibration.note["right"]
        ends = right["ci"] and "95 % interval {:.2f} to {:.2f} %; ".format(
            *(100 * end for end in right["ci"])
        )
        lines.append(
            f"predict abstains below {threshold_text(calibration.abstain_below, 'f')}: it answers "
            f"{percent(calibration.note['answered'], 1)} of these images, "
            f"{percent(right['share'])} of them rightly ({ends or ''}measured on the images "
            "that it was chosen on)"
        )
        if "groups" in calibration.note and (note := few_groups_note(len(calibration.scores))):
            lines.append(note)
    return lines


def wrong_means(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    names: Sequence[str],
    *,
    temperature: float,
    seed: int,
    groups: NDArray[np.int64] | None = None,
) -> list[str]:
    """A note where a mean probability is not the share of the images, of those not fitted on."""
    kept = halves(len(labels), seed, groups)[1]
    own = None if groups is None else groups[kept]
    shares = probabilities(logits[kept], temperature)
    off = [
        of_mean(names[k], of_class, shares[:, k])
        for k in range(len(names))
        if mean_is_off(of_class := labels[kept] == k, shares[:, k], len(names), own)
    ]
    return advice("class", off, grouped=own is not None)


def no_operating_point(class_names: Sequence[str]) -> str:
    """Why one class per image has no threshold, and what to use."""
    instead = "pass `target_accuracy`"
    if len(class_names) == 2:
        instead = (
            "for two classes, make one label of them by densenet121 convert with `positive_class` "
            f"{' or '.join(class_names)}, and pass a list of the images with `label_column` and "
            f"the other class as `negative_label`; or {instead}"
        )
    return (
        "`operating_point` is for the task multilabel, whose labels have thresholds; the answer "
        f"of single_label is the most probable class, which eval counts too: {instead}"
    )
