"""Results of subgroups, such as views or sexes: from eval.json, as a table for pages and cards."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from densenet121.pages.markup import section, table
from densenet121.tasks.values import CardTable
from densenet121.utils.json_values import count
from densenet121.utils.rounding import percent

TITLE = "Subgroups"
TEXT = (
    "The same network on the images of each value of a column. Differences are as uncertain as the "
    "intervals say."
)


class Subgroup(NamedTuple):
    """One value of a column; shares in 0..1, None if undefined or not known."""

    column: str
    value: str
    images: int
    top1: float | None
    auroc: float | None
    interval: tuple[float, float] | None


def read_subgroups(found: Mapping[str, Any]) -> list[Subgroup]:
    """The subgroups in ``by`` of eval.json, in its order.

    Raises:
        KeyError, TypeError, ValueError: they are damaged.
    """
    return [
        _read(str(column), str(value), dict(part))
        for column, parts in dict(found.get("by", {})).items()
        for value, part in dict(parts).items()
    ]


def _read(column: str, value: str, part: Mapping[str, Any]) -> Subgroup:
    images = count(part["total"] if "total" in part else part["n_images"])
    mean = dict(part.get("macro", {}))
    ends = mean.get("auroc_ci")
    interval = None if ends is None else (_share(ends[0]), _share(ends[1]))
    top1, auroc = part.get("top1"), mean.get("auroc")
    return Subgroup(
        column,
        value,
        images,
        None if top1 is None else _share(top1),
        None if auroc is None else _share(auroc),
        interval,
    )


def _share(value: Any) -> float:
    share = float(value)
    if not 0 <= share <= 1:
        raise ValueError(f"{value} is no share")
    return share


def subgroup_table(found: Sequence[Subgroup]) -> CardTable | None:
    """A row for each subgroup, or None if there are none."""
    if not found:
        return None
    has_top1 = any(one.top1 is not None for one in found)
    rows = []
    for one in found:
        name = f"{one.column} = {one.value or '(blank)'}"
        top1 = [] if not has_top1 else ["-" if one.top1 is None else percent(one.top1)]
        auroc = "-" if one.auroc is None else f"{one.auroc:.4f}"
        ends = "-" if one.interval is None else "{:.4f} to {:.4f}".format(*one.interval)
        rows.append([name, str(one.images), *top1, auroc, ends])
    accuracy = ["top-1 accuracy"] if has_top1 else []
    head = ("subgroup", "images", *accuracy, "AUROC, mean", "95 % interval")
    return CardTable(TITLE, TEXT, head, rows)


def subgroup_section(metrics: Mapping[str, Any]) -> str:
    """The table as HTML; empty without subgroups.

    Args:
        metrics: what a task's ``check_metrics`` read.
    """
    found = subgroup_table(metrics.get("subgroups", ()))
    if found is None:
        return ""
    rows = [tuple(row) for row in found.rows]
    return section(found.title, found.text, table(found.head, rows, texts=1))
