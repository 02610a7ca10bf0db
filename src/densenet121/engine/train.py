"""Training: ``train(config)`` is one run, from top to bottom."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from densenet121.config import TrainConfig
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.device import set_exact
from densenet121.distributed.ranks import any_rank, copy_buffers_from_rank_0, from_rank_0
from densenet121.engine.agreement import check_same_data, check_same_settings, entered_by_all
from densenet121.engine.balance import log_balance
from densenet121.engine.build import build_training
from densenet121.engine.epoch import train_epoch
from densenet121.engine.error_maps import draw_error_maps
from densenet121.engine.evaluation import Evaluation
from densenet121.engine.first_batch import draw_first_batch
from densenet121.engine.images import find_datasets
from densenet121.engine.messages import (
    TimeLeft,
    log_advice,
    log_data,
    log_end,
    log_trained,
)
from densenet121.engine.plan import EpochPlan
from densenet121.engine.precision import log_precision
from densenet121.engine.resume import (
    check_resumable,
    complete_older,
    recorded_steps,
    renumber,
    resume_mindspore,
)
from densenet121.engine.setup import check_call, pick_task
from densenet121.engine.start import (
    effective_settings,
    find_start_of,
    first_weights,
    log_start,
    make_run_folder,
)
from densenet121.engine.state import Training, restore, save_checkpoint, share_bad_images
from densenet121.engine.validation import check_validation, save_last, validate_epoch
from densenet121.runs.evaluations import write_error_maps
from densenet121.runs.folder import RunFolder
from densenet121.runs.layout import LAST_WEIGHTS
from densenet121.runs.record import describe_run
from densenet121.runtime import joined
from densenet121.tasks import Task
from densenet121.utils.callers_modes import own_modes
from densenet121.utils.logging import log, log_settings, run_log
from densenet121.utils.plural import plural
from densenet121.utils.signals import StopRequest

# The training and the validation images, if there are any; None for those of the settings.
Sides = tuple[ImageDataset, ImageDataset | None] | None


@dataclass(frozen=True)
class TrainResult:
    """Result of ``train``.

    Attributes:
        folder: the run folder.
        stopped: a signal stopped the run before its last epoch; the state was saved.
        evaluation: the last epoch on the validation images; None without such images, or if a
            resumed run had nothing left to do.
        bad_images: path to reason of each training image that was skipped.
        bad_val_images: the same of the validation images.
        rank: rank of this process; only rank 0 has written the folder.
    """

    folder: Path
    stopped: bool
    evaluation: Evaluation | None
    bad_images: dict[str, str]
    bad_val_images: dict[str, str]
    rank: int


@own_modes()
def train(config: TrainConfig, task: Task | None = None, images: Sides = None) -> TrainResult:
    """Train a network as ``config`` says, from the start or from a checkpoint.

    Args:
        config: the settings.
        task: what the labels mean (default: one class per image).
        images: those to train and to validate on, in place of those that the settings name.

    Raises:
        UsageError: a setting cannot be used, or differs from the run that is resumed.
        InputError: data or weights cannot be used, or the loss is nan or infinite.
        OSError: the run folder cannot be written.
    """
    check_call(config, TrainConfig, task)
    # 1. Process, device, arithmetic.
    with StopRequest() as stop, joined(config, lambda: stop.requested) as runtime:
        check_same_settings(config, runtime)
        set_exact(runtime.device, bool(config.exact))

        # 2. Data and task.
        dataset, val_dataset = images or find_datasets(config)
        task = pick_task(config, task, dataset)

        # 3. Start: a run to resume overrides pretrained weights, which override fresh ones.
        start = find_start_of(config, runtime, dataset, val_dataset)
        weights = first_weights(config, start)

        # 4. Network, optimiser, loss scale, schedule.
        info, training, plan, note = build_training(
            config, task, dataset, runtime, weights, start.checkpoint
        )
        check_validation(plan, val_dataset)
        settings = effective_settings(config, runtime, info, start)
        run = describe_run(
            "train", settings, runtime, task.name, dataset.class_names, dataset, val_dataset
        )
        run |= {"world_size": runtime.process.world_size} | recorded_steps(plan, start.checkpoint)
        check_same_data({"train": dataset, "val": val_dataset})
        warnings = [*start.warnings]
        if start.checkpoint:
            warnings += check_resumable(start.checkpoint, run, config)
            restore(training, start.checkpoint, runtime.process.rank)
            complete_older(training.state, dataset, val_dataset)
            warnings += renumber(training.state, start.checkpoint, run)
        elif start.mindspore and weights:
            note = resume_mindspore(training, weights, start.mindspore, plan.steps)

        # 5. Run folder and log.
        folder, stamp = make_run_folder(config, runtime, start, info, run)
        logged = run_log(folder.path, stamp, runtime.process.rank, lambda: folder.good)
        with entered_by_all(folder.alone(start.found)), logged, folder:
            log_settings(settings)
            log.info("run folder: %s", folder.path)
            log.info("%s; %s", runtime.process.note, runtime)
            log_data(dataset, val_dataset, plan.step_size, plan.steps, runtime.process.world_size)
            log_balance(config, dataset, task)
            log_advice(config, dataset, plan)
            log_precision(training.model, plan)
            log_trained(training, plan)
            log_start(note, warnings, start, training.state, config.max_epoch)
            state = training.state
            draw = partial(draw_first_batch, plan)
            state.forget(from_rank_0(folder.begin(state.step, start.checkpoint, draw)))

            # 6. Epochs.
            log.info("start network train...")
            evaluation, time_left = None, TimeLeft(state.evaluated_epochs)
            while not state.is_done(config.max_epoch) and not any_rank(stop.requested):
                if state.step < (state.evaluated_epochs + 1) * plan.steps:
                    if training.freeze(plan.frozen_in(state.evaluated_epochs), plan.freeze_bn):
                        log_trained(training, plan)
                    if not train_epoch(training, plan, folder, lambda: stop.requested):
                        break
                    log.info("local passed")
                    copy_buffers_from_rank_0(training.model)
                if val_dataset and plan.validates(state.evaluated_epochs):
                    # Validation may take long: save the trained epoch before it.
                    save_checkpoint(training, folder)
                    evaluation = validate_epoch(
                        training, plan, val_dataset, folder, lambda: stop.requested
                    )
                    if evaluation is None:
                        break
                state.evaluated_epochs += 1
                save_last(training, folder)
                save_checkpoint(training, folder)
                if not state.progress.ended:
                    time_left.log(plan, state.evaluated_epochs)

            # 7. Close.
            share_bad_images(state)
            stopped = not state.is_done(config.max_epoch)
            if stopped:
                _save_stopped(training, folder)
            else:
                if evaluation is not None and folder.is_first:
                    _show_errors(evaluation, training, plan, folder)
                _complete_last(training, folder)
                log_end(training, plan, folder.path)
    return TrainResult(folder.path, stopped, evaluation, *state.unreadable, runtime.process.rank)


def _show_errors(
    evaluation: Evaluation, training: Training, plan: EpochPlan, folder: RunFolder
) -> None:
    device = plan.runtime.device
    maps = draw_error_maps(evaluation, training.model, plan.preprocessing, device)
    with folder.writing():
        write_error_maps(folder.path, maps)


def _complete_last(training: Training, folder: RunFolder) -> None:
    """The weights of the last epoch in a new folder that the checkpoint of a whole run began."""
    if not (folder.path / LAST_WEIGHTS).exists():
        save_last(training, folder)


def _save_stopped(training: Training, folder: RunFolder) -> None:
    copy_buffers_from_rank_0(training.model)
    saved = save_checkpoint(training, folder)
    log.warning(
        "stopped by a signal after %s; saved %s; continue with `resume` auto `output_dir` %s",
        plural(training.state.step, "step"),
        from_rank_0(saved),
        folder.path,
    )
