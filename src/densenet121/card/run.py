"""What a model card says about a run: its data, its results, and how to repeat it."""

from collections.abc import Mapping, Sequence
from typing import Any

from densenet121.card.markdown import block, code, escape, section, table
from densenet121.metrics.decisions import threshold_text
from densenet121.pages.markup import mapping
from densenet121.runs.evaluated import (
    OTHER,
    SAME_IMAGES,
    TRAINING,
    VALIDATION,
    kind_of_images,
    number_of_images,
)
from densenet121.tasks import CardPart, CardTable
from densenet121.utils.errors import some

_SETTINGS = {
    "max_epoch": "epochs",
    "optimizer": "optimiser",
    "lr": "learning rate",
    "lr_scheduler": "schedule",
    "weight_decay": "weight decay",
    "per_batch_size": "batch size of each process",
    "augment": "augmentation",
    "loss": "loss",
    "amp": "arithmetic",
    "seed": "seed",
}


_CALIBRATED_ON = {
    OTHER: "held-out images",
    VALIDATION: "validation images of the training",
    TRAINING: "training images, which say nothing about new ones",
}


def data_of(record: Mapping[str, Any], data_note: Mapping[str, Any]) -> dict[str, Any]:
    """The notes on the training and validation images: `train` and `val`.

    Args:
        record: run.json; may be empty. That of an evaluation has its images as `val`.
        data_note: the same, as the weights record it.
    """
    trained = record.get("command") != "eval"
    return (mapping(record.get("data")) if trained else {}) or dict(data_note)


def data(known: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    """Number and fingerprint of the training, validation and evaluated images.

    Args:
        known: result of ``data_of``.
        evaluation: eval.json of other images than the validation images; empty if there is none.
    """
    evaluated = {
        "fingerprint": evaluation.get("data_fingerprint"),
        "pictures": number_of_images(evaluation),
    }
    found = {**known, "evaluated": evaluated if evaluated["fingerprint"] else None}
    names = {"train": "training", "val": "validation", "evaluated": "evaluated"}
    rows = []
    for split, name in names.items():
        note = mapping(found.get(split))
        if note:
            digest = code(note.get("fingerprint", ""))
            images = note.get("pictures")
            rows.append([name, digest, escape("not recorded" if images is None else images)])
    if not rows:
        return section("Data", "The run does not record its data.")
    return section(
        "Data",
        table(["split", "fingerprint of paths, sizes and labels", "images"], rows),
        "*To fill in: where the images come from, who labelled them, how they were chosen.*",
    )


def results(part: CardPart | None, remarks: Sequence[str]) -> str:
    """The task's tables.

    Args:
        part: the task's part; None if nothing was measured.
        remarks: what was evaluated, plain text; empty ones are left out.
    """
    if part is None:
        return section(
            "Metrics",
            "Nothing was measured for these weights. Evaluate them, and name the folder as "
            f"{code('--evaluation')}.",
        )
    notes = "\n".join(f"- {escape(line)}" for line in remarks if line)
    main, *others = part.tables
    return "\n\n".join([_table(main), notes, *map(_table, others)])


def _table(found: CardTable) -> str:
    rows = [[escape(cell) for cell in row] for row in found.rows]
    return section(escape(found.title), escape(found.text), table(found.head, rows) if rows else "")


def calibration(content: Mapping[str, Any] | None, known: Mapping[str, Any]) -> str:
    """Whether the weights are calibrated, and on what.

    Args:
        content: what the weights record.
        known: result of ``data_of``.
    """
    if content is None:
        return section(
            "Calibration",
            "The weights are not calibrated: a probability is what the network gives. "
            f"{code('densenet121 calibrate')} corrects it on held-out images.",
        )
    temperature = content.get("temperature", content.get("temperatures"))
    values = temperature if isinstance(temperature, list | tuple) else [temperature]
    shown = some([f"{value:.4g}" for value in values if isinstance(value, int | float)], 20)
    rows = [["temperature" if len(values) == 1 else "temperatures", shown]]
    offsets = mapping(content.get("note")).get("offsets")
    if isinstance(offsets, list):
        numbers = [f"{x:+.4g}" for x in offsets if isinstance(x, int | float)]
        rows.append(["offsets, in the bias of the classifier", some(numbers, 20)])
    if content.get("abstain_below") is not None:
        rows.append(["abstains below", threshold_text(content["abstain_below"])])
    if content.get("rule"):
        rows.append(["thresholds by", escape(content["rule"])])
    note = mapping(content.get("note"))
    if fingerprint := note.get("fingerprint"):
        images = {"data_fingerprint": fingerprint, SAME_IMAGES: note.get(SAME_IMAGES)}
        kind = kind_of_images(images, known) if known else OTHER
        rows.append([_CALIBRATED_ON[kind], code(fingerprint)])
    return section("Calibration", table(["what", "value"], rows))


def reproduce(record: Mapping[str, Any], command: str, epochs: int | None = None) -> str:
    """The command, the main settings, and the versions.

    Args:
        record: run.json; may be empty.
        command: the command that makes the run again, or empty.
        epochs: how many the run began, where these are known.
    """
    if not record:
        return ""
    settings = mapping(record.get("settings"))
    main = [
        [name, code(settings[field])]
        for field, name in _SETTINGS.items()
        if settings.get(field) is not None
    ]
    most = settings.get("max_epoch")
    if epochs is not None and isinstance(most, int) and epochs < most:
        main.insert(1, ["epochs until the run ended", code(epochs)])
    environment = [[f"version of {name}", value] for name, value in _versions(record).items()]
    names = ("platform", "accelerator", "kernels", "world_size", "git_commit", "started")
    environment += [[name.replace("_", " "), record[name]] for name in names if record.get(name)]
    return section(
        "How it was made",
        block(command) if command else "",
        table(["setting", "value"], main) if main else "",
        table(["environment", "value"], [[escape(a), code(b)] for a, b in environment])
        if environment
        else "",
    )


def _versions(record: Mapping[str, Any]) -> dict[str, Any]:
    return mapping(record.get("versions"))
