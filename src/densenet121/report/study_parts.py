"""Parts of the page of a study: headline numbers, spread over seeds and folds, folds."""

import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densenet121.metrics.bootstrap import few_groups_note
from densenet121.metrics.tables import means_note
from densenet121.pages.markup import card, escape, section, table
from densenet121.pages.plotting import plot
from densenet121.runs.layout import REPORT
from densenet121.runs.study import LABEL_ERRORS_PAGE, StudyFolder
from densenet121.utils.errors import some
from densenet121.utils.plural import plural

_NAMES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "auroc": "AUROC, mean of {kind}",
    "average_precision": "Average precision, mean of {kind}",
    "brier": "Brier score, mean of {kind}",
    "log_loss": "Log loss, mean of {kind}",
}


def metric_names(content: Mapping[str, Any]) -> dict[str, str]:
    """Headline metric to what it is called."""
    kind = "classes" if content["task"] == "single_label" else "labels"
    return {name: _NAMES[name].format(kind=kind) for name in content["spread"]}


def _main(content: Mapping[str, Any]) -> tuple[str, str]:
    """The two metrics of the cards."""
    if content["task"] == "single_label":
        return "accuracy", "auroc"
    return "auroc", "average_precision"


def cards(content: Mapping[str, Any]) -> list[str]:
    """The two main metrics, and the number of labels in doubt."""
    names, main = metric_names(content), _main(content)
    found = []
    for metric in main:
        one = content["spread"][metric]
        ends, seeds = _ends(one["ensemble_ci"]), one["seeds"]
        single = f"one network {_shown(seeds['mean'])}, sd {_shown(seeds['sd'])} over seeds"
        found.append(
            card(
                _shown(one["ensemble"]),
                names[metric],
                f"95 % interval {ends}" if one["ensemble_ci"] else "",
                single if len(seeds["values"]) > 1 else "",
                main=metric == main[0],
            )
        )
    return [*found, card(str(content["n_label_errors"]), "Labels in doubt", "see below")]


def notes(content: Mapping[str, Any]) -> list[str]:
    """What a reader must know about the numbers."""
    settings, found = content["settings"], []
    if settings.get("patience") is not None or settings.get("lr_scheduler") == "plateau":
        found.append(
            "The held-out images of each fold decided when its training ended, or its learning "
            "rate fell (patience, plateau), so the numbers are somewhat too good."
        )
    if content["n_groups"] is None:
        found.append(
            "The images count as independent. If there are several of one patient, a study by "
            "group is needed: otherwise networks have seen the patients of held-out images, and "
            "intervals are too narrow."
        )
    if note := few_groups_note(content["n_groups"]):
        found.append(f"{content['n_groups']} groups are few: {note}.")
    elif note := means_note(content["ensemble"]):
        found.append(f"{note[0].upper()}{note[1:]}.")
    left_out = content["ensemble"]["macro"]["left_out"]
    if left_out:
        found.append(f"Not defined, so not in the means: {some(left_out, 20)}.")
    return found


def spread(content: Mapping[str, Any], figure: bytes) -> str:
    """The headline metrics of the ensemble, of single networks and of the folds."""
    names = metric_names(content)
    rows = [
        (
            names[metric],
            _shown(one["ensemble"]),
            _ends(one["ensemble_ci"]),
            *(_shown(one[part][what]) for part in ("seeds", "folds") for what in ("mean", "sd")),
        )
        for metric, one in content["spread"].items()
    ]
    head = ("metric", "ensemble", "95 % interval", "one network", "sd over seeds")
    grouped = content["n_groups"] is not None
    text = (
        f"Every image is predicted by networks that have not seen it{' or its group' * grouped}, "
        "and the predictions of all folds are pooled. Ensemble: the mean of the probabilities over "
        "the seeds. One network: the mean over the seeds of what one alone reaches. Mean of folds: "
        "the ensemble, measured in each fold. The interval is about other images, not about other "
        "training sets. The spread over folds is no interval, since folds share training images."
    )
    return section(
        "Ensemble, single networks, spread",
        text,
        table((*head, "mean of folds", "sd over folds"), rows, texts=1),
        plot(figure, "Values of single networks and folds, and the ensemble with its interval"),
    )


def folds(folder: Path, content: Mapping[str, Any]) -> str:
    """The main metric of each fold and seed, with links to the reports of the runs."""
    (main, _), seeds = _main(content), [str(seed) for seed in content["seed_numbers"]]
    grouped, several = content["n_groups"] is not None, len(seeds) > 1
    rows = [
        (
            str(number),
            fold["images"],
            *([fold["groups"]] if grouped else []),
            *(_shown(fold["seeds"][seed][main]) for seed in seeds),
            *([_shown(fold["ensemble"][main])] if several else []),
            some(fold["left_out"], 5) or "-",
        )
        for number, fold in enumerate(content["folds"])
    ]
    head = ["fold", "images", *(["groups"] if grouped else [])]
    head += [*(f"seed {seed}" for seed in seeds), *(["ensemble"] if several else [])]
    links = [
        _link(folder, StudyFolder(folder).run(fold, int(seed)) / REPORT, fold, seed)
        for seed in seeds
        for fold in range(content["n_folds"])
    ]
    text = f"{metric_names(content)[main]}, of the images that each fold holds out."
    below = f"<p>Reports of the runs: {', '.join(links)}</p>"
    return section("Folds", text, table((*head, "not defined"), rows, texts=1), below)


def _link(folder: Path, target: Path, fold: int, seed: str) -> str:
    address = urllib.parse.quote(target.relative_to(folder).as_posix())
    return f'<a href="{address}">fold {fold}, seed {escape(seed)}</a>'


def doubts(content: Mapping[str, Any]) -> str:
    """How many labels are in doubt, with a link to the page that shows them."""
    count = content["n_label_errors"]
    if not count:
        return section(
            "Labels in doubt", "No label is contradicted by networks that have not seen the image."
        )
    verb = "is" if count == 1 else "are"
    text = f"{plural(count, 'label')} {verb} contradicted by networks that have not seen the image."
    link = f'<p><a href="{LABEL_ERRORS_PAGE}">The images, the most doubtful first</a></p>'
    return section("Labels in doubt", text, link)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _ends(interval: list[float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"
