"""Intervals of the accuracy of a classifier: over images, or over groups as eval.json has them."""

from collections.abc import Mapping
from typing import Any

from densenet121.metrics.bootstrap import few_groups_note
from densenet121.metrics.values import Interval
from densenet121.tasks.single_label.scores import wilson_interval
from densenet121.tasks.values import Metrics
from densenet121.utils.json_values import count


def interval_of(metrics: Metrics, k: int) -> Interval:
    """The interval of the top-k accuracy: over groups if there is one, else Wilson's over images.

    Without an interval over groups, as of a single one, it is the whole range.
    """
    if "n_groups" in metrics:
        return Interval(*(metrics[f"top{k}_ci"] or (0.0, 1.0)))
    return Interval(*wilson_interval(metrics[f"top{k}_correct"], metrics["total"]))


def read_intervals(found: Mapping[str, Any]) -> Metrics:
    """Number of groups and intervals over them of eval.json, if it has them.

    Raises:
        KeyError, TypeError, ValueError: they are damaged.
    """
    if "n_groups" not in found:
        return {}
    read: Metrics = {"n_groups": count(found["n_groups"])}
    for name in ("top1_ci", "top5_ci"):
        low, high = (float(end) for end in found[name] or (0.0, 1.0))
        if not 0 <= low <= high <= 1:
            raise ValueError(f"{name} {found[name]} is no interval of a share")
        read[name] = None if found[name] is None else [low, high]
    return read


def interval_lines(content: Metrics) -> list[str]:
    """The lines that `eval` logs if it has groups."""
    if "n_groups" not in content:
        return []
    lines = [f"{content['total']} images of {content['n_groups']} groups"]
    for name in ("top1", "top5", "balanced_accuracy"):
        value, ends = content[name], content[f"{name}_ci"]
        if value is not None:
            shown = f" [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else ""
            lines.append(f"  {name.replace('_', ' ')} {value:.4f}{shown}")
    how = content["intervals"]
    lines.append(f"95 % intervals: {how['shares']}; {how['resamples']} resamples")
    note = few_groups_note(content["n_groups"])
    return [*lines, note] if note else lines
