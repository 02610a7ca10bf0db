"""The ``average`` command: several weights of one network into one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from densenet121.checkpoint.convert import has_offsets
from densenet121.checkpoint.foreign.timm_config import weights_in
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import ModelInfo, data_note, save_weights
from densenet121.checkpoint.pretrained import load_state
from densenet121.checkpoint.weights import Weights
from densenet121.commands import DONE, print_notes
from densenet121.config import AverageConfig, absolute, settings_of
from densenet121.datasets.image_dataset import ImageDataset, check_same_classes
from densenet121.engine.averaging import (
    StateDict,
    check_same_kind,
    estimate_statistics,
    mean_of,
)
from densenet121.engine.eval_weights import check_outputs
from densenet121.engine.evaluation import evaluate_images
from densenet121.engine.images import open_training_images
from densenet121.engine.setup import check_size
from densenet121.network import DenseNet, build
from densenet121.runs.best import plain_metrics
from densenet121.runs.record import describe_run
from densenet121.runtime import Runtime, runtime_of
from densenet121.tasks import Metrics, Task, task_named
from densenet121.utils.errors import InputError, some
from densenet121.utils.files import check_output, file_digest
from densenet121.utils.output import say


@dataclass(frozen=True)
class AverageResult:
    """Result of ``average``.

    Attributes:
        output: file of the averaged weights.
        members: files in the average, in the order in which they were added.
        metrics: the task's metrics on the validation images; None without such images.
    """

    output: Path
    members: tuple[Path, ...]
    metrics: Metrics | None


@dataclass(frozen=True)
class _Setup:
    """What every candidate is made and measured with.

    Attributes:
        model: receives the weights of each candidate.
        info: network, classes and preprocessing of all members.
        task: what the logits mean.
        runtime: device, arithmetic, batch size and workers.
        train: images for the statistics of batch norm, or None.
        val: images to validate on, or None.
        config: the settings.
    """

    model: DenseNet
    info: ModelInfo
    task: Task
    runtime: Runtime
    train: ImageDataset | None
    val: ImageDataset | None
    config: AverageConfig


def average(config: AverageConfig, task: Task | None = None) -> AverageResult:
    """Average weights, estimate the statistics of batch norm anew, and write the result.

    Args:
        config: the settings.
        task: the caller's own task; None uses the one that the weights name.

    Raises:
        InputError: weights or images cannot be used, or the weights are of different kinds.
    """
    files = [weights_in(file) or file for file in map(absolute, config.inputs)]
    output = absolute(config.output)
    check_output(output, "output", files)
    weights = [_read(file) for file in files]
    infos = [_one_view(info) for found in weights if (info := found.info)]
    check_same_kind(infos, config.inputs)
    print_notes(f"note: {note}" for found in weights for note in found.notes)
    setup = _prepare(config, infos[0], weights[0], files[0], task)
    states = [found.state_dict for found in weights]
    for state, file in zip(states, files, strict=True):
        load_state(setup.model, state, file)
    chosen, metrics = list(range(len(files))), None
    if config.method == "greedy":
        chosen, metrics = _greedy(setup, states)
    statistics = _fill(setup, [states[member] for member in chosen])
    if metrics is None and setup.val is not None:
        metrics = _measure(setup)
    for member in chosen:
        say(f"member: {config.inputs[member]}")
    say(f"batch norm: {statistics}")
    if metrics is not None:
        say(f"val: {setup.task.best_line(metrics)}")
        if config.method == "greedy":
            say("the members were chosen on these validation images, so others may do worse")
    origin = {
        "average": f"{config.method}, {len(chosen)} of {len(files)} files",
        "members": [f"{files[m].name} {file_digest(files[m])[:16]}" for m in chosen],
        "batch_norm": statistics,
        **plain_metrics(metrics or {}),
    }
    state = setup.model.state_dict()
    save_weights(output, state, infos[0], origin, data=_data(setup, weights))
    say(f"weights: {output}")
    if lost := _lost({config.inputs[member]: weights[member] for member in chosen}):
        say(lost)
    return AverageResult(output, tuple(files[member] for member in chosen), metrics)


def _read(file: Path) -> Weights:
    weights = read_weights(file)
    weights.known_info(file)
    weights.check_head(file)
    weights.check_finite(file)
    return weights


def _one_view(info: ModelInfo) -> ModelInfo:
    """Without the views that a calibration was made with, which ends with it."""
    return replace(info, preprocessing=info.preprocessing.changed(tta="none"))


def _lost(members: dict[str, Weights]) -> str:
    """What of the members does not hold for their average; empty if there is nothing."""
    calibrated = [name for name, found in members.items() if found.calibration]
    infos = [found.info for found in members.values() if found.info]
    views = dict.fromkeys(i.preprocessing.tta for i in infos if i.preprocessing.tta != "none")
    said = []
    if calibrated:
        said.append(
            f"the calibration of {some(calibrated)} was dropped, because it is not that of the "
            "average: run densenet121 calibrate on the new weights"
        )
    if biased := [name for name, found in members.items() if has_offsets(found.calibration)]:
        said.append(
            f"the offsets in the bias of {some(biased)} (calibrate --fit_bias) are averaged with "
            "it: calibrate the new weights with --fit_bias, too"
        )
    if views:
        said.append(f"the new weights take one view of an image, not those of tta {some([*views])}")
    return "; ".join(said)


def _prepare(
    config: AverageConfig, info: ModelInfo, first: Weights, file: Path, task: Task | None
) -> _Setup:
    """The network, and the images if there are any."""
    runtime = runtime_of(config)
    model = build(
        info.net,
        num_classes=first.num_classes or 0,
        variant=info.variant,
        in_channels=first.channels,
    )
    model.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    known = task_named(info.task, file, task)
    train, val = None, None
    if config.data_dir is not None:
        train, val = open_training_images(config, info.task, info.class_names)
        print_notes((*train.notes, *(val.notes if val else ())))
        if info.class_names:
            check_same_classes(info.class_names, str(file), train.class_names, str(train.root))
        else:
            check_outputs(file, model.num_classes, known, train)
        batch_size = min(runtime.batch_size, len(train), config.statistics_images)
        check_size(model, *info.preprocessing.image_size, batch_size)
        if val is None and config.method == "greedy":
            raise InputError(
                f"{train.root}: there are no validation images to choose by; pass `val_dir`, or a "
                "`data_dir` that holds train/ and val/"
            )
    return _Setup(model.eval(), info, known, runtime, train, val, config)


def _greedy(setup: _Setup, states: Sequence[StateDict]) -> tuple[list[int], Metrics]:
    """The members of the greedy soup in their order, and its metrics on the validation images."""
    alone = []
    for number, state in enumerate(states):
        load_state(setup.model, state, setup.config.inputs[number])
        alone.append(_measure(setup))
        say(f"alone: {setup.task.best_line(alone[-1])}, {setup.config.inputs[number]}")
    order = _best_first(setup.task, alone)
    chosen, best = order[:1], alone[order[0]]
    for member in order[1:]:
        _fill(setup, [states[known] for known in [*chosen, member]])
        metrics = _measure(setup)
        kept = not setup.task.is_better(best, metrics)
        if kept:
            chosen, best = [*chosen, member], metrics
        what = "added" if kept else "left out"
        line = setup.task.best_line(metrics)
        say(f"{what}: {setup.config.inputs[member]} (with it {line})")
    return chosen, best


def _best_first(task: Task, metrics: list[Metrics]) -> list[int]:
    """Positions of the metrics, best first; equal ones stay in their order."""
    order: list[int] = []
    for number, own in enumerate(metrics):
        worse = [at for at, other in enumerate(order) if task.is_better(own, metrics[other])]
        order.insert(worse[0] if worse else len(order), number)
    return order


def _fill(setup: _Setup, states: Sequence[StateDict]) -> str:
    """Put the average into the network; returns where its batch norm statistics come from."""
    load_state(setup.model, mean_of(states), "the average")
    if len(states) == 1:
        return "that of the only member"
    if setup.train is None:
        return "the members' statistics, averaged, since no images were given"
    count = estimate_statistics(
        setup.model,
        setup.train,
        setup.info.preprocessing,
        setup.runtime,
        most=setup.config.statistics_images,
        seed=setup.config.seed,
    )
    return f"estimated on {count} training images, prepared as for evaluation"


def _measure(setup: _Setup) -> Metrics:
    assert setup.val is not None
    evaluation = evaluate_images(
        setup.model, setup.val, setup.task, setup.info.preprocessing, setup.runtime
    )
    assert evaluation is not None
    return evaluation.metrics


def _data(setup: _Setup, weights: list[Weights]) -> dict[str, Any] | None:
    """The images of the average; without any, those of the members if all had the same."""
    if setup.train is None:
        same = all(found.data == weights[0].data for found in weights)
        return weights[0].data if same else None
    settings = settings_of(setup.config) | setup.runtime.settings()
    names = setup.info.class_names
    run = describe_run(
        "average", settings, setup.runtime, setup.task.name, names, setup.train, setup.val
    )
    return data_note(run["data"])


def run(config: AverageConfig) -> int:
    """Average and print."""
    average(config)
    return DONE
