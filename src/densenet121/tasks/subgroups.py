"""Results of subgroups, such as views or sexes: from eval.json, as a table for pages and cards."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from densenet121.metrics.bootstrap import FEW_GROUPS
from densenet121.metrics.decisions import wilson_interval
from densenet121.metrics.tables import means_note
from densenet121.metrics.values import Interval
from densenet121.pages.markup import section, table
from densenet121.tasks.values import CardTable
from densenet121.utils.errors import some
from densenet121.utils.json_values import count
from densenet121.utils.rounding import percent

TITLE = "Subgroups"
TEXT = (
    "The same network on the images of each value of a column. Differences are as uncertain as the "
    "intervals say."
)


class Subgroup(NamedTuple):
    """One value of a column; shares in 0..1, None if undefined or not known.

    ``is_few`` says that the interval may be too narrow.
    """

    column: str
    value: str
    images: int
    top1: float | None
    top1_interval: Interval | None
    auroc: float | None
    interval: Interval | None
    is_few: bool

    @property
    def name(self) -> str:
        """The column and its value."""
        return f"{self.column} = {self.value or '(blank)'}"


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
    interval = _interval(mean.get("auroc_ci"))
    top1, auroc = part.get("top1"), mean.get("auroc")
    if "top1_ci" in part:  # over groups; a single group may have none
        top1_interval = _interval(part["top1_ci"])
    else:
        top1_interval = None if top1 is None else wilson_interval(_share(top1) * images, images)
    return Subgroup(
        column,
        value,
        images,
        None if top1 is None else _share(top1),
        top1_interval,
        None if auroc is None else _share(auroc),
        interval,
        # Without `intervals` it is DeLong's, which few images do not make too narrow.
        is_few=bool("intervals" in part and interval and means_note(part)),
    )


def _interval(ends: Any) -> Interval | None:
    return None if ends is None else Interval(_share(ends[0]), _share(ends[1]))


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
        top1 = _accuracy(one) if has_top1 else []
        auroc = "-" if one.auroc is None else f"{one.auroc:.4f}"
        ends = "-" if one.interval is None else "{:.4f} to {:.4f}".format(*one.interval)
        rows.append([one.name, str(one.images), *top1, auroc, ends])
    accuracy = ["top-1 accuracy", "95 % interval"] if has_top1 else []
    head = ("subgroup", "images", *accuracy, "AUROC, mean", "95 % interval")
    text = TEXT
    if few := [one.name for one in found if one.is_few]:
        text += (
            " The intervals of these may be too narrow, with positives, or negatives, of fewer "
            f"than {FEW_GROUPS} groups or images: {some(few, 20)}."
        )
    return CardTable(TITLE, text, head, rows)


def _accuracy(one: Subgroup) -> list[str]:
    """The accuracy of a subgroup and its interval, as cells."""
    if one.top1 is None:
        return ["-", "-"]
    ends = one.top1_interval
    shown = "-" if ends is None else f"{100 * ends.low:.2f} to {100 * ends.high:.2f} %"
    return [percent(one.top1), shown]


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
