"""The task's part of the report: means, curves, a table of labels, the most confident errors."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from densenet121.metrics.bootstrap import few_groups_note, few_positives_note
from densenet121.metrics.decisions import threshold_text
from densenet121.metrics.tables import means_note
from densenet121.pages.markup import (
    card,
    escape,
    image,
    mapping,
    number,
    section,
    table,
    with_interval,
)
from densenet121.pages.plotting import plot
from densenet121.pages.thumbnails import thumbnail
from densenet121.tasks.curves import MOST_CURVES, LabelCurve, curves
from densenet121.tasks.multi_label.answers import Row
from densenet121.tasks.subgroups import subgroup_section
from densenet121.tasks.values import (
    AveragedValidation,
    CheckpointScore,
    Curve,
    ReportPart,
    Results,
    Validation,
)
from densenet121.utils.errors import some
from densenet121.utils.plural import plural
from densenet121.utils.rounding import percent

ERRORS_SHOWN = 12


def report(results: Results) -> ReportPart:
    """See ``Task.report``."""
    score = _score(results)
    labels: Mapping[str, Any] = score.metrics["labels"] if score else {}
    drawn = _curve_figure(results.predictions, labels)
    sections = [_checkpoints(results.scores)] if len(results.scores) > 1 else []
    if score and labels:
        sections += [_labels(labels, score.metrics), _operating_points(labels, results.calibration)]
        sections.append(subgroup_section(score.metrics))
    if drawn:
        sections.append(_curves(drawn, labels))
    sections.append(_errors(results))
    return ReportPart(
        cards=_cards(score, len(results.scores)) if score else [],
        curves_title="Mean over the labels",
        curves=_validation_curves(results),
        sections=[text for text in sections if text],
        figures={"label_curves": drawn},
    )


def _score(results: Results) -> CheckpointScore | None:
    """The score for the headline: eval.json, else the last validation."""
    if results.scores:
        return max(results.scores, key=lambda score: _or(score.metrics["auroc"], -1.0))
    if not results.validations:
        return None
    last = results.validations[-1]
    return CheckpointScore(f"after epoch {last.epoch + 1}", "", last.loss, last.metrics)


def _validation_curves(results: Results) -> list[Curve]:
    def values(rows: Sequence[Validation | AveragedValidation], name: str) -> list[float]:
        return [_or(row.metrics[name], math.nan) for row in rows]

    found = [
        Curve("AUROC", values(results.validations, "auroc")),
        Curve("average precision", values(results.validations, "average_precision")),
    ]
    if results.averaged and len(results.averaged) == len(results.validations):
        found.append(Curve("AUROC, averaged weights", values(results.averaged, "auroc")))
    return found


def _cards(score: CheckpointScore, of: int) -> list[str]:
    """The cards of a score, which is the best of so many."""
    found = score.metrics
    left_out = found["macro"]["left_out"]
    defined = (
        f"of {len(found['labels']) - len(left_out)} of {plural(len(found['labels']), 'label')}"
    )
    ends = found["macro"].get("auroc_ci")
    return [
        card(
            _shown(found["auroc"]),
            "Mean AUROC",
            defined,
            f"95 % interval {ends[0]:.4f} to {ends[1]:.4f}" if ends else "",
            f"left out: {some(left_out, 5)}" if left_out else "",
            (f"best of {of}: " if of > 1 else "") + Path(score.checkpoint).name,
            main=True,
        ),
        card(_shown(found["average_precision"]), "Mean average precision", defined),
        card(number(score.loss, ".4f"), "Loss", "cross-entropy of a label, same images"),
    ]


def _labels(labels: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    groups, rows = metrics.get("n_groups"), []
    for name, found in labels.items():
        ends = found["auroc_ci"]
        rows.append(
            (
                name,
                found["n_positive"],
                found["n_negative"],
                found["n_unknown"],
                _shown(found["auroc"]),
                f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else "-",
                _shown(found["average_precision"]),
                _shown(found["brier"]),
                _shown(found["ece"]),
            )
        )
    head = (
        *("label", "positive", "negative", "unknown", "AUROC", "95 % interval"),
        *("average precision", "Brier score", "calibration error"),
    )
    interval = (
        "Its interval is DeLong's, over images; several images of one patient make it too narrow "
        "(densenet121 eval and study have intervals over patients)."
        if groups is None
        else f"Its interval is over {groups} groups, such as patients (bootstrap)."
    )
    few = few_positives_note(metrics.get("few_groups", ())) if (groups or 0) > 1 else ""
    if note := few or few_groups_note(groups) or means_note(metrics):
        interval += f" But {note}."
    text = (
        "AUROC: the probability that a positive image has the higher score than a negative one. "
        f"{interval} Average precision of a guess is the share of positive images."
    )
    return section("Labels", text, table(head, rows, texts=1))


def _operating_points(labels: Mapping[str, Any], calibration: Mapping[str, Any]) -> str:
    """What the thresholds reach; empty without operating points."""
    shares = ("sensitivity", "specificity", "ppv", "npv")
    rows = [
        (
            name,
            threshold_text(found["threshold"]),
            *(with_interval(found, share) for share in shares),
        )
        for name, found in labels.items()
        if "threshold" in found
    ]
    if not rows:
        return ""
    head = ("label", "threshold", "sensitivity", "specificity", "PPV", "NPV")
    text = "An image is positive if its probability is at least the threshold; 95 % intervals."
    if chosen := _chosen(calibration):
        text += f" {chosen}"
    return section("Operating points", text, table(head, rows, texts=1))


def _chosen(calibration: Mapping[str, Any]) -> str:
    """By what rule and on which images the thresholds were chosen, as far as that is known."""
    note = mapping(calibration.get("note"))
    rule, images, groups = calibration.get("rule"), note.get("pictures"), note.get("groups")
    if not (isinstance(rule, str) and rule and isinstance(images, int)):
        return ""
    of = f" of {plural(groups, 'group')}" if isinstance(groups, int) else ""
    return f"The thresholds were chosen by {rule} on {plural(images, 'image')}{of} of calibrate."


def _curve_figure(rows: Sequence[Row], labels: Mapping[str, Any]) -> bytes | None:
    """Curves of the labels that have both kinds of images, those with most positives first."""
    if not rows:
        return None
    shown = sorted(
        (name for name, found in labels.items() if found["auroc"] is not None),
        key=lambda name: -labels[name]["n_positive"],
    )[:MOST_CURVES]
    drawn = {}
    for name in shown:
        if name not in rows[0].targets:
            continue
        truth = np.array([row.targets[name] for row in rows])
        shares = np.array([row.probabilities[name] for row in rows])
        known = ~np.isnan(truth)
        threshold = labels[name].get("threshold")
        drawn[name] = LabelCurve(truth[known], shares[known], threshold)
    return curves(drawn) if drawn else None


def _curves(figure: bytes, labels: Mapping[str, Any]) -> str:
    decided = any("threshold" in found for found in labels.values())
    texts = [
        f"The {MOST_CURVES} labels with the most positive images."
        if len(labels) > MOST_CURVES
        else "",
        "A guess follows the dotted diagonal of the ROC curves; its precision is the share of "
        "positive images.",
        "" if decided else "densenet121 calibrate can choose a threshold for each label.",
    ]
    text = " ".join(filter(None, texts))
    return section("Curves of the labels", text, plot(figure, "ROC and precision-recall curves"))


def _checkpoints(scores: Sequence[CheckpointScore]) -> str:
    rows = [
        (
            score.checkpoint,
            _shown(score.metrics["auroc"]),
            _shown(score.metrics["average_precision"]),
            number(score.loss, ".4f"),
        )
        for score in scores
    ]
    head = ("checkpoint", "mean AUROC", "mean average precision", "loss")
    return section("Checkpoints", "", table(head, rows, texts=1))


def _errors(results: Results) -> str:
    """The cells with the largest distance between label and probability, one for each image."""
    worst = []
    for row in results.predictions:
        gaps = {
            name: abs(value - row.probabilities[name])
            for name, value in row.targets.items()
            if not math.isnan(value)
        }
        if gaps and max(gaps.values()) > 0.5:
            name = max(gaps, key=lambda one: gaps[one])
            worst.append((gaps[name], name, row))
    if not worst:
        return ""
    shown = sorted(worst, key=lambda one: (-one[0], one[2].path))[:ERRORS_SHOWN]
    maps = [results.error_map(row.path) for _, _, row in shown]
    text = (
        f"{len(shown)} of {plural(len(worst), 'image')} whose label and probability are more than "
        "one half apart."
    )
    if any(maps):
        text += " The map below each image shows the evidence for the named label."
    figures = "\n".join(
        _error(name, row, results, drawn) for (_, name, row), drawn in zip(shown, maps, strict=True)
    )
    return section("Most confident errors", text, f'<div class="errors">{figures}</div>')


def _error(name: str, row: Row, results: Results, drawn: bytes | None) -> str:
    jpeg, reason = thumbnail(results.data_dir, row.path, results.decode, results.listed)
    shown = image(jpeg, "jpeg", row.path) if jpeg else escape(reason)
    if drawn:
        shown += f'</div><div class="image">{image(drawn, "jpeg", f"map of {row.path}")}'
    truth = "positive" if row.targets[name] == 1 else "negative"
    return (
        f'<figure><div class="image">{shown}</div><figcaption>'
        f'<span class="wrong">{escape(name)} {escape(percent(row.probabilities[name]))}</span>'
        f"<span>is {truth}</span>"
        f'<span class="path">{escape(row.path)}</span></figcaption></figure>'
    )


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
