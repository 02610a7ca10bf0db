"""Intervals of the accuracy of a classifier: over images, or over groups as eval.json has them."""

from collections.abc import Mapping
from typing import Any

from densenet121.metrics.bootstrap import few_groups_note, few_positives_note
from densenet121.metrics.tables import class_table
from densenet121.metrics.values import Interval
from densenet121.tasks.read_scores import read_scores
from densenet121.tasks.single_label.scores import wilson_interval
from densenet121.tasks.subgroups import read_subgroups
from densenet121.tasks.values import Metrics
from densenet121.utils.json_values import count

_CLASSES_LOGGED = 20  # eval.json has up to 100
_MOST_GRADES = 10  # more classes are no grades


def interval_of(metrics: Metrics, k: int) -> Interval:
    """The interval of the top-k accuracy: over groups if there is one, else Wilson's over images.

    Without an interval over groups, as of a single one, it is the whole range.
    """
    if "n_groups" in metrics:
        return Interval(*(metrics[f"top{k}_ci"] or (0.0, 1.0)))
    return Interval(*wilson_interval(metrics[f"top{k}_correct"], metrics["total"]))


def read_intervals(found: Mapping[str, Any]) -> Metrics:
    """What eval.json has beyond the counts: groups and intervals over them, each class, subgroups.

    Raises:
        KeyError, TypeError, ValueError: they are damaged.
    """
    read: Metrics = {}
    if "n_groups" in found:
        read["n_groups"] = count(found["n_groups"])
        for name in ("top1_ci", "top5_ci"):
            low, high = (float(end) for end in found[name] or (0.0, 1.0))
            if not 0 <= low <= high <= 1:
                raise ValueError(f"{name} {found[name]} is no interval of a share")
            read[name] = None if found[name] is None else [low, high]
    if "auroc" in found:
        value = read["auroc"] = found["auroc"]
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{value} is no AUROC")
    kappa = found.get("quadratic_kappa")  # not of an earlier version
    if kappa is not None:
        if not -1 <= kappa <= 1:
            raise ValueError(f"{kappa} is no kappa")
        read["quadratic_kappa"] = float(kappa)
        if ends := found.get("quadratic_kappa_ci"):
            low, high = (float(end) for end in ends)
            read["quadratic_kappa_ci"] = [low, high]
    if "labels" in found:
        read |= read_scores(found)
    return read | {"subgroups": read_subgroups(found)}


def kappa_of(metrics: Metrics, classes: int) -> tuple[str, float] | None:
    """Name and value of Cohen's kappa for pages and cards; of more than ten classes none.

    The quadratic weights make a difference with more than two classes.
    """
    value = metrics.get("quadratic_kappa")
    if value is None or classes > _MOST_GRADES:
        return None
    weights = "" if classes == 2 else ", quadratic weights (classes as grades, in their order)"
    return f"Cohen's kappa{weights}", value


def interval_lines(content: Metrics) -> list[str]:
    """The lines that `eval` logs: intervals over groups, each class, and then each subgroup."""
    lines = _lines(content)
    for column, parts in content.get("by", {}).items():
        for value, part in parts.items():
            head = [] if "n_groups" in part else _subgroup(part)  # else _lines has the counts
            lines += ["", f"{column} = {value or '(blank)'}", *head, *_lines(part)]
    if "labels" not in content and "n_groups" not in content:
        return lines
    over = content.get("intervals", {})
    how = over.get("shares", "DeLong on the logit scale (AUROC), Wilson (others)")
    lines.append(f"95 % intervals: {how}" + (f"; {over['resamples']} resamples" if over else ""))
    return lines


def few_notes(content: Metrics) -> list[str]:
    """What makes the intervals of these images too narrow, or leaves them out."""
    groups = content.get("n_groups")
    few = content.get("few_groups", ()) if (groups or 0) > 1 else ()
    return [note for note in (few_groups_note(groups), few_positives_note(few)) if note]


def _subgroup(part: Metrics) -> list[str]:
    """The counts, which the log has of all images already."""
    counts = []
    for k in (1, 5):
        low, high = interval_of(part, k)
        shown = f"top{k} {part[f'top{k}']:.4f} [{low:.4f}, {high:.4f}]"
        counts.append(f"{shown} ({part[f'top{k}_correct']})")
    return [f"{part['total']} images: {', '.join(counts)}"]


def _lines(content: Metrics) -> list[str]:
    lines = []
    if "n_groups" in content:
        lines.append(f"{content['total']} images of {content['n_groups']} groups")
        for name in ("top1", "top5", "balanced_accuracy", "quadratic_kappa"):
            value, ends = content[name], content[f"{name}_ci"]
            if value is not None:
                shown = f" [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else ""
                lines.append(f"  {name.replace('_', ' ')} {value:.4f}{shown}")
    if "labels" in content and len(content["labels"]) <= _CLASSES_LOGGED:
        lines += class_table(content)
    return [*lines, *few_notes(content)]
