"""A classifier's part of a model card."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from densenet121.pages.markup import number, with_interval
from densenet121.tasks.single_label.calibration import reliability, with_temperature
from densenet121.tasks.single_label.each_class import metrics_of_rows
from densenet121.tasks.single_label.intervals import (
    few_notes,
    interval_of,
    kappa_of,
)
from densenet121.tasks.single_label.predictions import Row
from densenet121.tasks.single_label.scores import Comparison, compare, never_predicted
from densenet121.tasks.subgroups import subgroup_table
from densenet121.tasks.values import CardPart, CardTable, Metrics, Results
from densenet121.utils.plural import plural
from densenet121.utils.rounding import four_digits, percent

_PAIRS = 10
_CLASSES_SHOWN = 50  # with more, the weakest of them


def card(results: Results) -> CardPart:
    """See ``Task.card``."""
    score = results.scores[0]
    top1, total = score.metrics["top1_correct"], score.metrics["total"]
    metrics = {"accuracy": ("Top-1 accuracy", top1 / max(total, 1))}
    rows = [["top-1 accuracy", *_share(score.metrics, 1)]]
    if len(results.class_names) > 5:
        rows.append(["top-5 accuracy", *_share(score.metrics, 5)])
    if kappa := kappa_of(score.metrics, len(results.class_names)):
        ends = score.metrics.get("quadratic_kappa_ci")
        rows.append([kappa[0], f"{kappa[1]:.4f}", "{:.4f} to {:.4f}".format(*ends) if ends else ""])
    rows.append(["loss (cross-entropy)", number(score.loss, ".4f"), ""])
    tables: list[CardTable] = []
    classes = score.metrics if "labels" in score.metrics else None
    classes = classes or metrics_of_rows(results.predictions, results.class_names)
    # Of weights whose predictions were not kept the mean alone is known.
    means = classes["macro"] if classes else score.metrics
    if means.get("auroc") is not None:
        name = "AUROC" if len(results.class_names) == 2 else "AUROC, mean over classes"
        rows.append([name, four_digits(means["auroc"]), _ends(means)])
        metrics["roc_auc"] = (name, means["auroc"])
    if results.predictions:
        found = compare(results.predictions, results.class_names)
        seen = [one for one in found.classes if one.support]
        for name, part in (("precision", "precision"), ("recall", "recall"), ("F1", "f1")):
            mean = sum(getattr(one, part) for one in seen) / len(seen)
            rows.append([f"{name}, mean over classes", percent(mean), ""])
            metrics[part] = (f"{name}, mean over classes", mean)
        rows += _calibration_error(results)
        tables = [_classes(found), *_each_class(classes), _confusions(found)]
    if subgroups := subgroup_table(score.metrics.get("subgroups", ())):
        tables.append(subgroups)
    of_auroc = ", that of the AUROC DeLong's" if _ends(means) else ""
    text = f"On {plural(total, 'image')}. The intervals are Wilson's{of_auroc}, over images."
    if "n_groups" in score.metrics:
        text = f"On {plural(total, 'image')}. The intervals are over {_groups(score.metrics)}."
        for note in few_notes(score.metrics):
            text += f" {note[0].upper()}{note[1:]}."
    head = ("metric", "value", "95 % interval")
    return CardPart(metrics, [CardTable("Metrics", text, head, rows), *tables])


def _groups(metrics: Metrics) -> str:
    return plural(metrics["n_groups"], "group")


def _share(metrics: Metrics, k: int) -> list[str]:
    correct, total = metrics[f"top{k}_correct"], metrics["total"]
    low, high = interval_of(metrics, k)
    return [
        f"{percent(correct / max(total, 1))} ({correct} of {total})",
        f"{100 * low:.2f} to {100 * high:.2f} %",
    ]


def _calibration_error(results: Results) -> list[list[str]]:
    """Of the predictions, which are without a temperature, and what calibrate measured with it."""
    name, without = "expected calibration error", percent(_ece(results.predictions))
    temperature, after = with_temperature(results.calibration)
    if temperature is None:
        return [[name, without, ""]]
    rows = [[f"{name} before the temperature {temperature:.4g}", without, ""]]
    if after is not None:
        kept = f"{percent(after.error)} ({plural(after.images, 'held-out image')} of calibrate)"
        rows.append([f"{name} with it", kept, ""])
    return rows


def _ece(rows: Sequence[Row]) -> float:
    confidence = np.array([row.probability for row in rows])
    return reliability(confidence, np.array([row.correct for row in rows])).ece


def _classes(found: Comparison) -> CardTable:
    classes = [one for one in found.classes if one.support]
    text = ""
    if len(classes) > _CLASSES_SHOWN:
        classes = sorted(classes, key=lambda one: (one.f1, one.number))[:_CLASSES_SHOWN]
        text = f"The {_CLASSES_SHOWN} classes with the lowest F1."
    seen = [one for one in found.classes if one.support]
    absent = len(found.classes) - len(seen)
    if absent:
        verb = "has" if absent == 1 else "have"
        text += (
            f" {absent} of {len(found.classes)} classes {verb} no images here and "
            f"{'is' if absent == 1 else 'are'} not in the means."
        )
    text = f"{text} {never_predicted(seen)}"
    rows = [[one.name, *one.shown(percent), str(one.support)] for one in classes]
    return CardTable(
        "Results per class", text.strip(), ("class", "precision", "recall", "F1", "images"), rows
    )


def _each_class(classes: Metrics | None) -> list[CardTable]:
    """Each class against the others, with intervals; the weakest of many."""
    if classes is None:
        return []
    labels, text = classes["labels"], "Decisions are the predicted class; 95 % intervals."
    names = sorted(labels, key=lambda name: labels[name]["auroc"] or 0.0)[:_CLASSES_SHOWN]
    if len(labels) > len(names):
        text += f" The {len(names)} classes with the lowest AUROC."
    shares = ("auroc", "sensitivity", "specificity", "ppv", "npv")
    rows = [
        [name, *(with_interval(labels[name], share) for share in shares)]
        for name in labels
        if name in names
    ]
    head = ("class", "AUROC", "sensitivity", "specificity", "PPV", "NPV")
    return [CardTable("Each class against the others", text, head, rows)]


def _ends(found: Mapping[str, Any]) -> str:
    ends = found.get("auroc_ci")
    return f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else ""


def _confusions(found: Comparison) -> CardTable:
    confused = found.confused
    wrong = sum(pair.images for pair in confused)
    shown = confused[:_PAIRS]
    rows = [
        [
            f"{found.names[pair.label]}, taken for {found.names[pair.predicted]}",
            str(pair.images),
            percent(pair.images / int(found.support[pair.label])),
        ]
        for pair in shown
    ]
    text = f"{plural(wrong, 'error')} in {plural(len(confused), 'pair')} of classes."
    if len(confused) > _PAIRS:
        text += f" The {_PAIRS} most frequent:"
    head = ("label, taken for", "images", "share of the label's images")
    return CardTable("Confusions", text, head, rows)
