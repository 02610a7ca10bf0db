"""The report's section on each class against all others: AUROC, curves, sensitivity and others."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from densenet121.metrics.bootstrap import few_groups_note, few_positives_note
from densenet121.metrics.probabilities import class_scores
from densenet121.pages.markup import card, section, table, with_interval
from densenet121.pages.plotting import plot
from densenet121.tasks.curves import MOST_CURVES, LabelCurve, curves
from densenet121.tasks.single_label.predictions import Row
from densenet121.tasks.values import Metrics
from densenet121.utils.errors import some
from densenet121.utils.plural import plural
from densenet121.utils.rounding import four_digits

_SHARES = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV"}

_SCORES = {"brier": "Brier score", "ece": "calibration error"}


def auroc_card(metrics: Metrics, classes: Metrics | None) -> list[str]:
    """The headline AUROC, if it is known.

    Args:
        metrics: of the headline score.
        classes: ``labels`` and ``macro`` of the same images, if they are known.
    """
    if metrics.get("auroc") is None:
        return []
    labels = classes["labels"] if classes else {}
    ends = classes["macro"].get("auroc_ci") if classes else None
    return [
        card(
            four_digits(metrics["auroc"]),
            "AUROC" if len(labels) == 2 else "Mean AUROC",
            "each class against the others",
            f"95 % interval {ends[0]:.4f} to {ends[1]:.4f}" if ends else "",
        )
    ]


def each_class_section(
    classes: Metrics, rows: Sequence[Row], groups: int | None
) -> tuple[str, bytes | None]:
    """HTML of the section, and the PNG of its curves or None.

    Args:
        classes: ``labels`` and ``macro`` of ``metrics_of_classes``.
        rows: of predictions.csv.
        groups: number of groups that the intervals are over, or None.
    """
    labels = classes["labels"]
    figure = _figure(rows, labels)
    areas = [
        (
            name,
            found["n_positive"],
            with_interval(found, "auroc"),
            with_interval(found, "average_precision"),
            *("-" if found[score] is None else f"{found[score]:.4f}" for score in _SCORES),
        )
        for name, found in labels.items()
    ]
    answers = [
        (name, *(with_interval(found, share) for share in _SHARES))
        for name, found in labels.items()
    ]
    tables = [
        table(("class", "images", "AUROC", "average precision", *_SCORES.values()), areas, texts=1),
        "<h3>Answers</h3>",
        table(("class", *_SHARES.values()), answers, texts=1),
    ]
    drawn = [plot(figure, "ROC and precision-recall curves")] if figure else []
    text = _text(classes, groups, drawn=bool(figure))
    return section("Each class against the others", text, *drawn, *tables), figure


def _text(classes: Metrics, groups: int | None, *, drawn: bool) -> str:
    labels, left_out = classes["labels"], classes["macro"]["left_out"]
    over = "DeLong's (AUROC) and Wilson's, over images; several images of one patient make them "
    over += "too narrow (densenet121 eval has intervals over patients)"
    if groups is not None:
        over = f"over {plural(groups, 'group')}, such as patients (bootstrap)"
    few = few_positives_note(classes.get("few_groups", ())) if (groups or 0) > 1 else ""
    note = few or few_groups_note(groups)
    many = f"The curves are those of the {MOST_CURVES} classes with the most images."
    texts = [
        "AUROC: the probability that an image of the class has a higher probability of it than "
        "another image. Sensitivity, specificity, PPV and NPV are of the predicted class. "
        f"95 % intervals are {over}.",
        f"{note[0].upper()}{note[1:]}." if note else "",
        f"Not in the mean AUROC, undefined: {some(left_out, 20)}." if left_out else "",
        many if drawn and len(labels) > MOST_CURVES else "",
    ]
    return " ".join(filter(None, texts))


def _figure(rows: Sequence[Row], labels: Mapping[str, Any]) -> bytes | None:
    """Curves of the classes that have one, those with most images first."""
    if not rows or any(not row.shares for row in rows):
        return None
    shown = sorted(
        (name for name, found in labels.items() if found["auroc"] is not None),
        key=lambda name: -labels[name]["n_positive"],
    )[:MOST_CURVES]
    names = [name for name in labels if all(name in row.shares for row in rows)]
    shares = class_scores(np.array([[row.shares[name] for name in names] for row in rows]))
    drawn = {
        name: LabelCurve(
            np.array([float(row.label == name) for row in rows]), shares[:, names.index(name)]
        )
        for name in shown
        if name in names
    }
    return curves(drawn) if drawn else None
