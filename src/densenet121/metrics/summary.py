"""All metrics of a table of probabilities: per label, macro, with intervals, as JSON values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.metrics.bootstrap import (
    LabelResampler,
    labels_of_few_groups,
    percentile_interval,
    resampled,
)
from densenet121.metrics.decisions import Decisions, decisions_of, wilson_interval
from densenet121.metrics.prevalence import (
    METHOD,
    PREDICTIVE,
    predictive_intervals,
    predictive_values,
)
from densenet121.metrics.probabilities import brier, calibration_error, log_loss
from densenet121.metrics.ranking import auroc, average_precision, delong_interval
from densenet121.metrics.values import Counts, Floats, Interval

# In the order in which they are written.
SCORES = ("auroc", "average_precision", "brier", "log_loss", "ece")
SHARES = ("sensitivity", "specificity", "ppv", "npv")
MOST_SUBGROUPS = 50  # values of a column that are compared; more of them are likely ids
Calls = NDArray[np.bool_]
_MACRO = (*SCORES, *SHARES, "f1", "balanced_accuracy")


def summarise(
    truth: Floats,
    probability: Floats,
    names: Sequence[str],
    *,
    group: Counts | None = None,
    thresholds: Mapping[str, float] | None = None,
    prevalences: Mapping[str, float] | None = None,
    called: Calls | None = None,
    least_positives: int = 1,
    resamples: int = 2000,
    seed: int = 1,
    scores: Floats | None = None,
) -> dict[str, Any]:
    """Every metric of every label and their macro means.

    Without groups the interval of an AUROC is DeLong's, that of a share Wilson's, and the others
    come from a bootstrap over images. With groups all come from a bootstrap over groups, since
    images of one patient are not independent, but that of a share of 0 or 1, which is Wilson's.

    Args:
        truth: ``(n, L)``: 1, 0 or nan, which is unknown: left out for that label, and counted.
        probability: ``(n, L)``.
        names: the L labels.
        group: ``(n,)`` number of each image's group, 0, 1, 2 ...
        thresholds: label to the probability from which on an image is called positive; labels
            without one have no metrics of decisions.
        prevalences: label to the share of positives at which PPV and NPV are wanted too, of labels
            with a threshold.
        called: ``(n, L)`` whether an image is called positive, in place of thresholds.
        least_positives: labels with fewer positives are left out of the macro means.
        resamples: resamples of the bootstrap; 0 leaves out the intervals that need it.
        seed: seed of the bootstrap.
        scores: ``(n, L)`` what is ranked, as of ``class_scores``; None: the probabilities.

    Returns:
        JSON values, undefined ones None: ``labels`` by name, ``macro``, ``intervals`` (how they
        were made), ``n_images``, ``n_groups``, and with groups ``few_groups``.
    """
    thresholds, prevalences = thresholds or {}, prevalences or {}
    images, scores = len(truth), probability if scores is None else scores
    units = np.arange(images) if group is None else group
    groups = int(units.max()) + 1 if images else 0
    at, shares = ([of.get(name) for name in names] for of in (thresholds, prevalences))
    calls = _calls(probability, at) if called is None else called.T
    columns = list(zip(truth.T, probability.T, scores.T, calls, strict=True))
    limits = zip(names, columns, at, shares, strict=True)
    labels = {name: _of_label(*column, *limit) for name, column, *limit in limits}
    drawn = _drawn(columns, units, groups, shares, resamples, seed)
    for row, name in enumerate(names):
        own = {metric: values[row] for metric, values in drawn.items()}
        _add_intervals(labels[name], *columns[row], own, group)
    return {
        "n_images": images,
        "n_groups": None if group is None else groups,
        **({} if group is None else {"few_groups": labels_of_few_groups(truth, names, group)}),
        "intervals": _methods(group is not None, bool(prevalences), resamples, seed),
        "labels": labels,
        "macro": _macro(labels, drawn, least_positives),
    }


def _calls(probability: Floats, thresholds: Sequence[float | None]) -> list[Calls | None]:
    """Which images each threshold calls positive."""
    return [
        None if threshold is None else own >= threshold
        for own, threshold in zip(probability.T, thresholds, strict=True)
    ]


def _drawn(
    columns: Sequence[tuple[Floats, Floats, Floats, Calls | None]],
    units: Counts,
    groups: int,
    prevalences: Sequence[float | None],
    resamples: int,
    seed: int,
) -> dict[str, Floats]:
    """The metrics in each resample of each label: truth, probability, score and calls."""
    if not resamples or groups < 2:
        return {}
    labels = [
        LabelResampler(truth, probability, units, groups, called, score)
        for truth, probability, score, called in columns
    ]
    found = resampled(labels, len(units), groups, resamples, seed)
    if any(prevalence is not None for prevalence in prevalences):
        shares = np.array([[np.nan if share is None else share] for share in prevalences])
        found |= predictive_values(found["sensitivity"], found["specificity"], shares)
    return found


def _of_label(
    truth: Floats,
    probability: Floats,
    score: Floats,
    called: Calls | None,
    threshold: float | None,
    prevalence: float | None,
) -> dict[str, Any]:
    positive, negative = int((truth == 1).sum()), int((truth == 0).sum())
    found: dict[str, Any] = {
        "n_positive": positive,
        "n_negative": negative,
        "n_unknown": len(truth) - positive - negative,
        "auroc": auroc(truth, score),
        "average_precision": average_precision(truth, score),
        "brier": brier(truth, probability),
        "log_loss": log_loss(truth, probability),
        "ece": calibration_error(truth, probability),
    }
    if called is None:
        return found
    calls = decisions_of(truth, called)
    found |= {} if threshold is None else {"threshold": threshold}
    found |= {**vars(calls), **calls.values}
    if prevalence is not None:
        nan = {name: math.nan if v is None else v for name, v in calls.values.items()}
        at = predictive_values(nan["sensitivity"], nan["specificity"], prevalence)
        found["prevalence"] = prevalence
        found |= {name: None if np.isnan(v) else float(v) for name, v in at.items()}
    return found


def _add_intervals(
    found: dict[str, Any],
    truth: Floats,
    probability: Floats,
    score: Floats,
    called: Calls | None,
    drawn: Mapping[str, Floats],
    group: Counts | None,
) -> None:
    """Insert ``<metric>_ci`` after each metric that has an interval."""
    plain = dict(found)
    found.clear()
    for metric, value in plain.items():
        found[metric] = value
        if metric not in (*_MACRO, *PREDICTIVE) or metric == "ece":
            continue
        interval: Interval | None = None
        if value is None:
            pass
        elif metric == "auroc" and group is None:
            interval = delong_interval(truth, score)
        elif metric in SHARES and (group is None or value in (0.0, 1.0)):
            interval = _wilson(metric, plain, truth, called, group)
        elif metric in PREDICTIVE and (group is None or value in (0.0, 1.0)):
            interval = _at_prevalence(metric, plain, truth, group)
        elif metric in drawn:
            interval = percentile_interval(drawn[metric], of=value)
        found[f"{metric}_ci"] = None if interval is None else list(interval)


def _wilson(
    metric: str, found: Mapping[str, Any], truth: Floats, called: Calls | None, group: Counts | None
) -> Interval | None:
    """Wilson's interval; with groups, at a share of 0 or 1, as if each group were one image.

    There a bootstrap gives no width: no resample has another share.
    """
    calls = Decisions(found["tp"], found["fp"], found["tn"], found["fn"])
    part, whole = calls.shares[metric]
    if group is not None and called is not None:
        inside = {
            "sensitivity": truth == 1,
            "specificity": truth == 0,
            "ppv": called & ~np.isnan(truth),
            "npv": ~called & ~np.isnan(truth),
        }[metric]
        part, whole = part and len(np.unique(group[inside])), len(np.unique(group[inside]))
    return wilson_interval(part, whole)


def _at_prevalence(
    metric: str, found: Mapping[str, Any], truth: Floats, group: Counts | None
) -> Interval | None:
    """The interval of PPV or NPV at a prevalence; with groups as if each were one image."""
    shares = []
    calls = Decisions(found["tp"], found["fp"], found["tn"], found["fn"])
    for share, kind in (("sensitivity", 1), ("specificity", 0)):
        part, whole = calls.shares[share]
        groups = whole if group is None else len(np.unique(group[truth == kind]))
        shares.append((part * groups / whole, groups))
    return predictive_intervals(shares[0], shares[1], found["prevalence"])[metric]


def _macro(
    labels: Mapping[str, Mapping[str, Any]], drawn: Mapping[str, Floats], least_positives: int
) -> dict[str, Any]:
    """Means over the labels whose AUROC is defined; a metric that some of them lack says which."""
    inside = [
        name
        for name, found in labels.items()
        if found["auroc"] is not None and found["n_positive"] >= least_positives
    ]
    macro: dict[str, Any] = {
        "n_labels": len(inside),
        "left_out": [name for name in labels if name not in inside],
    }
    lacking: dict[str, list[str]] = {}
    rows = {name: row for row, name in enumerate(labels)}
    for metric in _MACRO:
        if metric not in SCORES and not (inside and all(metric in labels[name] for name in inside)):
            continue  # not every label has a threshold
        own = [name for name in inside if labels[name][metric] is not None]
        if len(own) < len(inside):
            lacking[metric] = [name for name in inside if name not in own]
        macro[metric] = float(np.mean([labels[name][metric] for name in own])) if own else None
        if metric != "ece":
            interval = None
            if own and metric in drawn:
                # A resample in which one of the labels has no value has no mean.
                means = drawn[metric][[rows[name] for name in own]].mean(axis=0)
                interval = percentile_interval(means, of=macro[metric])
            macro[f"{metric}_ci"] = None if interval is None else list(interval)
    return macro | {"also_left_out": lacking}


def _methods(grouped: bool, prevalences: bool, resamples: int, seed: int) -> dict[str, Any]:
    others = f"percentile bootstrap over {'groups' if grouped else 'images'}"
    at = f"{others}, {METHOD} over groups at 0 and 1" if grouped else METHOD
    return {
        "level": 0.95,
        "auroc": others if grouped else "DeLong, logit scale",
        "shares": f"{others}, Wilson over groups at 0 and 1" if grouped else "Wilson",
        **({"at_prevalence": at} if prevalences else {}),
        "others": others,
        "resamples": resamples,
        "seed": seed,
    }
