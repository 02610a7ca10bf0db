"""The report as one HTML file: no scripts, no external content, printable."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from densenet121.pages.markup import bullets, escape, mapping, section, table
from densenet121.pages.plotting import plot
from densenet121.pages.style import CSS
from densenet121.report.headline import header, headline
from densenet121.runs.layout import METRICS
from densenet121.runs.read import RunFiles
from densenet121.tasks import ReportPart
from densenet121.utils.plural import plural

_BAD_SHOWN = 200

# The page can load and run nothing, even if the escaping missed some text.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render(run: RunFiles, part: ReportPart, curves: bytes | None) -> str:
    """The HTML of the page.

    Args:
        run: result of ``read_run``.
        part: the task's part of the report.
        curves: PNG of the run's curves, or None.
    """
    record = run.record or {}
    parts = [header(run, record), headline(run, record, part.cards)]
    parts.append(bullets("notes", "Notes", run.notes))
    # The comparison of several checkpoints precedes the curves; results of each image follow them.
    before = part.sections if len(run.results.scores) > 1 else []
    parts += before
    if curves:
        parts.append(section("Curves", _curves_text(run), plot(curves, "Curves of the run")))
    if not before:
        parts += part.sections
    if run.bad_images:
        parts.append(_bad_images(run.bad_images))
    if run.record or len(run.results.scores) == 1:
        parts.append(_settings(run, record))
    parts.append(bullets("missing", "Not on this page", run.missing))
    return document(f"{run.folder.resolve().name}: densenet121 report", parts)


def document(title: str, parts: Sequence[str]) -> str:
    """The HTML of a whole page; ``title`` is escaped, ``parts`` are HTML."""
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _curves_text(run: RunFiles) -> str:
    train = plural(len(run.train), "training row")
    evaluations = plural(len(run.results.validations), "evaluation")
    return f"From {METRICS}: {train} and {evaluations}."


def _bad_images(bad: Sequence[tuple[str, str]]) -> str:
    text = f"{plural(len(bad), 'file')} could not be read."
    if len(bad) > _BAD_SHOWN:
        text += f" This table shows the first {_BAD_SHOWN}; eval.json lists all."
    return section("Bad images", text, table(("file", "error"), bad[:_BAD_SHOWN], texts=2))


def _settings(run: RunFiles, record: dict[str, Any]) -> str:
    names = ("command", "started", "device", "threads", "git_commit")
    environment = {name.replace("_", " "): record[name] for name in names if name in record}
    for name, version in mapping(record.get("versions")).items():
        environment[f"{name} version"] = version
    for part, facts in mapping(record.get("data")).items():
        environment.update({f"{part} {name}": value for name, value in mapping(facts).items()})
    if len(run.results.scores) == 1:
        score = run.results.scores[0]
        environment |= {"checkpoint": score.checkpoint, "digest": score.digest}
    columns = [
        f"<div><h3>{title}</h3>{settings_table(fields)}</div>"
        for title, fields in (
            ("Settings", mapping(record.get("settings"))),
            ("Environment", environment),
        )
        if fields
    ]
    return section("Settings and environment", "", f'<div class="pairs">{"".join(columns)}</div>')


def settings_table(fields: Mapping[str, Any]) -> str:
    """HTML of a table of names and values."""
    return table((), [(str(name), _value(value)) for name, value in fields.items()], texts=2)


def _value(value: object) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
