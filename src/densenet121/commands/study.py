"""The ``study`` command: cross-validation over folds and seeds, and its pooled predictions."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from densenet121.commands import DONE, FAILED, STOPPED, print_notes
from densenet121.config import StudyConfig, TrainConfig, absolute, settings_of, study_differences
from densenet121.datasets.division import Division, Images, lists_of
from densenet121.engine.folds import data_digest, files_digest, folds_of, run_settings, study_images
from densenet121.engine.held_out import Pool, predict_held_out
from densenet121.engine.study_results import study_results
from densenet121.engine.train import train
from densenet121.metrics.bootstrap import few_groups_note
from densenet121.metrics.tables import means_note
from densenet121.report import write_report
from densenet121.report.study import write_study_pages
from densenet121.runs.layout import make_folder
from densenet121.runs.record import describe_run
from densenet121.runs.study import HeldOut, StudyFolder
from densenet121.runtime import joined
from densenet121.utils.errors import InputError, UnreadableError, UsageError
from densenet121.utils.locks import locked
from densenet121.utils.output import say
from densenet121.utils.plural import plural
from densenet121.utils.signals import StopRequest


@dataclass(frozen=True)
class StudyResult:
    """Result of ``study``.

    Attributes:
        folder: the folder of the study.
        content: what study.json says; None if a signal stopped the study.
    """

    folder: Path
    content: dict[str, Any] | None


def study(config: StudyConfig) -> StudyResult:
    """Train a network for each fold and seed, predict what it has not seen, and pool it.

    Raises:
        UsageError: a setting cannot be used, or differs from the study that goes on.
        InputError: images or weights cannot be used, or the images have changed.
    """
    images = study_images(config)
    print_notes(images.notes)
    division = folds_of(images, config)
    folder = StudyFolder(absolute(config.run_dir))
    with StopRequest() as stop, ExitStack() as held:
        _begin(config, folder, images, division, held)
        runs = [(fold, seed) for seed in config.seed_numbers for fold in range(config.folds)]
        for number, (fold, seed) in enumerate(runs, start=1):
            paths = _paths_of(images, division, fold)
            done = folder.read_held_out(fold, seed, paths) is not None
            before = " was finished before" if done else ""
            say(f"run {number} of {len(runs)}: fold {fold}, seed {seed}{before}")
            settings = run_settings(
                config, images, folder.lists(fold), folder.run(fold, seed), seed
            )
            if not done and not _run(settings, folder, (fold, seed), images, paths, stop):
                say("stopped by a signal; the same command with --resume auto goes on")
                return StudyResult(folder.path, None)
            if config.keep_checkpoint_max:
                folder.remove_checkpoints(fold, seed)
    pool = Pool(config, images, division, _all_held_out(config, folder, images, division))
    content = {"settings": settings_of(config)} | study_results(pool)
    predictions: dict[int | None, dict[str, Sequence[object]]] = {None: pool.columns(pool.ensemble)}
    predictions |= {seed: pool.columns(one) for seed, one in pool.seeds.items()}
    label_errors = pool.label_errors()
    content["n_label_errors"] = len(label_errors["path"])
    folder.write_results(content, predictions, label_errors)
    write_study_pages(folder.path)
    return StudyResult(folder.path, content)


def _begin(
    config: StudyConfig, folder: StudyFolder, images: Images, division: Division, held: ExitStack
) -> None:
    """Start the study, or check that it can go on; ``held`` keeps other studies out."""
    settings = settings_of(config)
    refusal = "a study runs in one process, and trains one network at a time"
    with joined(config, refusal=refusal) as runtime:
        task, names = config.task, images.names
        record = describe_run("study", settings, runtime, task, names, None, None)
    digests = {"images": data_digest(images, division), "weights": files_digest(config)}
    record["study"] = {"digests": digests} | division.summary
    make_folder(folder.path, folder.path.parent)
    held.enter_context(locked(folder.path, "run_dir"))
    before = folder.begin(resume=config.resume is not None)
    if before is not None:
        _check_same(folder, before, settings, record["study"], images)
        record = before | {"settings": settings}
    folder.write_start(record, lists_of(images, division, folder.path / "folds"))


def _check_same(
    folder: StudyFolder,
    before: dict[str, Any],
    settings: dict[str, Any],
    now: dict[str, Any],
    images: Images,
) -> None:
    """Refuse to go on with a study with other settings, images or weights."""
    if changed := study_differences(before["settings"], settings):
        raise UsageError(
            f"cannot go on with {folder.path} with other settings: {'; '.join(changed)}"
        )
    was, digests = before["study"], now["digests"]
    if was["digests"]["images"] != digests["images"]:
        raise InputError(
            f"{images.root}: the images, their labels or their groups changed since the study in "
            f"{folder.path} began: {was['images']} images then, {now['images']} now; begin a new "
            "study in another `run_dir`"
        )
    files = {"class_weights": digests["weights"]["class_weights"]}  # an older study has no digest
    if (files | was["digests"]["weights"]) != digests["weights"]:
        raise InputError(
            f"the weights of `pretrained` or `teacher` changed since the study in {folder.path} "
            "began, or the file of `class_weights`; begin a new study in another `run_dir`"
        )


def _run(
    config: TrainConfig,
    folder: StudyFolder,
    place: tuple[int, int],
    images: Images,
    paths: list[str],
    stop: StopRequest,
) -> bool:
    """Train one network and predict the images of its fold; False if stopped.

    Args:
        config: the settings of the run.
        folder: the study.
        place: fold and seed.
        images: all images.
        paths: paths of the images of the fold.
        stop: whether a signal asks to stop.
    """
    path = folder.run(*place)
    try:
        if stop.requested or train(config).stopped:
            return False
        write_report(path)
        found = predict_held_out(path, config, lambda: stop.requested)
    except UnreadableError as error:
        raise InputError(
            f"{error.fault}; pass `on_bad_image` skip and `resume` auto to go on without such "
            "images, or begin a new study with an image that is repaired"
        ) from None
    if found is not None:
        folder.write_held_out(*place, paths, images.names, found)
    return found is not None


def _paths_of(images: Images, division: Division, fold: int) -> list[str]:
    return [images.paths[at] for at in np.flatnonzero(division.part == fold).tolist()]


def _all_held_out(
    config: StudyConfig, folder: StudyFolder, images: Images, division: Division
) -> dict[int, HeldOut]:
    """Seed to the predictions of all folds, in the order of the images."""
    found: dict[int, HeldOut] = {}
    for seed in config.seed_numbers:
        logits = np.full((len(images.paths), len(images.names)), np.nan, dtype=np.float32)
        errors: dict[int, str] = {}
        for fold in range(config.folds):
            inside = np.flatnonzero(division.part == fold)
            own = folder.read_held_out(fold, seed, _paths_of(images, division, fold))
            assert own is not None
            logits[inside] = own.logits
            errors |= {int(inside[at]): reason for at, reason in own.errors.items()}
        found[seed] = HeldOut(logits, errors)
    return found


def text(content: dict[str, Any]) -> str:
    """The headline metrics as a table."""
    head = ["", "ensemble", "95 % interval", "one network, over seeds", "over folds"]
    rows = [head]
    for name, found in content["spread"].items():
        ends = found["ensemble_ci"]
        rows.append(
            [
                name.replace("_", " "),
                _shown(found["ensemble"]),
                f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else "-",
                *(_mean_and_sd(found[part]) for part in ("seeds", "folds")),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _mean_and_sd(found: dict[str, Any]) -> str:
    deviation = "" if found["sd"] is None else f" sd {found['sd']:.4f}"
    return _shown(found["mean"]) + deviation


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def run(config: StudyConfig) -> int:
    """Run the study and print its numbers; 1 if images had to be skipped."""
    result = study(config)
    if result.content is None:
        return STOPPED
    content = result.content
    groups = "" if content["n_groups"] is None else f" of {plural(content['n_groups'], 'group')}"
    say(
        f"{content['n_images']} images{groups}, {content['n_folds']} folds, "
        f"{plural(len(content['seed_numbers']), 'seed')}, each image by networks that have not "
        "seen it:"
    )
    say(text(content))
    if note := few_groups_note(content["n_groups"]) or means_note(content["ensemble"]):
        say(note)
    if bad := content["bad_images"]:
        say(f"{plural(len(bad), 'file')} could not be read; study.json names them")
    say(f"labels in doubt: {content['n_label_errors']}; the pages are in {result.folder}")
    return DONE if content["complete"] else FAILED
