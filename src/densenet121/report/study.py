"""The pages of a study: its numbers as study.html, the labels in doubt as label_errors.html."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from densenet121.pages.markup import bullets, escape, section, table
from densenet121.pages.thumbnails import Decode
from densenet121.report.label_errors import label_errors_page
from densenet121.report.page import document, settings_table
from densenet121.report.study_parts import cards, doubts, folds, metric_names, notes, spread
from densenet121.report.study_plot import draw_spread
from densenet121.runs.decoding import decoder
from densenet121.runs.evaluations import read_evaluation
from densenet121.runs.layout import read_record
from densenet121.runs.study import (
    FIGURE,
    LABEL_ERRORS,
    LABEL_ERRORS_PAGE,
    PAGE,
    STUDY,
    StudyFolder,
    read_study,
)
from densenet121.tasks import CheckpointScore, Results
from densenet121.utils.errors import InputError, one_line
from densenet121.utils.files import read_input, write_atomic
from densenet121.utils.plural import plural

_BAD_SHOWN = 200
_MALFORMED = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)


def write_study_pages(folder: Path) -> Path:
    """Write ``study.html`` with its figure, and ``label_errors.html``, from the files of a study.

    Returns:
        The path of ``study.html``.

    Raises:
        InputError: a file is missing, or cannot be read or written.
    """
    content = read_study(folder)
    rows = _rows(folder / LABEL_ERRORS)
    with _whole(folder / STUDY):
        # The runs have what the weights of `pretrained` record, which the study's settings lack.
        first = StudyFolder(folder).run(0, content["seed_numbers"][0])
        decode = decoder(read_record(first).get("settings") or content["settings"])
        figure = draw_spread(content["spread"], metric_names(content))
        page = _page(folder, content, figure, decode)
        label_errors_page(content, (), decode)
    with _whole(folder / LABEL_ERRORS):
        doubtful = label_errors_page(content, rows, decode)
    try:
        write_atomic(folder / FIGURE, figure)
        write_atomic(folder / LABEL_ERRORS_PAGE, doubtful.encode("utf-8"))
        write_atomic(folder / PAGE, page.encode("utf-8"))
    except OSError as error:
        raise InputError(f"{folder}: the pages cannot be written there ({error})") from error
    return folder / PAGE


@contextmanager
def _whole(file: Path) -> Iterator[None]:
    """Names a file that lacks something, or has another kind of value, where a page is made of it.

    Raises:
        InputError: it does.
    """
    try:
        yield
    except InputError:
        raise
    except _MALFORMED as error:
        raise InputError(
            f"{file}: not as study wrote it ({one_line(repr(error))}); run study again with "
            "`resume` auto, which keeps finished runs and writes it anew"
        ) from error


def _rows(file: Path) -> list[dict[str, str]]:
    try:
        text = read_input(file).decode("utf-8-sig", "surrogateescape")
        return list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, csv.Error) as error:
        raise InputError(f"{file}: cannot be read ({error})") from None


def _page(folder: Path, content: Mapping[str, Any], figure: bytes, decode: Decode) -> str:
    one_class = content["task"] == "single_label"
    groups = "" if content["n_groups"] is None else f" of {content['n_groups']} groups"
    facts = [
        "densenet121 study",
        f"{content['n_folds']} folds, {plural(len(content['seed_numbers']), 'seed')}",
        f"{plural(content['n_images'], 'image')}{groups}",
        f"{len(content['class_names'])} {'classes' if one_class else 'labels'}",
    ]
    name, line = folder.resolve().name, escape(" \u00b7 ".join(facts))
    parts = [
        f"<header><h1>{escape(name)}</h1><p>{line}</p></header>",
        f'<div class="cards">{"".join(cards(content))}</div>',
        bullets("notes", "Notes", notes(content)),
        spread(content, figure),
        folds(folder, content),
        doubts(content),
        *([_one_against_all(content)] if one_class else []),
        *_of_task(folder, content, decode),
    ]
    if content["bad_images"]:
        bad = [(one["path"], one["error"]) for one in content["bad_images"]]
        text = f"{plural(len(bad), 'file')} could not be read."
        if len(bad) > _BAD_SHOWN:
            text += f" The first {_BAD_SHOWN}; study.json names all."
        parts.append(section("Bad images", text, table(("file", "error"), bad[:_BAD_SHOWN], 2)))
    settings = settings_table(content["settings"])
    folded = f"<details><summary>All settings</summary>{settings}</details>"
    parts.append(section("Settings", "", folded))
    return document(f"{name}: densenet121 study", parts)


def _one_against_all(content: Mapping[str, Any]) -> str:
    """The ranking of each class against all others."""
    rows = []
    for name, found in content["ensemble"]["labels"].items():
        numbers = []
        for metric in ("auroc", "average_precision"):
            ends = found[f"{metric}_ci"]
            numbers.append("-" if found[metric] is None else f"{found[metric]:.4f}")
            numbers.append(f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else "-")
        rows.append((name, found["n_positive"], *numbers))
    head = ("class", "images", "AUROC", "95 % interval", "average precision", "95 % interval")
    text = "Each class against all others, by the probability of the ensemble."
    return section("Ranking", text, table(head, rows, texts=1))


def _of_task(folder: Path, content: Mapping[str, Any], decode: Decode) -> Sequence[str]:
    """The task's sections about the pooled predictions."""
    evaluation, pooled = read_evaluation(folder), content["ensemble"]
    scores = []
    if content["task"] != "single_label":
        metrics = {name: pooled["macro"][name] for name in ("auroc", "average_precision")}
        metrics |= {name: pooled[name] for name in ("labels", "macro", "n_groups")}
        metrics["few_groups"] = pooled.get("few_groups", [])
        scores = [CheckpointScore("", "", float("nan"), metrics)]
    read = map(evaluation.task.read_prediction, evaluation.rows.values())
    results = Results(
        validations=[],
        scores=scores,
        predictions=[row for row in read if row is not None],
        class_names=list(content["class_names"]),
        data_dir=Path(content["data_dir"]),
        decode=decode,
    )
    return evaluation.task.report(results).sections
