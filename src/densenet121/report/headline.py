"""The top of the report: the run's main facts and most important numbers."""

import statistics
from collections.abc import Sequence
from typing import Any

from densenet121.pages.markup import card, escape, mapping
from densenet121.report.training import epochs_done, training_seconds
from densenet121.runs.read import RunFiles
from densenet121.utils.durations import duration


def header(run: RunFiles, record: dict[str, Any]) -> str:
    """The name of the run, and its main facts in one line."""
    data = mapping(record.get("data"))
    train = mapping(data.get("train"))
    facts = [
        f"densenet121 {record['command']}" if record.get("command") else "",
        f"started {record['started']}" if record.get("started") else "",
        f"on {record['device']}" if record.get("device") else "",
        f"{len(run.results.class_names)} {run.task.class_word}" if run.results.class_names else "",
        _trained(run, train),
        _evaluated(run, record),
    ]
    line = escape(" \u00b7 ".join(fact for fact in facts if fact))
    return f"<header><h1>{escape(run.folder.resolve().name)}</h1><p>{line}</p></header>"


def _trained(run: RunFiles, train: dict[str, Any]) -> str:
    """The number of training images, and how many of them no step had."""
    if "pictures" not in train:
        return ""
    bad = run.evaluation.get("bad_training_images")
    unread = f", {bad} of which could not be read" if isinstance(bad, int) and bad else ""
    return f"{train['pictures']} training images{unread}"


def _evaluated(run: RunFiles, record: dict[str, Any]) -> str:
    """The number of evaluated images, and how many of them are in no figure of the page."""
    val = mapping(mapping(record.get("data")).get("val"))
    if "pictures" not in val:
        return ""
    kind = "" if record.get("command") == "eval" else "validation "  # eval takes any images
    text = f"{val['pictures']} {kind}images"
    of = run.evaluation.get("data_fingerprint")
    if run.bad_images and of in (None, val.get("fingerprint")):
        text += f", {len(run.bad_images)} of which could not be read"
    return text


def headline(run: RunFiles, record: dict[str, Any], cards: Sequence[str]) -> str:
    """The task's cards, then epochs, time and speed."""
    more = _training_cards(run, record) if run.train else []
    return f'<div class="cards">{"".join([*cards, *more])}</div>'


def _training_cards(run: RunFiles, record: dict[str, Any]) -> list[str]:
    last = max(run.rows, key=lambda row: (row.epoch, row.step))
    done = epochs_done(run, [last])
    epochs = min(done[0], last.epoch + 1) if done else None
    asked = mapping(record.get("settings")).get("max_epoch")
    cards = [
        card(
            "in the first" if epochs is None else f"{epochs:.1f}".removesuffix(".0"),
            "Epochs",
            f"of {asked}" if asked is not None else "",
            f"{last.step + 1} steps",
        )
    ]
    seconds = training_seconds(run)
    if seconds:
        cards.append(card(duration(seconds), "Training time", "from images/s, without evaluation"))
    speeds = [row.images_per_second for row in run.train if row.images_per_second > 0]
    waits = [row.data_wait for row in run.train if row.data_wait >= 0]
    if speeds:
        wait = f"{100 * sum(waits) / len(waits):.1f} % waiting for data" if waits else ""
        cards.append(card(f"{statistics.median(speeds):.4g}", "Images/s", "median", wait))
    return cards
