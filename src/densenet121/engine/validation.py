"""The validation after an epoch: what is the best, and whether it still improves."""

import math
from collections.abc import Callable

import numpy as np
from torch import nn

from densenet121.datasets.image_dataset import ImageDataset
from densenet121.distributed.ranks import copy_buffers_from_rank_0
from densenet121.engine.evaluation import Evaluation, evaluate_images
from densenet121.engine.messages import log_followed
from densenet121.engine.plan import EpochPlan
from densenet121.engine.state import Training, check_finite
from densenet121.runs.best import plain_metrics
from densenet121.runs.folder import RunFolder
from densenet121.runs.layout import (
    BEST_AVERAGE,
    BEST_WEIGHTS,
    LAST_AVERAGE,
    LAST_WEIGHTS,
)
from densenet121.tasks import Metrics, MultiLabel, SingleLabel, Task
from densenet121.tasks.given import metric_of
from densenet121.tasks.single_label.each_class import MOST_CLASSES
from densenet121.utils.errors import InputError, NotFiniteError, UnreadableError, UsageError
from densenet121.utils.logging import log
from densenet121.utils.plural import plural


def check_validation(plan: EpochPlan, val: ImageDataset | None) -> None:
    """Refuse settings that need a validation, or a metric that it or the task does not have.

    Raises:
        UsageError: the text names the setting.
    """
    known = plan.task.best_metrics
    if plan.best_metric is not None and plan.best_metric not in known:
        raise UsageError(
            f"`best_metric` must be one of {', '.join(known)} for the task {plan.task.name}, "
            f"got {plan.best_metric}"
        )
    needed = {
        "`patience`": plan.patience is not None,
        "`best_metric`": plan.best_metric is not None,
        "`lr_scheduler` plateau": plan.plateau_patience is not None,
        f"`val_interval` {plan.val_interval}": plan.val_interval > 1,
    }
    for name, asked in needed.items():
        if asked and val is None:
            raise UsageError(
                f"{name} needs validation images: put a val folder beside train, or pass `val_dir`"
            )
    metric = plan.best_metric or next(iter(known))
    if val is None or metric == "loss":
        return
    followed = [name for name, asked in needed.items() if asked and "val_interval" not in name]
    if isinstance(plan.task, MultiLabel) and followed and not val.has_both_kinds:
        raise UsageError(
            f"{followed[0]} follows {metric}, but no label has both positive and negative images "
            f"in {val.source}; pass other validation images, or `best_metric` loss"
        )
    if isinstance(plan.task, SingleLabel) and metric in ("auroc", "quadratic_kappa"):
        _check_classes(metric, val)


def _check_classes(metric: str, val: ImageDataset) -> None:
    """Refuse validation images, of one class each, that have no AUROC or kappa."""
    if metric == "auroc" and len(val.class_names) > MOST_CLASSES:
        raise UsageError(
            f"`best_metric` auroc is for at most {MOST_CLASSES} classes, and {val.source} has "
            f"{len(val.class_names)}; pass top1, balanced_accuracy or loss"
        )
    if len(np.unique(val.labels)) < 2:
        raise UsageError(
            f"`best_metric` is {metric}, but {val.source} has images of one class alone; pass "
            "other validation images, or `best_metric` loss"
        )


def validate_epoch(
    training: Training,
    plan: EpochPlan,
    val: ImageDataset,
    folder: RunFolder,
    should_stop: Callable[[], bool],
) -> Evaluation | None:
    """Validate the weights and the averaged ones, and save those that are the best so far.

    Returns:
        The validation of the plain weights; None if ``should_stop`` returned true.

    Raises:
        InputError: an image cannot be read, a logit is nan or infinite, or a file cannot be
            written; the text names the last good checkpoint.
    """
    state = training.state
    averaged = None
    try:
        evaluation = _evaluate(training.model, plan, val, should_stop)
        if evaluation is not None and training.average is not None:
            copy_buffers_from_rank_0(training.average.model)
            averaged = _evaluate(training.average.model, plan, val, should_stop)
    except UnreadableError as error:
        raise folder.unreadable(error, folder.good) from None
    except NotFiniteError as error:
        raise InputError(
            f"{error.fault} in the validation after step {state.step - 1}: the training diverged; "
            f"{folder.good}; a lower `lr` or `warmup_epochs` may help"
        ) from None
    if evaluation is None or (training.average is not None and averaged is None):
        return None
    evaluation.log()
    log_followed(plan, evaluation.metrics)
    row = {"epoch": state.evaluated_epochs, "step": state.step - 1}
    folder.note({"kind": "eval"} | row | evaluation.metrics)
    folder.show("confusion", row["step"], evaluation.draw_confusion)
    state.bad_val_images.update(evaluation.bad)
    if is_better(plan.task, plan.best_metric, evaluation.metrics, state.best):
        state.best_epoch, state.best = state.evaluated_epochs, evaluation.metrics
        origin = row | plain_metrics(evaluation.metrics)
        folder.save_weights(BEST_WEIGHTS, training.model.state_dict(), origin)
    if averaged is not None and training.average is not None:
        log.info("with averaged weights:")
        averaged.log()
        log_followed(plan, averaged.metrics)
        folder.note({"kind": "eval_ema"} | row | averaged.metrics)
        if is_better(plan.task, plan.best_metric, averaged.metrics, state.best_average):
            state.best_average_epoch = state.evaluated_epochs
            state.best_average = averaged.metrics
            weights = training.average.model.state_dict()
            folder.save_weights(BEST_AVERAGE, weights, row | plain_metrics(averaged.metrics))
    # Of the last weights, not the best, which were selected on these same images.
    if folder.is_first:
        bad = {"bad_training_images": len(state.bad_images)} if state.bad_images else {}
        content = evaluation.to_json(LAST_WEIGHTS) | row | evaluation.metrics | bad
        with folder.writing():
            evaluation.write(folder.path, content)
    _follow_progress(training, plan, (averaged or evaluation).metrics)
    return evaluation


def save_last(training: Training, folder: RunFolder) -> None:
    """Save the weights of the last epoch, and the averaged ones.

    Raises:
        InputError: they are nan or infinite, or a file cannot be written; the text names the last
            good checkpoint.
    """
    check_finite(training, folder, alone=True)  # after an epoch all ranks have the same
    origin = {"epoch": training.state.evaluated_epochs - 1, "step": training.state.step - 1}
    folder.save_weights(LAST_WEIGHTS, training.model.state_dict(), origin)
    if training.average is not None:
        folder.save_weights(LAST_AVERAGE, training.average.model.state_dict(), origin)


def is_better(task: Task, metric: str | None, metrics: Metrics, than: Metrics | None) -> bool:
    """Whether a validation is better than the best so far, by ``metric`` or the task's own rule."""
    if than is None:
        return True
    if metric is None:
        return task.is_better(metrics, than)
    # The best so far may be of a version that did not have this metric.
    value, before = metric_of(task, metrics, metric), than.get(metric)
    if value is None or before is None:  # not defined
        return value is not None
    gain = value - before
    return bool(gain > 0 if task.best_metrics[metric] else gain < 0)


def _follow_progress(training: Training, plan: EpochPlan, metrics: Metrics) -> None:
    """Count a validation for patience and the plateau schedule, and log what follows from it."""
    progress, known = training.state.progress, plan.task.best_metrics
    name = plan.best_metric or next(iter(known))
    before, value = progress.lr_factor, metric_of(plan.task, metrics, name)
    progress.add(
        math.nan if value is None else float(value),
        higher_is_better=known[name],
        min_delta=plan.min_delta,
        patience=plan.patience,
        plateau_patience=plan.plateau_patience,
        factor=plan.plateau_factor,
    )
    if progress.lr_factor != before:
        log.info(
            "%s has not improved for %s: the learning rate is multiplied by %g",
            name,
            plural(plan.plateau_patience or 0, "validation"),
            plan.plateau_factor,
        )
    if progress.ended:
        log.info(
            "%s has not improved for %s (`patience`): the run ends",
            name,
            plural(progress.waited, "validation"),
        )


def _evaluate(
    model: nn.Module, plan: EpochPlan, val: ImageDataset, should_stop: Callable[[], bool]
) -> Evaluation | None:
    return evaluate_images(
        model,
        val,
        plan.task,
        plan.preprocessing,
        plan.runtime,
        skip_bad=plan.skip_bad,
        should_stop=should_stop,
    )
