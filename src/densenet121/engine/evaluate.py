"""The ``eval`` command: weights, or a folder of them, against a folder of images."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from densenet121.checkpoint.load import Weights, read_weights
from densenet121.checkpoint.native import folder_digest, position_in_name
from densenet121.config import (
    AMP_NAMES,
    EvalConfig,
    absolute,
    default_eval_resize,
    default_workers,
    parse_image_size,
    settings_of,
)
from densenet121.datasets.image_dataset import ImageDataset, check_num_classes, check_same_classes
from densenet121.datasets.sources.open import open_evaluation
from densenet121.device import default_batch_size, pick_device, pick_precision
from densenet121.distributed.ranks import any_rank, from_rank_0, join, process_group
from densenet121.engine.error_maps import write_error_maps
from densenet121.engine.evaluation import (
    Evaluation,
    evaluate_images,
    log_counts,
    result_of,
    write_results,
)
from densenet121.engine.messages import describe_arithmetic
from densenet121.inference.classifier import Classifier, make_classifier
from densenet121.inference.onnx_model import SUFFIX, load_onnx
from densenet121.runs.folder import command_of, describe_run, make_folder
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.files import write_json
from densenet121.utils.logging import log, log_settings, run_log
from densenet121.utils.memory import keep_freed_memory
from densenet121.utils.signals import StopRequest

_SUFFIXES = (".ckpt", ".safetensors", ".pth", ".pt", SUFFIX)


@dataclass(frozen=True)
class EvalResult:
    """What a call of ``evaluate`` came to.

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


def evaluate(config: EvalConfig) -> EvalResult:
    """Evaluate the weights that ``config`` names on its images, each exactly once.

    Raises:
        UsageError: a setting cannot be used.
        InputError: images or weights cannot be used. Of a folder of weights, one that cannot be
            used is logged and leaves the result incomplete.
    """
    with StopRequest() as stop, contextlib.ExitStack() as stack:
        process = join(bool(config.is_distributed), config.rank, config.group_size)
        device = pick_device(config.device, process.local_rank)
        stack.enter_context(process_group(process, device, config.timeout_seconds))
        precision = pick_precision(AMP_NAMES.get(config.amp or "", config.amp), device)
        if device.type == "cpu":
            keep_freed_memory()
        workers = default_workers() if config.workers is None else config.workers
        batch_size = config.per_batch_size or default_batch_size(device)
        dataset = open_evaluation(
            absolute(config.data_dir),
            exclude=absolute(config.exclude) if config.exclude else None,
            cache_dir=absolute(config.log_path),
        )
        check_num_classes(dataset, config.num_classes)
        source = absolute(config.pretrained)
        files = _weight_files(source)
        output_dir = absolute(config.output_dir) if config.output_dir else None
        # Before a folder is made: the usual mistake, a wrong path, should leave nothing behind.
        alone = not source.is_dir() and source.suffix != SUFFIX
        first = read_weights(source) if alone else None

        parent, is_first = absolute(config.log_path), process.rank == 0
        made = make_folder(output_dir, parent) if is_first else None
        stamp = from_rank_0(made[1] if made else "")
        path = made[0] if made else make_folder(output_dir, parent, stamp)[0]
        settings = settings_of(config) | {
            "per_batch_size": batch_size,
            "amp": str(precision).removeprefix("torch."),
            "workers": workers,
            "device": str(device),
        }
        with run_log(path, stamp, process.rank):
            log_settings(settings)
            log.info("%s; %s", process.note, describe_arithmetic(device, precision))
            log.info(
                "%d images of %d classes in %s",
                len(dataset),
                len(dataset.class_names),
                dataset.root,
            )
            run = describe_run("eval", settings, device, dataset.class_names, None, dataset)
            if (
                is_first and command_of(path) != "train"
            ):  # results may go into the folder of the run itself
                write_json(path / "run.json", run)
            results: dict[Path, Evaluation | None] = {}
            contents: list[dict[str, Any]] = []
            for file in files:
                if any_rank(stop.requested):
                    break
                target = path / file.stem if source.is_dir() else path
                try:
                    classifier = (
                        _prepare_onnx(file, config, dataset)
                        if file.suffix == SUFFIX
                        else _prepare(first or read_weights(file), file, config, dataset)
                    )
                    classifier.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
                    evaluation = evaluate_images(
                        classifier.model,
                        dataset,
                        classifier.transform,
                        mean=classifier.mean.to(device),
                        std=classifier.std.to(device),
                        batch_size=batch_size,
                        device=device,
                        precision=precision,
                        workers=workers,
                        skip_bad=config.on_bad_image == "skip",
                        should_stop=lambda: stop.requested,
                        rank=process.rank,
                        world_size=process.world_size,
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
                log_counts(evaluation.counts)
                _log_bad(evaluation)
                content = result_of(evaluation, str(file))
                if is_first:
                    target.mkdir(exist_ok=True)
                    write_results(target, evaluation, content)
                    write_error_maps(
                        target,
                        evaluation,
                        classifier.model,
                        classifier.transform,
                        mean=classifier.mean,
                        std=classifier.std,
                        device=device,
                    )
                results[file] = evaluation
                contents.append(content)
            stopped = len(results) < len(files)
            if source.is_dir() and is_first:
                write_json(path / "eval.json", {"results": contents, "complete": not stopped})
                _log_summary(results)
            if stopped:
                log.warning("stopped by a signal: %d of %d done", len(results), len(files))
            log.info("results: %s", path)
    return EvalResult(path, results, stopped)


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


def _prepare(weights: Weights, file: Path, config: EvalConfig, dataset: ImageDataset) -> Classifier:
    """Build what is evaluated from a weights file, the flags going before what the file tells."""
    info = weights.info
    if info and info.class_names:
        check_same_classes(info.class_names, str(file), dataset.class_names, str(dataset.root))
    if weights.num_classes not in (None, len(dataset.class_names)):
        raise InputError(
            f"{file} knows {weights.num_classes} classes (without their names), and "
            f"{dataset.root} has {len(dataset.class_names)}"
        )
    size = None if config.image_size is None else parse_image_size(config.image_size)
    resize = config.eval_resize or (default_eval_resize(size) if size else None)
    classifier = make_classifier(
        weights,
        file,
        net=config.net,
        variant=config.variant,
        image_size=size,
        eval_resize=None if resize is None else str(resize),
        interpolation=config.interpolation,
    )
    log.info("load model %s success", file)
    _compare_data(weights.data, dataset)
    if (config.image_size, config.eval_resize, config.interpolation) != (None, None, None):
        told = "from the flags"
    elif info is None:
        told = "the original's: the file tells no preprocessing"
    elif weights.family == "native":
        told = "as it was validated with"
    else:
        told = f"as {weights.family} documents it"
    transform = classifier.transform
    log.info(
        "network %s, variant %s; images resized to %s (%s), central %d x %d (%s)",
        classifier.net,
        classifier.variant,
        transform.resize,
        transform.interpolation,
        transform.height,
        transform.width,
        told,
    )
    return classifier


def _compare_data(data: Mapping[str, Any], dataset: ImageDataset) -> None:
    """Say what the weights have to do with these images, where they tell."""
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


def _prepare_onnx(file: Path, config: EvalConfig, dataset: ImageDataset) -> Classifier:
    """Load what `export` wrote, which tells everything and fixes the size of its images."""
    size = None if config.image_size is None else parse_image_size(config.image_size)
    resize = None if config.eval_resize is None else str(config.eval_resize)
    classifier = load_onnx(file, image_size=size, eval_resize=resize)
    # What export writes of weights that tell no names.
    numbers = tuple(str(number) for number in range(len(dataset.class_names)))
    if classifier.class_names != numbers:
        check_same_classes(
            classifier.class_names, str(file), dataset.class_names, str(dataset.root)
        )
    log.info("load model %s success, run by ONNX Runtime on the CPU", file)
    return classifier


def _log_bad(evaluation: Evaluation) -> None:
    if evaluation.bad:
        log.warning(
            "partial result: %d images could not be read and are not in tot:", len(evaluation.bad)
        )
        for _, reason in evaluation.bad:
            log.warning("%s", reason)  # it begins with the path


def _log_summary(results: dict[Path, Evaluation | None]) -> None:
    """A table of the weights files, newest first, the best top-1 marked."""
    best = max((e.counts.top1_correct for e in results.values() if e), default=-1)
    width = max((len(file.name) for file in results), default=0)
    log.info("%-*s  %8s  %8s  %8s  %8s", width, "weights", "top1", "top5", "loss", "tot")
    for file, evaluation in results.items():
        if evaluation is None:
            log.info("%-*s  cannot be used", width, file.name)
            continue
        counts = evaluation.counts
        log.info(
            "%-*s  %7.2f%%  %7.2f%%  %8.4f  %8d%s",
            width,
            file.name,
            100 * counts.top1,
            100 * counts.top5,
            counts.loss,
            counts.total,
            "  best" if counts.top1_correct == best else "",
        )
