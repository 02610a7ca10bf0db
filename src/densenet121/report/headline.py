"""The top of the report: what the run was, and its few numbers that matter most."""

from pathlib import Path
from typing import Any

from densenet121.report.markup import card, escape, mapping, number, percent
from densenet121.report.plots import has_top5
from densenet121.report.scores import steps_per_epoch, training_seconds, wilson_interval
from densenet121.runs.read import RunFiles, Score


def header(run: RunFiles, record: dict[str, Any]) -> str:
    """The run's name and its main facts in one line."""
    data = mapping(record.get("data"))
    train, val = mapping(data.get("train")), mapping(data.get("val"))
    facts = [
        f"densenet121 {record['command']}" if record.get("command") else "",
        f"started {record['started']}" if record.get("started") else "",
        f"on {record['device']}" if record.get("device") else "",
        f"{len(run.class_names)} classes" if run.class_names else "",
        f"{train['pictures']} training images" if "pictures" in train else "",
        f"{val['pictures']} validation images" if "pictures" in val else "",
    ]
    line = escape(" \u00b7 ".join(fact for fact in facts if fact))
    return f"<header><h1>{escape(run.folder.resolve().name)}</h1><p>{line}</p></header>"


def headline(run: RunFiles, record: dict[str, Any]) -> str:
    """The cards: accuracy with its interval, loss, epochs, time, speed."""
    cards = []
    score, source = _best_score(run)
    if score:
        low, high = wilson_interval(score.top1_correct, score.total)
        cards.append(
            card(
                percent(score.top1_correct / max(score.total, 1)),
                "Top-1 accuracy",
                f"{score.top1_correct} of {score.total}",
                f"95 % interval {100 * low:.2f} to {100 * high:.2f} %",
                source,
                main=True,
            )
        )
        if has_top5(run):
            cards.append(
                card(
                    percent(score.top5_correct / max(score.total, 1)),
                    "Top-5 accuracy",
                    f"{score.top5_correct} of {score.total}",
                )
            )
        cards.append(card(number(score.loss, ".4f"), "Loss", "cross-entropy, same images"))
    if run.train:
        cards.extend(_training_cards(run, record))
    return f'<div class="cards">{"".join(cards)}</div>'


def _best_score(run: RunFiles) -> tuple[Score | None, str]:
    """The score for the headline and where it comes from: eval.json, else the last validation."""
    if run.scores:
        best = max(run.scores, key=lambda score: score.top1_correct / max(score.total, 1))
        name = Path(best.checkpoint).name
        several = f"best of {len(run.scores)}: " if len(run.scores) > 1 else ""
        return best, several + name
    if not run.evals:
        return None, ""
    last = run.evals[-1]
    best_row = max(run.evals, key=lambda row: row.top1_correct / max(row.total, 1))
    source = f"after epoch {last.epoch + 1}"
    if best_row.top1_correct > last.top1_correct:
        share = percent(best_row.top1_correct / max(best_row.total, 1))
        source += f"; best {share} after epoch {best_row.epoch + 1}"
    return Score("", "", last.loss, last.top1_correct, last.top5_correct, last.total), source


def _training_cards(run: RunFiles, record: dict[str, Any]) -> list[str]:
    last, steps = max(run.rows, key=lambda row: row.step), steps_per_epoch(run)
    epochs = min((last.step + 1) / steps, last.epoch + 1) if steps else None
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
        cards.append(card(_duration(seconds), "Training time", "from images/s, without evaluation"))
    speeds = sorted(row.images_per_second for row in run.train if row.images_per_second > 0)
    waits = [row.data_wait for row in run.train if row.data_wait >= 0]
    if speeds:
        wait = f"{100 * sum(waits) / len(waits):.1f} % waiting for data" if waits else ""
        cards.append(card(f"{speeds[len(speeds) // 2]:.4g}", "Images/s", "median", wait))
    return cards


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
