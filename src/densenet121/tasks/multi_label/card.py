"""The part of a model card about several labels per image."""

from collections.abc import Mapping
from typing import Any

from densenet121.metrics.bootstrap import few_groups_note, few_positives_note
from densenet121.metrics.decisions import threshold_text
from densenet121.metrics.tables import means_note
from densenet121.pages.markup import number
from densenet121.tasks.subgroups import subgroup_table
from densenet121.tasks.values import CardPart, CardTable, Results
from densenet121.utils.errors import some
from densenet121.utils.plural import plural

_SHARES = ("sensitivity", "specificity", "ppv", "npv")


def card(results: Results) -> CardPart:
    """See ``Task.card``."""
    score = results.scores[0]
    found, labels = score.metrics, score.metrics["labels"]
    left_out = found["macro"]["left_out"]
    means = {
        "roc_auc": ("AUROC, mean over labels", "auroc"),
        "average_precision": ("average precision, mean over labels", "average_precision"),
    }
    rows = [[name, _number(found[key]), _ends(found["macro"], key)] for name, key in means.values()]
    rows.append(["loss (cross-entropy of a label)", number(score.loss, ".4f"), ""])
    text = f"On {plural(found['total'], 'image')}. {_intervals(found)}"
    if left_out:
        text += f" Left out of the means, because they are undefined: {some(left_out, 20)}."
    tables = [CardTable("Metrics", text, ("metric", "value", "95 % interval"), rows)]
    tables += [_labels(labels), *_points(labels)]
    if subgroups := subgroup_table(found.get("subgroups", ())):
        tables.append(subgroups)
    metrics = {
        kind: (name, found[key]) for kind, (name, key) in means.items() if found[key] is not None
    }
    return CardPart(metrics, tables)


def _intervals(found: Mapping[str, Any]) -> str:
    groups = found.get("n_groups")
    if groups is None:
        text = "Intervals are over images; several images of one patient make them too narrow."
        note = means_note(found)
    else:
        text = f"Intervals are over {groups} groups, such as patients."
        note = few_positives_note(found.get("few_groups", ())) if groups > 1 else ""
        note = note or few_groups_note(groups)
    return f"{text} {note[0].upper()}{note[1:]}." if note else text


def _labels(labels: Mapping[str, Any]) -> CardTable:
    counts = ("n_positive", "n_negative", "n_unknown")
    rows = [
        [
            name,
            *(str(one[count]) for count in counts),
            _number(one["auroc"]),
            _ends(one, "auroc"),
            *(_number(one[metric]) for metric in ("average_precision", "brier", "ece")),
        ]
        for name, one in labels.items()
    ]
    head = (
        *("label", "positive", "negative", "unknown", "AUROC", "95 % interval"),
        *("average precision", "Brier score", "calibration error"),
    )
    return CardTable("Results per label", "", head, rows)


def _points(labels: Mapping[str, Any]) -> list[CardTable]:
    rows = [
        [
            name,
            threshold_text(one["threshold"]),
            *(f"{_number(one[s])} {_ends(one, s)}" for s in _SHARES),
        ]
        for name, one in labels.items()
        if "threshold" in one
    ]
    if not rows:
        return []
    text = "An image is positive from the threshold on; shares with 95 % intervals."
    head = ("label", "threshold", "sensitivity", "specificity", "PPV", "NPV")
    return [CardTable("Operating points", text, head, rows)]


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _ends(found: Mapping[str, Any], name: str) -> str:
    ends = found.get(f"{name}_ci")
    return f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else ""
