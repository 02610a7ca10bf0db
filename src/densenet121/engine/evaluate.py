"""Evaluate one weights file, or a folder of them, on a dataset."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from densenet121.checkpoint.exported import is_onnx
from densenet121.checkpoint.foreign.timm_config import weights_in
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.weights import Weights
from densenet121.config import EvalConfig, absolute, settings_of
from densenet121.datasets.image_dataset import ImageDataset, check_num_classes
from densenet121.distributed.ranks import any_rank, from_rank_0, raise_together
from densenet121.engine.agreement import (
    check_same_data,
    check_same_settings,
    check_same_weights,
    entered_by_all,
)
from densenet121.engine.error_maps import draw_error_maps
from densenet121.engine.eval_weights import (
    fit_classes,
    load_for,
    splits_of,
    task_and_names,
    weights_files,
)
from densenet121.engine.evaluation import Evaluation, evaluate_images
from densenet121.engine.images import check_apart, check_columns, open_images
from densenet121.engine.messages import log_notes
from densenet121.engine.setup import check_call
from densenet121.inference.classifier import Classifier
from densenet121.inference.onnx_model import OnnxModel
from densenet121.runs.evaluated import SAME_IMAGES
from densenet121.runs.evaluations import results_of, write_error_maps, write_summary
from densenet121.runs.layout import EVALUATION, make_folder, read_record
from densenet121.runs.record import describe_run
from densenet121.runtime import Runtime, joined
from densenet121.tasks import Task, task_named
from densenet121.tasks.given import plain
from densenet121.utils.callers_modes import own_modes
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.files import file_digest
from densenet121.utils.locks import locked
from densenet121.utils.logging import log, log_settings, run_log
from densenet121.utils.plural import plural
from densenet121.utils.signals import StopRequest

Read = TypeVar("Read")


@dataclass(frozen=True)
class EvalResult:
    """Result of ``evaluate``.

    Attributes:
        folder: contains the log, eval.json and predictions.csv.
        evaluations: weights file to its evaluation, None if the file could not be used.
        stopped: a signal stopped the command before the last weights file.
    """

    folder: Path
    evaluations: dict[Path, Evaluation | None]
    stopped: bool

    @property
    def complete(self) -> bool:
        """Whether every weights file was evaluated on every image."""
        done = self.evaluations.values()
        return not self.stopped and all(e is not None and not e.bad for e in done)


@own_modes()
def evaluate(config: EvalConfig, task: Task | None = None) -> EvalResult:
    """Evaluate the weights that ``config`` names on its images, each exactly once.

    Args:
        config: the settings.
        task: the caller's own task; None uses the one that the weights name.

    Raises:
        UsageError: a setting cannot be used.
        InputError: images or weights cannot be used, or another process writes into the folder. In
            a folder of weights, a file that cannot be used is logged, and the result is incomplete.
    """
    check_call(config, EvalConfig, task)
    with StopRequest() as stop, joined(config, lambda: stop.requested) as runtime:
        # Read before the folder is made, so that a wrong path leaves no folder behind.
        source = absolute(config.pretrained)
        source = weights_in(source) or source  # a Hugging Face folder has one file of weights
        files = weights_files(source)
        first, arithmetic, read = (None,) * 3 if source.is_dir() else _read_alone(source)
        runtime = runtime.computing_in(arithmetic, config.amp, source)
        task_name, names = task_and_names(first, files, task)
        dataset = open_images(config, task_name, names, absolute(config.log_path))
        known = task or task_named(task_name, source)
        check_columns(dataset, config.group, config.by_columns, known)
        if first:
            dataset = fit_classes(dataset, first, source)
            check_num_classes(dataset, config.num_classes)
        path, stamp = _make_folder(config, runtime, dataset, files)
        with _alone(path, runtime) as check, run_log(path, stamp, runtime.process.rank):
            run = _log_start(config, task_name, runtime, dataset, path)
            results: dict[Path, Evaluation | None] = {}
            contents: list[dict[str, Any]] = []
            for file in files:
                if any_rank(stop.requested):
                    break
                try:
                    classifier, own, digest = _load(first, read, file, config, dataset, task)
                    evaluation = _evaluate(classifier, own, runtime, config, lambda: stop.requested)
                except InputError as error:
                    if not source.is_dir() or isinstance(error, UsageError):
                        raise
                    log.error("%s", error)
                    results[file] = None
                    contents.append({"checkpoint": str(file), "error": str(error)})
                    continue
                how = classifier, runtime, config, stop
                content = _content(evaluation, file, digest, first, *how) if evaluation else None
                if evaluation is None or content is None:
                    break
                own_folder = results_of(path, file, files)
                target = (own_folder, None) if source.is_dir() else (path, run)
                _write_results(*target, evaluation, content, classifier, runtime, config, check)
                results[file] = evaluation
                contents.append(content)
            stopped = len(results) < len(files)
            if source.is_dir() and contents and runtime.process.rank == 0:
                _write_table(path, results, contents, stopped, run)
            _log_end(len(results), len(files), path)
    return EvalResult(path, results, stopped)


def _read_alone(source: Path) -> tuple[Weights | None, str | None, str | None]:
    """The weights of a file, or None for an exported network; their arithmetic, if it is fixed.

    The third is the digest of the file of the weights.
    """
    if is_onnx(source):
        return None, OnnxModel(source).arithmetic, None
    weights, digest = _whole(source, lambda: read_weights(source, int8=True))
    return weights, None if weights.int8 is None else "int8", digest


def _whole(file: Path, read: Callable[[], Read]) -> tuple[Read, str | None]:
    """What is read of a file, and the digest of that; a run that goes on may replace it meanwhile.

    None if it was removed.
    """
    while True:
        before = _digest(file)
        found = read()
        if before == (after := _digest(file)) or after is None:
            return found, after


def _digest(file: Path) -> str | None:
    try:
        return file_digest(file)
    except OSError:
        return None


def _make_folder(
    config: EvalConfig, runtime: Runtime, dataset: ImageDataset, files: Sequence[Path]
) -> tuple[Path, str]:
    """Make the folder, with the date of rank 0; on other hosts each rank makes its own.

    Raises:
        InputError: ranks have other weights or images, or as a UsageError other settings; a
            UsageError for a folder among the images.
    """
    check_same_settings(config, runtime)
    check_same_weights(files)
    check_same_data({"val": dataset})
    output_dir = absolute(config.output_dir) if config.output_dir else None
    parent = absolute(config.log_path)
    check_apart(output_dir or parent, "output_dir" if output_dir else "log_path", dataset)
    made = make_folder(output_dir, parent) if runtime.process.rank == 0 else None
    stamp = from_rank_0(made[1] if made else "")
    return made or make_folder(output_dir, parent, stamp)


def _alone(folder: Path, runtime: Runtime) -> AbstractContextManager[Callable[[], None]]:
    """``locked`` for a folder into which rank 0 alone writes."""
    alone = runtime.process.rank == 0
    return entered_by_all(locked(folder, "output_dir") if alone else nullcontext(lambda: None))


def _log_start(
    config: EvalConfig, task_name: str, runtime: Runtime, dataset: ImageDataset, path: Path
) -> dict[str, Any] | None:
    """Write the first lines of the log; returns run.json, None for a folder that keeps its own.

    It is written with the results: until then there may be those of an earlier evaluation.
    """
    settings = settings_of(config) | runtime.settings()
    log_settings(settings)
    log.info("%s; %s", runtime.process.note, runtime)
    log.info("%s in %s", dataset.summary, dataset.source)
    log_notes(dataset)
    run = describe_run("eval", settings, runtime, task_name, dataset.class_names, None, dataset)
    # The folder may be that of a training run; its run.json is kept.
    return None if read_record(path).get("command") == "train" else run


def _load(
    first: Weights | None,
    read: str | None,
    file: Path,
    config: EvalConfig,
    dataset: ImageDataset,
    task: Task | None,
) -> tuple[Classifier, ImageDataset, str | None]:
    """The classifier, the images with its classes, and the digest of the weights file.

    Args:
        first: the weights, if they were read, with ``read`` as the digest of their file.
        read: see ``first``.
        file: the file.
        config: the settings.
        dataset: the images.
        task: the caller's own task.

    Raises:
        InputError: the file cannot be used, on this rank or another.
    """
    fault: InputError | None = None
    digest = read
    try:
        if first is None:
            loaded, digest = _whole(file, lambda: load_for(None, file, config, dataset, task))
        else:
            loaded = load_for(first, file, config, dataset, task)
        classifier, own = loaded
        check_num_classes(own, config.num_classes)
    except InputError as error:
        fault = error
    raise_together(fault)
    return classifier, own, digest


def _evaluate(
    classifier: Classifier,
    dataset: ImageDataset,
    runtime: Runtime,
    config: EvalConfig,
    should_stop: Callable[[], bool],
) -> Evaluation | None:
    """Evaluate one network and log the result."""
    classifier.model.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    evaluation = evaluate_images(
        classifier.model,
        dataset,
        classifier.task,
        classifier.preprocessing,
        runtime,
        skip_bad=config.on_bad_image == "skip",
        should_stop=should_stop,
    )
    if evaluation is not None:
        scores, targets = evaluation.scores, evaluation.targets
        scores = classifier.task.calibrated(scores, targets, classifier.calibration)
        evaluation = replace(evaluation, scores=scores)
        evaluation.log()
        if evaluation.bad:
            log.warning(
                "partial result: %s could not be read and %s not counted in tot:",
                plural(len(evaluation.bad), "image"),
                "is" if len(evaluation.bad) == 1 else "are",
            )
            for _, reason in evaluation.bad:
                log.warning("%s", reason)  # begins with the path
    return evaluation


def _special(classifier: Classifier) -> dict[str, Any]:
    tta, depth = classifier.preprocessing.tta, classifier.preprocessing.depth
    window = classifier.preprocessing.window
    found: dict[str, Any] = {"arithmetic": "int8"} if classifier.is_int8 else {}
    found |= {} if tta == "none" else {"tta": tta}
    return found | ({} if (depth, window) == (8, None) else {"depth": depth, "window": window})


def _same_images(weights: Weights | None, evaluation: Evaluation) -> dict[str, Any]:
    """Whether the weights were trained or validated on the evaluated images, for the report."""
    same = splits_of(weights.data, evaluation.dataset) if weights else []
    return {SAME_IMAGES: same} if same else {}


def _content(
    evaluation: Evaluation,
    file: Path,
    digest: str | None,
    weights: Weights | None,
    classifier: Classifier,
    runtime: Runtime,
    config: EvalConfig,
    stop: StopRequest,
) -> dict[str, Any] | None:
    """The content of eval.json; ``weights`` are those of the file, if it is the only one.

    None if a signal came while groups were resampled, which takes minutes of many images and
    classes. Ranks that go on to another file stop together, before it.
    """
    task = evaluation.task
    alone = runtime.process.world_size == 1 or weights is not None
    compute = partial(
        task.metrics_with_intervals,
        evaluation.scores,
        evaluation.targets,
        evaluation.dataset.class_names,
        calibration=classifier.calibration,
        group=evaluation.cells(config.group) if config.group else None,
        by={column: evaluation.cells(column) for column in config.by_columns},
    )
    if config.group:
        log.info("resample the groups of %s for the intervals", config.group)
    intervals = stop.at_once(compute) if config.group and alone else compute()
    if intervals is None and stop.requested:  # a task of a caller may give None, an error below
        return None
    of = {} if digest is None else {"checkpoint_sha256": digest}
    return (
        evaluation.to_json(str(file))
        | of
        | _special(classifier)
        | _same_images(weights, evaluation)
        | plain(task, "metrics_with_intervals", intervals)
    )


def _write_results(
    folder: Path,
    run: Mapping[str, Any] | None,
    evaluation: Evaluation,
    content: dict[str, Any],
    classifier: Classifier,
    runtime: Runtime,
    config: EvalConfig,
    check_owner: Callable[[], None],
) -> None:
    """Log and write the results of one network, on rank 0 only, if the folder is still its own."""
    if runtime.process.rank == 0:
        check_owner()
        for line in evaluation.task.table_lines(content):
            log.info("%s", line)
        folder.mkdir(exist_ok=True)
        more = [config.group, *config.by_columns] if config.group else config.by_columns
        evaluation.write(folder, content, tuple(dict.fromkeys(more)), run)
        maps = draw_error_maps(
            evaluation, classifier.model, classifier.preprocessing, runtime.device
        )
        write_error_maps(folder, maps)


def _write_table(
    folder: Path,
    results: Mapping[Path, Evaluation | None],
    contents: Sequence[Mapping[str, Any]],
    stopped: bool,
    run: Mapping[str, Any] | None,
) -> None:
    """Write and log the table of several weights files; one of errors alone replaces no results."""
    if any(results.values()) or not (folder / EVALUATION).exists():
        write_summary(folder, contents, not stopped, run)
    else:
        log.warning("none of the weights could be used; earlier results stay")
    _log_summary(results)


def _log_end(done: int, files: int, path: Path) -> None:
    """Log where the results are, and that a signal stopped the command if it did."""
    if done < files:
        log.warning("stopped by a signal after %d of %s", done, plural(files, "file"))
    log.info("results: %s", path)


def _log_summary(results: Mapping[Path, Evaluation | None]) -> None:
    """Log a table of the weights files, newest first, with the best marked."""
    done = {file: found for file, found in results.items() if found}
    width = max((len(file.name) for file in results), default=0)
    rows = {file: found.task.table_row(found.metrics) for file, found in done.items()}
    head = next(iter(rows.values()), {})
    log.info("%-*s%s", width, "weights", "".join(f"  {name:>8}" for name in head))
    for file, evaluation in results.items():
        if evaluation is None:
            log.info("%-*s  cannot be used", width, file.name)
            continue
        task, own = evaluation.task, evaluation.metrics
        is_best = not any(task.is_better(other.metrics, own) for other in done.values())
        cells = "".join(f"  {value:>8}" for value in rows[file].values())
        log.info("%-*s%s%s", width, file.name, cells, "  best" if is_best else "")
