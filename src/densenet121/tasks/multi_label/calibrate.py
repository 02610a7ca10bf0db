"""Fit temperatures and operating points to the logits of held-out images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.metrics.bootstrap import (
    few_groups_note,
    few_positives_note,
    labels_of_few_groups,
)
from densenet121.metrics.classes import share_interval
from densenet121.metrics.decisions import threshold_text
from densenet121.metrics.probabilities import mean_is_off
from densenet121.tasks.multi_label.calibration import (
    Calibration,
    OperatingPoint,
    choose,
    fit_temperature,
    parse_rule,
    probabilities,
    values_of_cuts,
)
from densenet121.tasks.values import Calibrated
from densenet121.tasks.wrong_means import advice, of_mean
from densenet121.utils.errors import InputError
from densenet121.utils.rounding import rounded_down


def learn(
    logits: NDArray[np.float32],
    targets: NDArray[np.float64],
    names: Sequence[str],
    rule: str | None,
    note: Mapping[str, Any],
    groups: NDArray[np.int64] | None = None,
) -> Calibrated:
    """Temperatures and, with a rule, the operating point of each label.

    Both are fitted on all images: what a threshold reaches is measured on the images it was chosen
    on, and is therefore a little too good for few of them.

    Args:
        logits: ``(N, K)``.
        targets: ``(N, K)``, 1, 0 or nan for not known.
        names: the labels.
        rule: a text of ``parse_rule``, or None.
        note: origin of the images.
        groups: ``(N,)`` number of each image's group, 0, 1, 2 ...; None: images are independent.

    Raises:
        InputError: a label lacks positive or negative images, or no threshold reaches the target.
    """
    asked = None if rule is None else parse_rule(rule)
    temperatures: list[float] = []
    points: list[OperatingPoint] = []
    problems: dict[str, str] = {}
    off: list[str] = []
    reached: list[str] = []
    for k, name in enumerate(names):
        raw, truth = known_cells(logits, targets, names, k)
        temperature, problem = fit_temperature(raw, truth)
        temperatures.append(temperature)
        if problem:
            problems[name] = problem
        shares = probabilities(raw, temperature)
        own = None if groups is None else groups[~np.isnan(targets[:, k])]
        if mean_is_off(truth, shares, len(names), own):
            off.append(of_mean(name, truth, shares))
        if asked is not None:
            points.append(_point(shares, truth, asked, rule, name))
            reached.append(_reached(truth == 1, shares >= points[-1].threshold, own))
    content = dict(note) | {"pictures": len(targets)}
    if groups is not None:
        content["groups"] = len(np.unique(groups))
    if problems:
        content["no_temperature"] = problems
    found = Calibration(tuple(temperatures), tuple(points), rule or "", content)
    few = [] if groups is None else labels_of_few_groups(targets, names, groups)
    lines = _lines(found, names, reached, few)
    if "offsets" not in note:
        lines += advice("label", off, grouped=groups is not None)
    return Calibrated(found, lines)


def _point(
    shares: NDArray[np.float64],
    truth: NDArray[np.float64],
    asked: tuple[str, float | None],
    rule: str | None,
    name: str,
) -> OperatingPoint:
    """The operating point of one label.

    Raises:
        InputError: no threshold reaches the target.
    """
    found = choose(shares, truth, *asked)
    if found is None:
        best = values_of_cuts(shares, truth, asked[0]).max()
        raise InputError(
            f"`operating_point` {rule} is not reached by any threshold of the label {name}; the "
            f"highest {asked[0]} is {rounded_down(best)}, so ask for less"
        )
    return found


def known_cells(
    logits: NDArray[np.float32], targets: NDArray[np.float64], names: Sequence[str], k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logits and truth of one label, of the images of which it is known.

    Args:
        logits: ``(N, K)``.
        targets: ``(N, K)``, 1, 0 or nan for not known.
        names: the labels.
        k: which label.

    Raises:
        InputError: it lacks positive or negative images.
    """
    known = ~np.isnan(targets[:, k])
    truth, raw = targets[known, k], logits[known, k].astype(np.float64)
    if not len(truth):
        raise InputError(
            f"the label {names[k]} is not known for any of these {len(targets)} images: it cannot "
            "be calibrated; pass images of which it is known"
        )
    if truth.min() == truth.max():
        kind = "negative" if truth.min() == 1 else "positive"
        raise InputError(
            f"the label {names[k]} has no {kind} image among these {len(targets)}: it cannot be "
            "calibrated; pass more images"
        )
    return raw, truth


def _reached(
    positive: NDArray[np.bool_], called: NDArray[np.bool_], groups: NDArray[np.int64] | None
) -> str:
    """Sensitivity and specificity of a threshold, with intervals."""
    text = ""
    for kind, inside in (("sensitivity", positive), ("specificity", ~positive)):
        right = (called == positive)[inside]
        text += f"  {kind} {right.mean():.3f}"
        if interval := share_interval(right, None if groups is None else groups[inside]):
            text += f" ({interval.low:.3f} to {interval.high:.3f})"
    return text


def _lines(
    found: Calibration, names: Sequence[str], reached: Sequence[str], few: Sequence[str]
) -> list[str]:
    """A line for each label: temperature, threshold, and what it reaches with its interval.

    Before them, one for each label without a fitted temperature. What the thresholds reach is
    ``reached``; the intervals of the labels ``few`` are of few groups.
    """
    width = max(len(name) for name in names)
    lines = [
        f"warning: the temperature of the label {name} stays 1: {problem}"
        for name, problem in found.note.get("no_temperature", {}).items()
    ]
    for k, (name, temperature) in enumerate(zip(names, found.temperatures, strict=True)):
        text = f"{name:<{width}}  temperature {temperature:.4f}"
        if found.points:
            text += f"  threshold {threshold_text(found.points[k].threshold, 'f')}{reached[k]}"
        lines.append(text)
    if found.points:
        over = f" over {found.note['groups']} groups" if "groups" in found.note else ""
        lines.append(
            f"operating point {found.rule}; measured on the images that it was chosen on, 95 % "
            f"intervals{over}"
        )
        one = found.note.get("groups") == 1  # no interval of it is too narrow: there is none
        if note := few_groups_note(1) if one else few_positives_note(few):
            lines.append(note)
    return lines
