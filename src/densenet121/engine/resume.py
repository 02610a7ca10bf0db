"""Check whether a run can be resumed from a checkpoint, and collect warnings about it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from densenet121.checkpoint.weights import Weights
from densenet121.config import TrainConfig, differences
from densenet121.datasets.image_dataset import ImageDataset, check_same_classes
from densenet121.engine.plan import (
    EpochPlan,
    first_steps,
    frozen_epochs,
    make_schedule,
    mixed_epochs,
)
from densenet121.engine.state import RunState, Training
from densenet121.runs.checkpoints import Checkpoint
from densenet121.runs.record import steps_as_now
from densenet121.utils.errors import InputError, UsageError

# Names of the number of steps done, in MindSpore's Momentum and its ModelCheckpoint.
_STEP_NAMES = ("global_step", "step_num")


def check_resumable(checkpoint: Checkpoint, run: dict[str, Any], config: TrainConfig) -> list[str]:
    """Refuse a resume that would not continue the same run; return warnings where it may not.

    A run may become longer if no step that is done would have been another.

    Raises:
        UsageError: a setting that matters differs.
        InputError: the task or the classes differ.
    """
    before = checkpoint.content["run"]
    if checkpoint.info.task != run["task"]:
        raise UsageError(
            f"cannot resume {checkpoint.path} with another task: it was {checkpoint.info.task}, "
            f"and is now {run['task']}"
        )
    epochs = before["settings"]["max_epoch"]
    longer, shorter = config.max_epoch > epochs, config.max_epoch < epochs
    free = ["max_epoch", "T_max"] if longer else []
    if shorter and all(_t_max_follows(each["settings"]) for each in (before, run)):
        free.append("T_max")  # not passed: only `max_epoch` is another
    if longer and before["settings"].get("freeze_epochs") == "auto" and config.freeze_epochs:
        free.append("freeze_epochs")  # `_check_longer` compares the epochs
    changed = differences(before["settings"], run["settings"], free)
    if changed:
        advice = f"; a run may become longer, but not shorter: pass `max_epoch` {epochs}"
        raise UsageError(
            f"cannot resume {checkpoint.path} with other settings: {'; '.join(changed)}"
            f"{advice if shorter else ''}"
        )
    extra = _check_longer(checkpoint, before, config) if longer else ""
    check_same_classes(
        before["class_names"], str(checkpoint.path), run["class_names"], "the training data"
    )
    warnings = [f"{extra}: it stays, and the best weights may be of it"] if extra else []
    for split in ("train", "val"):
        was, now = before["data"][split], run["data"][split]
        if (was and was["fingerprint"]) != (now and now["fingerprint"]):
            count = [data["pictures"] if data else 0 for data in (was, now)]
            warnings.append(
                f"the {split} data changed since {checkpoint.path.name}: {count[0]} images then, "
                f"{count[1]} now; the result will differ from that of an uninterrupted run"
            )
    for name, (was, now) in _changes(before, run).items():
        warnings.append(f"{name} was {was}, is now {now}: {_effect(name)}")
    if before["versions"]["torch"] != run["versions"]["torch"]:
        warnings.append(
            f"torch was {before['versions']['torch']}, is now {run['versions']['torch']}: the "
            "result may differ in the last bits"
        )
    return warnings


def _t_max_follows(settings: Mapping[str, Any]) -> bool:
    """Whether `T_max` is that of a run without it."""
    return bool(settings["T_max"] == settings["max_epoch"])


def _check_longer(checkpoint: Checkpoint, before: Mapping[str, Any], config: TrainConfig) -> str:
    """Refuse a larger `max_epoch` if it changes a step that is done, or a validation that counts.

    Returns:
        A validation that the longer run would not have had, and that changes no step; or "".

    Raises:
        UsageError: the text has the first such step, and what to do.
    """
    settings, state = before["settings"], checkpoint.content["state"]
    t_max = settings["T_max"] if config.lr_scheduler == "cosine_annealing" else None
    freeze = settings.get("freeze_epochs", config.freeze_epochs)
    then = replace(config, max_epoch=settings["max_epoch"], T_max=t_max, freeze_epochs=freeze)
    steps = before["steps_per_epoch"]
    extra = _other_validation(then, state["evaluated_epochs"])
    counts = config.patience is not None or config.lr_scheduler == "plateau"
    reason, advice = (
        _other_rate(then, config, steps, state["step"])
        or _other_layers(then, config, before, state["step"])
        or _other_images(then, config, steps, state["step"])
        or (extra if counts else "", "")
    )
    if reason:
        raise UsageError(
            f"cannot resume {checkpoint.path} with `max_epoch` {config.max_epoch}, because it was "
            f"{then.max_epoch} and a step that is done would change: {reason}; start a new "
            f"run with `pretrained`{advice}"
        )
    return extra


def _other_rate(
    then: TrainConfig, now: TrainConfig, epoch_steps: int, done: int
) -> tuple[str, str] | None:
    """The first step that would have had another learning rate, and further advice."""
    rate_then, rate_now = (make_schedule(config, epoch_steps) for config in (then, now))
    for step in range(done):
        if rate_then(step) != rate_now(step):
            reason = (
                f"with `lr_scheduler` {now.lr_scheduler} the learning rate of step {step} was "
                f"{rate_then(step):g} and would have been {rate_now(step):g}"
            )
            return reason, "" if then.T_max is None else f", or pass `T_max` {then.T_max}"
    return None


def _other_layers(
    then: TrainConfig, now: TrainConfig, before: Mapping[str, Any], done: int
) -> tuple[str, str] | None:
    """The first epoch that would have been frozen or not, and further advice."""
    if now.freeze == "none":
        return None
    was, would = (frozen_epochs(config, first_steps(before)) for config in (then, now))
    first, epoch_steps = min(was, would), before["steps_per_epoch"]
    if was == would or done <= first * epoch_steps:
        return None
    frozen, all_learn = f"`freeze` {now.freeze}", "all layers learning"
    had, has = (frozen, all_learn) if was > would else (all_learn, frozen)
    reason = (
        f"step {first * epoch_steps}, the first of epoch {first + 1}, had {had} and would have had "
        f"{has}"
    )
    return reason, f", or pass `freeze_epochs` {was}" if was else ""


def _other_images(
    then: TrainConfig, now: TrainConfig, epoch_steps: int, done: int
) -> tuple[str, str] | None:
    """The first epoch whose images would have been mixed."""
    last_mixed = mixed_epochs(then)
    if -(-done // epoch_steps) > last_mixed != mixed_epochs(now):
        return f"epoch {last_mixed + 1} was without mixed images, and would have had them", ""
    return None


def _other_validation(then: TrainConfig, ended: int) -> str:
    """A validation that only the last epoch had, or ""."""
    if ended == then.max_epoch and ended % then.val_interval:
        return (
            f"epoch {ended} was validated as the last, which `val_interval` {then.val_interval} "
            "would not have done"
        )
    return ""


def _changes(before: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What of the machine and the ranks differs, and matters to the last bits: (was, is now)."""
    names = ["device", "threads", "kernels", "world_size"]
    # Older checkpoints do not record all of them.
    pairs = {name: (before.get(name, run[name]), run[name]) for name in names}
    was, now = before.get("accelerator"), run["accelerator"]
    if was and now:
        # Another device of the same model is the same.
        pairs["device"] = was["type"], now["type"]
        pairs |= {name: (was.get(name), now.get(name)) for name in now if name != "type"}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _effect(name: str) -> str:
    """What a change of `_changes` does to the result."""
    if name == "world_size":
        return "a step has the images of all ranks, so the result will differ"
    return "sums are rounded in another order, so the result may differ in the last bits"


def recorded_steps(plan: EpochPlan, checkpoint: Checkpoint | None) -> dict[str, int]:
    """What the record of a run says of the steps of an epoch: now, and at its start if others."""
    first = first_steps(checkpoint.content["run"]) if checkpoint else plan.steps
    other: dict[str, int] = {} if first == plan.steps else {"first_steps_per_epoch": first}
    return {"steps_per_epoch": plan.steps} | other


def renumber(state: RunState, checkpoint: Checkpoint, run: Mapping[str, Any]) -> list[str]:
    """Adjust the step count if an epoch has other steps, by other data or ranks; say so."""
    before, steps = checkpoint.content["run"], run["steps_per_epoch"]
    in_epoch = state.step - state.evaluated_epochs * before["steps_per_epoch"]
    step = state.evaluated_epochs * steps + steps_as_now(in_epoch, before, run)
    if (steps, step) == (before["steps_per_epoch"], state.step):
        return []
    state.step = step
    return [
        f"an epoch had {before['steps_per_epoch']} steps and now has {steps}; continuing at step "
        f"{step}"
    ]


def complete_older(state: RunState, train: ImageDataset, val: ImageDataset | None) -> None:
    """Add what older checkpoints lack: of the validation, its number of images and its bad ones."""
    if val is None:
        return
    bad = state.bad_images | state.bad_val_images
    if state.best is not None and "total" not in state.best:
        state.best["total"] = len(val) - sum(path in bad for path in val.paths)
    if state.bad_images:
        for path in sorted((state.bad_images.keys() & set(val.paths)) - set(train.paths)):
            state.bad_val_images.setdefault(path, state.bad_images.pop(path))


def resume_mindspore(training: Training, weights: Weights, file: Path, epoch_steps: int) -> str:
    """Continue a run of the original from its training checkpoint; returns the log message.

    Its momentum is defined as ours: v = momentum * v + g, p -= lr * v, the rate outside of v. The
    network already has the weights.

    Raises:
        InputError: the checkpoint has no momentum or step, or another number of classes.
    """
    parameters = dict(training.model.named_parameters())
    missing = [name for name in parameters if name not in weights.momentum]
    step = next((weights.state[name] for name in _STEP_NAMES if name in weights.state), None)
    if missing or step is None:
        what = f"no momentum of {missing[0]}" if missing else f"none of {', '.join(_STEP_NAMES)}"
        raise InputError(
            f"{file}: {what} in this file, so the run cannot be resumed; "
            "pass it as `pretrained` to use its weights"
        )
    if weights.num_classes != training.model.num_classes:
        raise InputError(
            f"{file} is a run with {weights.num_classes} classes, but the data has "
            f"{training.model.num_classes}; pass it as `pretrained` to use its weights with a new "
            "head"
        )
    for name, parameter in parameters.items():
        buffer = torch.empty_like(parameter).copy_(weights.momentum[name])
        training.optimizer.state[parameter]["momentum_buffer"] = buffer.detach()
    state = training.state
    state.step = int(step)
    if state.step < 0:
        raise InputError(f"{file}: the step must be at least 0, got {state.step}")
    state.evaluated_epochs = state.step // epoch_steps
    return (
        f"resumed a MindSpore run from {file}: weights, running statistics, momentum of "
        f"{len(parameters)} parameters, {state.step} steps done; continuing at epoch "
        f"{state.evaluated_epochs}, step {state.step % epoch_steps} of it (both from 0); the file "
        "has no image order, loss scale or validation, so these start fresh"
    )
