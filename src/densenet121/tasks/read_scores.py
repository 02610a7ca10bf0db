"""Metrics of labels and classes in an eval.json, which may be damaged."""

from collections.abc import Mapping, Sequence
from typing import Any

from densenet121.metrics.summary import SHARES
from densenet121.tasks.values import Metrics
from densenet121.utils.json_values import count

_RANKING = ("auroc", "average_precision")
_COUNTS = ("n_positive", "n_negative", "n_unknown")


def read_scores(found: Mapping[str, Any]) -> Metrics:
    """``labels`` and ``macro`` of eval.json, and ``few_groups`` if it has that.

    Raises:
        KeyError, TypeError, ValueError: they are damaged, so that pages could not show them.
    """
    labels = {str(name): dict(one) for name, one in dict(found["labels"]).items()}
    if not labels:
        raise ValueError("its labels are none")
    for one in labels.values():
        for name in _COUNTS:
            count(one[name])
        _check_shares(one, (*_RANKING, "brier", "ece"))
        _check_shares(one, SHARES, needed="threshold" in one)
        if "threshold" in one:
            float(one["threshold"])
    macro = dict(found["macro"])
    _check_shares(macro, _RANKING, needed=False)
    macro["left_out"] = [str(name) for name in macro["left_out"]]
    few = [str(name) for name in found.get("few_groups") or ()]
    return {"labels": labels, "macro": macro, **({"few_groups": few} if few else {})}


def _check_shares(found: Mapping[str, Any], names: Sequence[str], *, needed: bool = True) -> None:
    """Refuse values and intervals that are not in 0..1; None is undefined."""
    for name in names:
        value = found[name] if needed else found.get(name)
        ends = found.get(f"{name}_ci")
        low, high = (0, 1) if ends is None else ends
        numbers = (0 if value is None else value, low, high)
        if not all(isinstance(number, int | float) and 0 <= number <= 1 for number in numbers):
            raise ValueError(f"{value} with the interval {ends} is no {name}")
