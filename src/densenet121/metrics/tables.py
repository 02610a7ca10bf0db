"""Metrics as tables for people: the JSON values of ``summarise`` as lines of text."""

from collections.abc import Mapping, Sequence
from typing import Any

from densenet121.metrics.bootstrap import (
    FEW_GROUPS,
    few_groups_note,
    few_of_mean_note,
    few_positives_note,
)
from densenet121.metrics.decisions import threshold_text
from densenet121.utils.errors import some


def tables(result: Mapping[str, Any]) -> list[str]:
    """The lines of all tables: of all images, then of each subgroup.

    Args:
        result: a result of ``summarise``, perhaps with such results of subgroups in ``by``.
    """
    lines = _tables(result)
    for column, parts in result.get("by", {}).items():
        for value, part in parts.items():
            lines += ["", f"{column} = {value or '(blank)'}", *_tables(part)]
    return [*lines, "", f"95 % intervals: {_methods(result['intervals'])}"]


def class_table(result: Mapping[str, Any]) -> list[str]:
    """The lines of the table of classes, each against all others, where each image has one.

    Args:
        result: ``labels`` and ``macro`` of ``summarise`` with decisions.
    """
    metrics = ("auroc", "sensitivity", "specificity", "ppv")
    rows = [["class", "images", "AUROC", "sensitivity", "specificity", "PPV"]]
    labels, macro = result["labels"], result["macro"]
    for name, found in [*labels.items(), (f"mean of {macro['n_labels']}", macro)]:
        # Decisions that are undefined for all classes have no mean.
        both = [_with_interval(found, metric) if metric in found else "-" for metric in metrics]
        rows.append([name, str(found.get("n_positive", "")), *both])
    lines = _aligned(rows)
    if macro["left_out"]:
        lines.append(f"not in the means, without an AUROC: {some(macro['left_out'], 20)}")
    for metric in metrics:
        if names := macro["also_left_out"].get(metric):
            lines.append(f"not in the mean {metric.upper()}: {some(names, 20)}")
    return lines


def means_note(result: Mapping[str, Any]) -> str:
    """Which labels make the intervals of the means too narrow; empty if there are none.

    These come from a bootstrap also where images are independent, and that of a label's AUROC
    does not.
    """
    macro, few = result["macro"], result.get("few_groups", ())
    if not macro.get("auroc_ci"):
        return ""
    grouped = result.get("n_groups") is not None
    if not grouped:
        few = [
            name
            for name, found in result["labels"].items()
            if min(found["n_positive"], found["n_negative"]) < FEW_GROUPS
        ]
    few = [name for name in few if name not in macro["left_out"]]
    return few_of_mean_note(few, "groups" if grouped else "images")


def _tables(result: Mapping[str, Any]) -> list[str]:
    groups = result["n_groups"]
    lines = [
        f"{result['n_images']} images"
        + (f" of {groups} group{'s' if groups > 1 else ''}" if groups else "")
    ]
    labels, macro = result["labels"], result["macro"]
    rows = [
        ["label", "pos", "neg", "unknown", "AUROC", "average precision", "Brier", "ECE", "log loss"]
    ]
    for name, found in [*labels.items(), (f"macro ({macro['n_labels']})", macro)]:
        counts = [str(found.get(f"n_{kind}", "")) for kind in ("positive", "negative", "unknown")]
        both = [_with_interval(found, metric) for metric in ("auroc", "average_precision")]
        rest = [_shown(found[metric]) for metric in ("brier", "ece", "log_loss")]
        rows.append([name, *counts, *both, *rest])
    lines += _aligned(rows)
    decided = {name: found for name, found in labels.items() if "threshold" in found}
    if decided:
        shares = ("sensitivity", "specificity", "ppv", "npv")
        rows = [["label", "threshold", *shares[:2], "PPV", "NPV", "F1"]]
        for name, found in decided.items():
            both = [_with_interval(found, share) for share in shares]
            rows.append([name, threshold_text(found["threshold"]), *both, _shown(found["f1"])])
        lines += ["", *_aligned(rows)]
        at = {name: found for name, found in decided.items() if "prevalence" in found}
        if at:
            rows = [["label", "prevalence", "PPV there", "NPV there"]]
            for name, found in at.items():
                both = [_with_interval(found, f"{share}_at_prevalence") for share in ("ppv", "npv")]
                rows.append([name, f"{found['prevalence']:.4g}", *both])
            lines += ["", *_aligned(rows)]
        known = {
            name for name, found in labels.items() if found["n_positive"] + found["n_negative"]
        }
        silent = [name for name in decided if name in known]
        silent = [name for name in silent if decided[name]["tp"] + decided[name]["fp"] == 0]
        if silent:
            lines.append(f"no image reaches the threshold of: {some(silent, 20)}")
    benefits = [
        (name, at) for name, found in labels.items() for at in found.get("net_benefits", ())
    ]
    if benefits:
        lines += ["", *_benefits(benefits)]
    if "classes" in result:
        found = result["classes"]
        lines += ["", f"likeliest class, {found['n_images']} images:"]
        for metric in ("accuracy", "balanced_accuracy", "quadratic_kappa"):
            lines.append(f"  {metric.replace('_', ' ')} {_with_interval(found, metric)}")
    few = result.get("few_groups")
    if few and groups > 1 and result["intervals"]["resamples"]:
        lines += ["", few_positives_note(few)]
    if groups == 1:
        lines += ["", few_groups_note(groups)]
    if groups is None and (note := means_note(result)):
        lines += ["", note]
    if macro["left_out"]:
        lines += ["", f"not in the macro means: {some(macro['left_out'], 20)}"]
    for metric, names in macro["also_left_out"].items():
        lines.append(f"not in the macro {metric}: {some(names, 20)}")
    return lines


def _benefits(benefits: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Net benefits of labels, in true positives per image."""
    shares = [f"{at['prevalence']:.4g}" if "prevalence" in at else "" for _, at in benefits]
    rows = [["label", "act from", "prevalence", "net benefit", "of acting on all", "gain"]]
    for (name, at), share in zip(benefits, shares, strict=True):
        both = [_with_interval(at, "net_benefit"), _shown(at["of_all"]), _with_interval(at, "gain")]
        rows.append([name, threshold_text(at["act_from"]), share, *both])
    if not any(shares):
        rows = [row[:2] + row[3:] for row in rows]
    return _aligned(rows)


def _methods(how: Mapping[str, Any]) -> str:
    at = how.get("at_prevalence", "").removeprefix(f"{how['others']}, ")
    end = f"; for PPV and NPV at a prevalence {at}" if at else ""
    others = f"{how['others']}, {how['resamples']} resamples"
    if how["auroc"] == how["others"]:  # of groups, as the shares but at 0 and 1
        special = how["shares"].removeprefix(f"{how['others']}, ")
        return (others if special == how["others"] else f"{others}; for shares {special}") + end
    return f"{how['auroc']} for the AUROC, {how['shares']} for shares, else {others}{end}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _with_interval(found: Mapping[str, Any], metric: str) -> str:
    interval = found.get(f"{metric}_ci")
    ends = "" if interval is None else f" [{interval[0]:.4f}, {interval[1]:.4f}]"
    return _shown(found[metric]) + ends


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
