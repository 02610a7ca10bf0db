"""The report of a classifier: accuracy, confusion, classes, confidence, the worst errors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from densenet121.metrics.bootstrap import few_groups_note
from densenet121.pages.markup import (
    Share,
    card,
    escape,
    image,
    number,
    section,
    table,
)
from densenet121.pages.plotting import plot
from densenet121.pages.thumbnails import thumbnail
from densenet121.tasks.single_label import plots
from densenet121.tasks.single_label.calibration import Reliability, reliability, with_temperature
from densenet121.tasks.single_label.each_class import metrics_of_rows
from densenet121.tasks.single_label.each_class_page import auroc_card, each_class_section
from densenet121.tasks.single_label.intervals import interval_of, kappa_of
from densenet121.tasks.single_label.predictions import Row
from densenet121.tasks.single_label.scores import (
    ClassScore,
    Comparison,
    compare,
    never_predicted,
)
from densenet121.tasks.subgroups import subgroup_section
from densenet121.tasks.values import (
    AveragedValidation,
    CheckpointScore,
    Curve,
    Metrics,
    ReportPart,
    Results,
    Validation,
)
from densenet121.utils.plural import plural
from densenet121.utils.rounding import four_digits, percent

ERRORS_SHOWN = 24
_PAIRS = 20
_CLASSES_SHOWN = 50  # with more, the 20 weakest are shown and the others are collapsed


def report(results: Results) -> ReportPart:
    """The part of the report about classes."""
    sections = [_checkpoints(results.scores)] if len(results.scores) > 1 else []
    figures: dict[str, bytes | None] = dict.fromkeys(("confusion", "reliability", "class_curves"))
    classes = _each_class(results)
    if results.predictions:
        comparison = compare(results.predictions, results.class_names)
        confidence = _reliability(results.predictions)
        confusion, diagram = plots.confusion(comparison), plots.reliability(confidence)
        figures |= {"confusion": confusion, "reliability": diagram}
        each = ""
        if classes is not None:
            groups = results.scores[0].metrics.get("n_groups") if results.scores else None
            each, figures["class_curves"] = each_class_section(classes, results.predictions, groups)
        sections += [
            _confusion(comparison, confusion),
            _classes(comparison, results.scores),
            each,
            subgroup_section(results.scores[0].metrics) if len(results.scores) == 1 else "",
            _confidence(confidence, diagram, results.calibration),
            _errors(results),
        ]
    return ReportPart(
        cards=_cards(results, classes),
        curves_title="Validation accuracy, %",
        curves=_curves(results),
        sections=[text for text in sections if text],
        figures=figures,
    )


def _curves(results: Results) -> list[Curve]:
    ks = (1, 5) if _has_top5(results) else (1,)
    plain = [Curve(f"top-{k}", _shares(results.validations, k)) for k in ks]
    # A run that was resumed may lack some; the curves share their epochs.
    if not results.averaged or len(results.averaged) != len(results.validations):
        return plain
    return [*plain, Curve("top-1, averaged weights", _shares(results.averaged, 1))]


def _shares(validations: Sequence[Validation | AveragedValidation], k: int) -> list[float]:
    return [
        100 * row.metrics[f"top{k}_correct"] / max(row.metrics["total"], 1) for row in validations
    ]


def _has_top5(results: Results) -> bool:
    """Whether top-5 is informative: with five classes or fewer it is always 100 %."""
    return not results.class_names or len(results.class_names) > 5


def _each_class(results: Results) -> Metrics | None:
    """Each class against the others, of eval.json or of the rows of predictions.csv."""
    if len(results.scores) > 1:
        return None
    found = results.scores[0].metrics if results.scores else {}
    if "labels" in found:
        return found
    return metrics_of_rows(results.predictions, results.class_names)


def _cards(results: Results, classes: Metrics | None) -> list[str]:
    score, source = _best_score(results)
    if score is None:
        return []
    top1, top5, total = (score.metrics[name] for name in ("top1_correct", "top5_correct", "total"))
    low, high = interval_of(score.metrics, 1)
    groups = score.metrics.get("n_groups")
    over = "" if groups is None else f", over {plural(groups, 'group')}"
    cards = [
        card(
            percent(top1 / max(total, 1)),
            "Top-1 accuracy",
            f"{top1} of {total}",
            f"95 % interval {100 * low:.2f} to {100 * high:.2f} %{over}",
            few_groups_note(groups),
            source,
            main=True,
        )
    ]
    if _has_top5(results):
        cards.append(card(percent(top5 / max(total, 1)), "Top-5 accuracy", f"{top5} of {total}"))
    cards += auroc_card(score.metrics, classes)
    return [*cards, card(number(score.loss, ".4f"), "Loss", "cross-entropy, same images")]


def _best_score(results: Results) -> tuple[CheckpointScore | None, str]:
    """The score for the headline and its source: eval.json, else the last validation."""
    if results.scores:
        best = max(results.scores, key=lambda score: _share(score.metrics))
        name = Path(best.checkpoint).name
        several = f"best of {len(results.scores)}: " if len(results.scores) > 1 else ""
        return best, several + name
    if not results.validations:
        return None, ""
    last = results.validations[-1]
    best_row = max(results.validations, key=lambda row: _share(row.metrics))
    source = f"after epoch {last.epoch + 1}"
    if best_row.metrics["top1_correct"] > last.metrics["top1_correct"]:
        source += f"; best {percent(_share(best_row.metrics))} after epoch {best_row.epoch + 1}"
    return CheckpointScore("", "", last.loss, last.metrics), source


def _share(metrics: dict[str, int]) -> float:
    return metrics["top1_correct"] / max(metrics["total"], 1)


def _reliability(rows: Sequence[Row]) -> Reliability:
    confidence = np.array([row.probability for row in rows])
    return reliability(confidence, np.array([row.correct for row in rows]))


def _checkpoints(scores: Sequence[CheckpointScore]) -> str:
    rows: list[tuple[str | int | Share, ...]] = []
    has_auroc = any("auroc" in score.metrics for score in scores)  # not of an earlier version
    for score in scores:
        found = score.metrics
        low, high = interval_of(found, 1)
        total = max(found["total"], 1)
        rows.append(
            (
                score.checkpoint,
                f"{found['top1_correct']} of {found['total']}",
                Share(found["top1_correct"] / total),
                f"{100 * low:.2f} to {100 * high:.2f} %",
                Share(found["top5_correct"] / total),
                *([four_digits(found.get("auroc"))] if has_auroc else []),
                number(score.loss, ".4f"),
            )
        )
    auroc = ["AUROC, mean"] if has_auroc else []
    head = ("checkpoint", "correct", "top-1", "95 % interval", "top-5", *auroc, "loss")
    return section("Checkpoints", "", table(head, rows, texts=1))


def _confusion(comparison: Comparison, figure: bytes) -> str:
    text = "Rows are labels, columns are predictions; blue is correct, orange is wrong."
    if len(comparison.names) > plots.CELLS_WITH_NAMES:
        text += " The axes show class numbers; the table of classes has the names."
    confused = comparison.confused
    if not confused:
        return section(
            "Confusion",
            text,
            plot(figure, "Confusion matrix"),
            "<p>Every image was classified correctly.</p>",
        )
    shown = confused[:_PAIRS]
    title = f"{len(shown)} most confused pairs of {len(confused)}"
    rows = [
        (
            comparison.names[pair.label],
            comparison.names[pair.predicted],
            pair.images,
            percent(pair.images / int(comparison.support[pair.label])),
        )
        for pair in shown
    ]
    head = ("label", "predicted", "images", "share of the label's images")
    return section(
        "Confusion",
        text,
        plot(figure, "Confusion matrix"),
        f"<h3>{escape(title)}</h3>",
        table(head, rows, texts=2),
    )


def _classes(comparison: Comparison, scores: Sequence[CheckpointScore]) -> str:
    classes = [one for one in comparison.classes if one.support]
    absent = len(comparison.classes) - len(classes)
    parts = ("precision", "recall", "f1")
    means = [sum(getattr(one, part) for one in classes) / len(classes) for part in parts]
    text = "Mean over classes: precision {}, recall {}, F1 {}.".format(*map(percent, means))
    if absent:
        text += (
            f" {absent} of {len(comparison.classes)} classes have no images and are not counted."
        )
    kappa = kappa_of(scores[0].metrics, len(comparison.names)) if len(scores) == 1 else None
    if kappa is not None:
        text += f" {kappa[0]}: {kappa[1]:.4f}."
    if never := never_predicted(classes):
        text += f" {never}"
    if len(comparison.classes) <= _CLASSES_SHOWN:
        return section("Classes", text, _class_table(comparison.classes))
    weakest = sorted(classes, key=lambda one: (one.f1, one.number))[:20]
    everything = _class_table(comparison.classes)
    return section(
        "Classes",
        text,
        f"<h3>The {len(weakest)} classes with the lowest F1</h3>",
        _class_table(weakest),
        f"<details><summary>All {len(comparison.classes)} classes</summary>{everything}</details>",
    )


def _class_table(classes: Sequence[ClassScore]) -> str:
    rows = [(one.name, one.number, *one.shown(Share), one.support) for one in classes]
    return table(("class", "number", "precision", "recall", "F1", "images"), rows, texts=1)


def _confidence(found: Reliability, figure: bytes, calibration: Mapping[str, Any]) -> str:
    total = int(found.counts.sum())
    temperature, after = with_temperature(calibration)
    calibrated = temperature is not None
    text = (
        f"Expected calibration error {percent(found.ece)}"
        f"{f', before the temperature {temperature:.4g} of these weights' if calibrated else ''}: "
        "the mean difference between the "
        "probability of the predicted class and the share of correct answers, over "
        f"{len(found.counts)} bins weighted by their images, for {plural(total, 'image')}. "
        "If bars are below the dashed line, the network is too confident"
    )
    if not calibrated:
        text += "; densenet121 calibrate corrects that."
    else:
        text += " without the temperature, with which predict answers."
    if after is not None:
        text += (
            f" With it, calibrate measured {percent(after.error)} on "
            f"{plural(after.images, 'held-out image')} not used to fit it."
        )
    return section("Confidence", text, plot(figure, "Reliability diagram"))


def _errors(results: Results) -> str:
    wrong = [row for row in results.predictions if not row.correct]
    if not wrong:
        return ""
    shown = sorted(wrong, key=lambda row: (-row.probability, row.path))[:ERRORS_SHOWN]
    maps = [results.error_map(row.path) for row in shown]
    text = f"{len(shown)} of {plural(len(wrong), 'error')}, with the highest probability first."
    if any(maps):
        text += " The map below each image shows the evidence for the predicted class."
    figures = "\n".join(_error(row, results, drawn) for row, drawn in zip(shown, maps, strict=True))
    return section("Most confident errors", text, f'<div class="errors">{figures}</div>')


def _error(row: Row, results: Results, drawn: bytes | None) -> str:
    jpeg, reason = thumbnail(results.data_dir, row.path, results.decode, results.listed)
    shown = image(jpeg, "jpeg", row.path) if jpeg else escape(reason)
    if drawn:
        shown += f'</div><div class="image">{image(drawn, "jpeg", f"map of {row.path}")}'
    return (
        f'<figure><div class="image">{shown}</div><figcaption>'
        f'<span class="wrong">{escape(row.predicted)} {escape(percent(row.probability))}</span>'
        f"<span>label {escape(row.label)}, rank {row.rank}</span>"
        f'<span class="path">{escape(row.path)}</span></figcaption></figure>'
    )
