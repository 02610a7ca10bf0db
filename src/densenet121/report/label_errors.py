"""The page of a study's labels in doubt: the images, the most doubtful first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from densenet121.pages.markup import escape, image, section, table
from densenet121.pages.thumbnails import Decode, thumbnail
from densenet121.report.page import document
from densenet121.utils.plural import plural
from densenet121.utils.rounding import percent

_SHOWN = 200
_LABELS_SHOWN = 100


def label_errors_page(
    content: Mapping[str, Any], rows: Sequence[Mapping[str, str]], decode: Decode
) -> str:
    """The HTML of the page.

    Args:
        content: content of study.json.
        rows: rows of label_errors.csv.
        decode: reads an image's file as it was read for the networks.
    """
    count, seeds = len(rows), len(content["seed_numbers"])
    text = (
        "A label is in doubt if networks that have not seen the image give another class at least "
        "the mean probability that this class has in its own images (Northcutt, Jiang and Chuang "
        "2021). It may be a wrong label, or an image that is hard to read; of a rare finding it is "
        "often the latter. Look at each image before you change a label. label_errors.csv lists "
        "all of them."
    )
    if count > _SHOWN:
        text += f" This page shows the first {_SHOWN} of {count}."
    parts = [
        "<header><p>densenet121 study</p><h1>Labels in doubt</h1>"
        f"<p>{plural(count, 'label')} of {plural(content['n_images'], 'image')}</p></header>"
    ]
    if rows:
        root = Path(content["data_dir"])
        figures = "\n".join(_figure(row, root, seeds, decode) for row in rows[:_SHOWN])
        parts.append(section("Images", text, f'<div class="errors">{figures}</div>'))
        parts.append(section("How many", "", _counts(rows)))
    else:
        parts.append(
            section("None", "No label is contradicted by networks that have not seen the image.")
        )
    return document("Labels in doubt: densenet121 study", parts)


def _counts(rows: Sequence[Mapping[str, str]]) -> str:
    """How often each label is in doubt, by what is suggested in its place."""
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        pair = (row["name"], row["label"]) if "name" in row else (row["label"], row["suggested"])
        counts[pair] = counts.get(pair, 0) + 1
    if "name" not in rows[0]:
        shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_LABELS_SHOWN]
        head: tuple[str, ...] = ("label", "networks suggest", "images")
        return table(head, [(*pair, count) for pair, count in shown], texts=2)
    names = list(dict.fromkeys(name for name, _ in counts))
    both = {name: [counts.get((name, label), 0) for label in ("1", "0")] for name in names}
    ranked = sorted(names, key=lambda name: (-sum(both[name]), name))[:_LABELS_SHOWN]
    head = ("label", "has it, networks say no", "has it not, networks say yes")
    return table(head, [(name, *both[name]) for name in ranked], texts=1)


def _texts(row: Mapping[str, str]) -> tuple[str, str]:
    """The label, and what is suggested in its place."""
    if "name" not in row:  # one class for each image
        return row["label"], row["suggested"]
    words = {"0": "no ", "1": ""}
    return words[row["label"]] + row["name"], words[row["suggested"]] + row["name"]


def _figure(row: Mapping[str, str], root: Path, seeds: int, decode: Decode) -> str:
    jpeg, reason = thumbnail(root, row["path"], decode)
    shown = image(jpeg, "jpeg", row["path"]) if jpeg else escape(reason)
    label, suggested = _texts(row)
    share, above, below = percent(float(row["probability"])), f"{suggested}?", f"label {label}"
    agree = f"fold {row['fold']}"
    if "name" in row:  # the probability of having the label
        agree = f"probability {share}, {agree}"
    else:
        above += f" {percent(float(row['probability_suggested']))}"
        below += f" {share}"
    if seeds > 1:
        agree += f", {row['seeds']} of {seeds} seeds"
    return (
        f'<figure><div class="image">{shown}</div><figcaption>'
        f'<span class="wrong">{escape(above)}</span><span>{escape(below)}</span>'
        f'<span>{escape(agree)}</span><span class="path">{escape(row["path"])}</span>'
        "</figcaption></figure>"
    )
