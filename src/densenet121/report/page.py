"""The report as one HTML file: no script, nothing loaded from anywhere, readable on paper."""

import contextlib
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from densenet121.report.headline import header, headline
from densenet121.report.markup import (
    Share,
    bullets,
    escape,
    image,
    mapping,
    number,
    percent,
    plural,
    section,
    table,
)
from densenet121.report.plots import CELLS_WITH_NAMES, DPI
from densenet121.report.scores import (
    ClassScore,
    Comparison,
    wilson_interval,
)
from densenet121.report.style import CSS
from densenet121.report.thumbnails import thumbnail
from densenet121.runs.read import Prediction, RunFiles, Score
from densenet121.tasks.single_label.calibration import Reliability
from densenet121.utils.files import error_map

_ERRORS = 24
_PAIRS = 20
_CLASSES_SHOWN = 50  # above it: the 20 weakest, the others folded away
_BAD_SHOWN = 200

# The page may load nothing and run nothing, even if some text got past the escaping.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render(
    run: RunFiles,
    comparison: Comparison | None,
    confidence: Reliability | None,
    figures: Mapping[str, bytes],
) -> str:
    """The page's HTML, from what ``read_run`` found and the figures as PNG."""
    record = run.record or {}
    parts = [header(run, record), headline(run, record)]
    parts.append(bullets("notes", "Good to know", run.notes))
    if len(run.scores) > 1:
        parts.append(_checkpoints(run.scores))
    if "curves" in figures:
        plot = _plot(figures["curves"], "Curves of the run")
        parts.append(section("Curves", _curves_text(run), plot))
    if comparison and confidence:
        parts.append(_confusion(comparison, figures["confusion"]))
        parts.append(_classes(comparison))
        parts.append(_confidence(confidence, figures["reliability"]))
        parts.append(_errors(run.predictions, run.data_dir, run.folder))
    if run.bad_images:
        parts.append(_bad_images(run.bad_images))
    if run.record or len(run.scores) == 1:
        parts.append(_settings(run, record))
    parts.append(bullets("missing", "Not on this page", run.missing))
    title = escape(f"{run.folder.resolve().name}: densenet121 report")
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _curves_text(run: RunFiles) -> str:
    train, evals = plural(len(run.train), "training row"), plural(len(run.evals), "evaluation")
    return f"From metrics.jsonl: {train} and {evals}."


def _checkpoints(scores: Sequence[Score]) -> str:
    rows = []
    for score in scores:
        low, high = wilson_interval(score.top1_correct, score.total)
        total = max(score.total, 1)
        rows.append(
            (
                score.checkpoint,
                f"{score.top1_correct} of {score.total}",
                Share(score.top1_correct / total),
                f"{100 * low:.2f} to {100 * high:.2f} %",
                Share(score.top5_correct / total),
                number(score.loss, ".4f"),
            )
        )
    head = ("checkpoint", "right", "top-1", "95 % interval", "top-5", "loss")
    return section("Checkpoints", "", table(head, rows, texts=1))


def _confusion(comparison: Comparison, figure: bytes) -> str:
    text = "Rows are labels, columns are predictions; blue is right, orange is wrong."
    if len(comparison.names) > CELLS_WITH_NAMES:
        text += " The axes give class numbers; the table of classes has their names."
    confused = comparison.confused
    if not confused:
        return section(
            "Confusion",
            text,
            _plot(figure, "Confusion matrix"),
            "<p>Every image was classified rightly.</p>",
        )
    shown = confused[:_PAIRS]
    title = f"{len(shown)} most confused pairs, of {len(confused)}"
    rows = [
        (
            comparison.names[pair.label],
            comparison.names[pair.predicted],
            pair.images,
            percent(pair.images / int(comparison.support[pair.label])),
        )
        for pair in shown
    ]
    head = ("label", "predicted", "images", "share of the label")
    return section(
        "Confusion",
        text,
        _plot(figure, "Confusion matrix"),
        f"<h3>{escape(title)}</h3>",
        table(head, rows, texts=2),
    )


def _classes(comparison: Comparison) -> str:
    classes = [one for one in comparison.classes if one.support]
    absent = len(comparison.classes) - len(classes)
    parts = ("precision", "recall", "f1")
    means = [sum(getattr(one, part) for one in classes) / len(classes) for part in parts]
    text = "Mean of the classes: precision {}, recall {}, F1 {}.".format(*map(percent, means))
    if absent:
        text += f" Of {len(comparison.classes)} classes {absent} have no image and do not count."
    if len(comparison.classes) <= _CLASSES_SHOWN:
        return section("Classes", text, _class_table(comparison.classes))
    weakest = sorted(classes, key=lambda one: (one.f1, one.number))[:20]
    everything = _class_table(comparison.classes)
    return section(
        "Classes",
        text,
        f"<h3>The {len(weakest)} classes of lowest F1</h3>",
        _class_table(weakest),
        f"<details><summary>All {len(comparison.classes)} classes</summary>{everything}</details>",
    )


def _class_table(classes: Sequence[ClassScore]) -> str:
    rows = [
        (one.name, one.number, Share(one.precision), Share(one.recall), Share(one.f1), one.support)
        for one in classes
    ]
    return table(("class", "number", "precision", "recall", "F1", "images"), rows, texts=1)


def _confidence(found: Reliability, figure: bytes) -> str:
    total = int(found.counts.sum())
    text = (
        f"Expected calibration error {percent(found.ece)}: how far the probability of the "
        "predicted class is from the share of right answers, the mean over "
        f"{len(found.counts)} bins weighted by their images, of {plural(total, 'image')}. "
        "Bars below the dashed line: the network is surer than it may be; densenet121 calibrate "
        "mends that."
    )
    return section("Confidence", text, _plot(figure, "Reliability diagram"))


def _errors(predictions: Sequence[Prediction], data_dir: Path | None, folder: Path) -> str:
    wrong = [one for one in predictions if one.label != one.predicted]
    if not wrong:
        return ""
    shown = sorted(wrong, key=lambda one: (-one.probability, one.path))[:_ERRORS]
    text = (
        f"{len(shown)} of {plural(len(wrong), 'error')}, those with the highest probability first."
    )
    if any(error_map(folder, one.path).is_file() for one in shown):
        text += " Below each, where the network saw the class that it answered."
    figures = "\n".join(_error(one, data_dir, folder) for one in shown)
    return section("Most confident errors", text, f'<div class="errors">{figures}</div>')


def _error(one: Prediction, data_dir: Path | None, folder: Path) -> str:
    jpeg, reason = thumbnail(data_dir, one.path)
    shown = image(jpeg, "jpeg", one.path) if jpeg else escape(reason)
    with contextlib.suppress(OSError):
        seen = image(error_map(folder, one.path).read_bytes(), "jpeg", f"map of {one.path}")
        shown += f'</div><div class="image">{seen}'
    return (
        f'<figure><div class="image">{shown}</div><figcaption>'
        f'<span class="wrong">{escape(one.predicted)} {escape(percent(one.probability))}</span>'
        f"<span>is {escape(one.label)}, ranked {one.rank}</span>"
        f'<span class="path">{escape(one.path)}</span></figcaption></figure>'
    )


def _bad_images(bad: Sequence[tuple[str, str]]) -> str:
    text = f"{plural(len(bad), 'file')} could not be read."
    if len(bad) > _BAD_SHOWN:
        text += f" The first {_BAD_SHOWN} are here, all of them in eval.json."
    return section("Bad images", text, table(("file", "error"), bad[:_BAD_SHOWN], texts=2))


def _settings(run: RunFiles, record: dict[str, Any]) -> str:
    names = ("command", "started", "device", "threads", "git_commit")
    environment = {name.replace("_", " "): record[name] for name in names if name in record}
    for name, version in mapping(record.get("versions")).items():
        environment[f"{name} version"] = version
    for part, facts in mapping(record.get("data")).items():
        environment.update({f"{part} {name}": value for name, value in mapping(facts).items()})
    if len(run.scores) == 1:
        environment |= {"checkpoint": run.scores[0].checkpoint, "digest": run.scores[0].digest}
    columns = [
        f"<div><h3>{title}</h3>{table((), _rows(fields), texts=2)}</div>"
        for title, fields in (
            ("Settings", mapping(record.get("settings"))),
            ("Environment", environment),
        )
        if fields
    ]
    return section("Settings and environment", "", f'<div class="pairs">{"".join(columns)}</div>')


def _rows(fields: dict[str, Any]) -> list[tuple[str, str]]:
    return [(str(name), _value(value)) for name, value in fields.items()]


def _value(value: object) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plot(png: bytes, alt: str) -> str:
    # At its size in inches (96 dots each in CSS), so that it is sharp on a dense screen.
    (width,) = struct.unpack(">I", png[16:20])
    return image(png, "png", alt, f' class="plot" width="{width * 96 // DPI}"')
