"""The evaluation of weights, or of a folder of them, on a dataset."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from densenet121.checkpoint.load import Weights, read_weights
from densenet121.checkpoint.native import folder_digest
from densenet121.config import EvalConfig, absolute, settings_of, weights_choices
from densenet121.datasets.image_dataset import (
    ImageDataset,
    check_num_classes,
    check_same_classes,
)
from densenet121.datasets.sources.open import open_evaluation
from densenet121.distributed.ranks import any_rank, from_rank_0
from densenet121.engine.error_maps import draw_error_maps
from densenet121.engine.evaluation import Evaluation, evaluate_images
from densenet121.inference.classifier import Choices, Classifier, make_classifier
from densenet121.inference.onnx_model import SUFFIX, load_onnx
from densenet121.runs.evaluations import write_error_maps, write_summary
from densenet121.runs.layout import RECORD, make_folder, position_in_name, read_record
from densenet121.runs.record import describe_run
from densenet121.runtime import Runtime, joined
from densenet121.tasks import SingleLabel, Task
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.files import write_json
from densenet121.utils.logging import log, log_settings, run_log
from densenet121.utils.signals import StopRequest

_SUFFIXES = (".ckpt", ".safetensors", ".pth", ".pt", SUFFIX)


@dataclass(frozen=True)
class EvalResult:
    """Result of ``evaluate``.

    Attributes:
        folder: with the log, eval.json and predictions.csv.
        evaluations: by weights file; None where the file could not be used.
        stopped: a signal ended it before the last of them.
    """

    folder: Path
    evaluations: dict[Path, Evaluation | None]
    stopped: bool

    @property
    def complete(self) -> bool:
        """Every weights file was evaluated on every image."""
        done = self.evaluations.values()
        return not self.stopped and all(e is not None and not e.bad for e in done)


def evaluate(config: EvalConfig, task: Task | None = None) -> EvalResult:
    """Evaluate the weights that ``config`` names on its images, each exactly once.

    Args:
        config: the settings.
        task: of the weights, where it is one of the caller's own.

    Raises:
        UsageError: a setting cannot be used.
        InputError: images or weights cannot be used. Of a folder of weights, one that cannot be
            used is logged and leaves the result incomplete.
    """
    with StopRequest() as stop, joined(config) as runtime:
        dataset = open_evaluation(
            absolute(config.data_dir),
            exclude=absolute(config.exclude) if config.exclude else None,
            cache_dir=absolute(config.log_path),
        )
        check_num_classes(dataset, config.num_classes)
        source = absolute(config.pretrained)
        files = _weight_files(source)
        # Before a folder is made: the usual mistake, a wrong path, should leave nothing behind.
        alone = not source.is_dir() and source.suffix != SUFFIX
        first = read_weights(source) if alone else None
        path, stamp = _make_folder(config, runtime)
        with run_log(path, stamp, runtime.process.rank):
            _log_start(config, task or SingleLabel(), runtime, dataset, path)
            results: dict[Path, Evaluation | None] = {}
            contents: list[dict[str, Any]] = []
            for file in files:
                if any_rank(stop.requested):
                    break
                try:
                    classifier = _load(first, file, config, dataset, task)
                    evaluation = _evaluate(
                        classifier, dataset, runtime, config, lambda: stop.requested
                    )
                except InputError as error:
                    if not source.is_dir() or isinstance(error, UsageError):
                        raise
                    log.error("%s", error)
                    results[file] = None
                    contents.append({"checkpoint": str(file), "error": str(error)})
                    continue
                if evaluation is None:
                    break
                content = evaluation.to_json(str(file))
                target = path / file.stem if source.is_dir() else path
                _keep(target, evaluation, content, classifier, runtime)
                results[file] = evaluation
                contents.append(content)
            stopped = len(results) < len(files)
            if source.is_dir() and runtime.process.rank == 0:
                write_summary(path, contents, complete=not stopped)
                _log_summary(results)
            if stopped:
                log.warning("stopped by a signal: %d of %d done", len(results), len(files))
            log.info("results: %s", path)
    return EvalResult(path, results, stopped)


def _make_folder(config: EvalConfig, runtime: Runtime) -> tuple[Path, str]:
    """Rank 0 sets the date; on another host a rank makes a folder of its own."""
    output_dir = absolute(config.output_dir) if config.output_dir else None
    parent = absolute(config.log_path)
    made = make_folder(output_dir, parent) if runtime.process.rank == 0 else None
    stamp = from_rank_0(made[1] if made else "")
    return made or make_folder(output_dir, parent, stamp)


def _log_start(
    config: EvalConfig, task: Task, runtime: Runtime, dataset: ImageDataset, path: Path
) -> None:
    """Write run.json and the first lines of the log."""
    settings = settings_of(config) | runtime.settings()
    log_settings(settings)
    log.info("%s; %s", runtime.process.note, runtime)
    log.info("%d images of %d classes in %s", len(dataset), len(dataset.class_names), dataset.root)
    run = describe_run("eval", settings, runtime, task.name, dataset.class_names, None, dataset)
    # Results may go into the folder of the training run itself, whose record stays.
    if runtime.process.rank == 0 and read_record(path).get("command") != "train":
        write_json(path / RECORD, run)


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
        evaluation.log()
        if evaluation.bad:
            log.warning(
                "partial result: %d images could not be read and are not in tot:",
                len(evaluation.bad),
            )
            for _, reason in evaluation.bad:
                log.warning("%s", reason)  # it begins with the path
    return evaluation


def _keep(
    folder: Path,
    evaluation: Evaluation,
    content: dict[str, Any],
    classifier: Classifier,
    runtime: Runtime,
) -> None:
    """Write the results of one network; rank 0 alone does."""
    if runtime.process.rank == 0:
        folder.mkdir(exist_ok=True)
        evaluation.write(folder, content)
        maps = draw_error_maps(
            evaluation, classifier.model, classifier.preprocessing, runtime.device
        )
        write_error_maps(folder, maps)


def _weight_files(source: Path) -> list[Path]:
    """The file, or those of a folder: checkpoints by epoch and step, newest first, then weights.

    Raises:
        InputError: an empty folder.
    """
    if not source.is_dir():
        return [source]
    files = [file for file in source.iterdir() if file.suffix in _SUFFIXES and file.name[0] != "."]
    if not files:
        raise InputError(f"{source}: a folder without weights ({', '.join(_SUFFIXES)})")
    # Names without an epoch come after those with one, newest first by the time of writing.
    return sorted(
        files,
        key=lambda file: (position_in_name(file) or (-1, -1), file.stat().st_mtime),
        reverse=True,
    )


def _load(
    weights: Weights | None,
    file: Path,
    config: EvalConfig,
    dataset: ImageDataset,
    task: Task | None,
) -> Classifier:
    """Build what is evaluated; settings override what the file says.

    Raises:
        InputError: the file cannot be used, or its classes are not those of the images.
    """
    choices = Choices(**weights_choices(config), task=task)
    if file.suffix == SUFFIX:
        return _load_onnx(file, choices, dataset)
    weights = weights or read_weights(file)
    classifier = make_classifier(weights, file, choices)
    names = weights.info.class_names if weights.info else ()
    if names:
        check_same_classes(names, str(file), dataset.class_names, str(dataset.root))
    wanted = classifier.task.num_outputs(len(dataset.class_names))
    if weights.num_classes != wanted:
        raise InputError(
            f"{file} knows {weights.num_classes} classes (without their names), and "
            f"{dataset.root} has {wanted}"
        )
    log.info("load model %s success", file)
    _compare_data(weights.data, dataset)
    _log_preprocessing(classifier, weights, config)
    return classifier


def _log_preprocessing(classifier: Classifier, weights: Weights, config: EvalConfig) -> None:
    if (config.image_size, config.eval_resize, config.interpolation) != (None, None, None):
        origin = "from the flags"
    elif weights.info is None:
        origin = "the original's: the file has no preprocessing"
    elif weights.family == "native":
        origin = "as it was validated with"
    else:
        origin = f"as {weights.family} documents it"
    transform = classifier.preprocessing.transform
    log.info(
        "network %s, variant %s; images resized to %s (%s), central %d x %d (%s)",
        classifier.net,
        classifier.variant,
        transform.resize,
        transform.interpolation,
        transform.height,
        transform.width,
        origin,
    )


def _load_onnx(file: Path, choices: Choices, dataset: ImageDataset) -> Classifier:
    """Load what `export` wrote; the file fixes the size of its images."""
    classifier = load_onnx(file, choices)
    # What export writes of weights without names.
    numbers = tuple(str(number) for number in range(len(dataset.class_names)))
    if classifier.class_names != numbers:
        check_same_classes(
            classifier.class_names, str(file), dataset.class_names, str(dataset.root)
        )
    log.info("load model %s success, run by ONNX Runtime on the CPU", file)
    return classifier


def _compare_data(data: Mapping[str, Any], dataset: ImageDataset) -> None:
    """Log whether the weights were trained or validated on these images, where they say so."""
    now = len(dataset), dataset.fingerprint
    for split, known in data.items():
        then = known["pictures"], known["fingerprint"]
        if then == now:
            if split == "train":
                log.warning("the weights were trained on these very images")
            else:
                log.info("the images are those that the run validated on")
        elif known["folder"] == folder_digest(str(dataset.root)):
            log.warning(
                "the %s data changed since these weights were written: %d images then, %d now",
                split,
                then[0],
                now[0],
            )


def _log_summary(results: Mapping[Path, Evaluation | None]) -> None:
    """A table of the weights files, newest first, the best marked."""
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
