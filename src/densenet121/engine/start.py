"""The start of a training run: where it begins, its state, its settings and its folder."""

from typing import Any

import torch

from densenet121.checkpoint.foreign.timm_config import weights_in
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import ModelInfo
from densenet121.checkpoint.weights import Weights
from densenet121.config import TrainConfig, absolute, effective, settings_of
from densenet121.config.loss import ASL_SETTINGS
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.distributed.ranks import from_rank_0
from densenet121.engine.agreement import check_same_weights
from densenet121.engine.balance import weights_setting
from densenet121.engine.distillation import teacher_setting
from densenet121.engine.images import check_apart
from densenet121.engine.state import RunState, Training
from densenet121.network import (
    DenseNet,
    frozen_stages,
    set_frozen,
    set_recompute,
    set_triton,
    stages,
    synchronise_norms,
)
from densenet121.optimizers import get_param_groups, make_optimizer, stage_factors
from densenet121.runs.checkpoints import Start, find_start
from densenet121.runs.folder import RunFolder
from densenet121.runs.layout import make_folder
from densenet121.runtime import Runtime
from densenet121.utils.errors import UsageError
from densenet121.utils.logging import log
from densenet121.utils.plural import plural


def find_start_of(config: TrainConfig, runtime: Runtime, *sides: ImageDataset | None) -> Start:
    """Where the run begins, as found by rank 0.

    Raises:
        UsageError, InputError: as ``find_start``; or its folder is among the class folders of
            ``sides``.
    """
    output_dir = absolute(config.output_dir) if config.output_dir else None
    resume = config.resume if config.resume in (None, "auto") else absolute(config.resume)
    rank = runtime.process.rank
    start = from_rank_0(
        find_start(resume, output_dir, absolute(config.ckpt_path), rank) if rank == 0 else None
    )
    assert start is not None
    field = "output_dir" if config.output_dir else "ckpt_path"
    check_apart(start.folder or absolute(config.ckpt_path), field, *sides)
    return start


def first_weights(config: TrainConfig, start: Start) -> Weights | None:
    """The weights that a fresh run starts from; None for new ones or for a resumed run.

    Raises:
        InputError: they cannot be read, or differ between ranks; a UsageError for other `channels`
            than those of a run of MindSpore, and where new weights would be frozen, because there
            is nothing to resume.
    """
    file = start.mindspore or (absolute(config.pretrained) if config.pretrained else None)
    config.check_frozen(has_weights=bool(file or start.checkpoint))
    if start.checkpoint:
        return None
    weights = read_weights(file) if file else None
    check_same_weights([weights_in(file) or file] if file else [])
    if weights is None or file is None:
        return None
    weights.check_finite(file)
    if start.mindspore and config.channels not in (None, weights.channels):
        raise UsageError(
            f"`channels` is {config.channels}, but the run of {file} has images of "
            f"{weights.channels}; pass it as `pretrained`, which converts its weights"
        )
    return weights.with_channels(config.channels)


def begin_training(model: DenseNet, config: TrainConfig, runtime: Runtime) -> Training:
    """The training state before the first step."""
    model.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.sync_batch_norm and runtime.process.world_size > 1:
        synchronise_norms(model)
    set_recompute(model, bool(config.recompute))
    if config.triton:
        set_triton(model, runtime.device)
    parts = stages(model)
    frozen = tuple(frozen_stages(model, config.freeze))
    set_frozen(model, frozen, config.freeze_bn)
    factors = stage_factors(list(parts), config.head_lr_mult, config.layer_lr_decay)
    if not config.freeze_epochs:  # then they never learn
        factors = {name: factor for name, factor in factors.items() if name not in frozen}
    optimizer = make_optimizer(
        config.optimizer,
        get_param_groups(model, config.weight_decay, parts, factors),
        lr=config.lr,
        momentum=config.momentum_value,
        betas=config.beta_values,
        eps=1e-8 if config.eps is None else config.eps,
        amsgrad=bool(config.amsgrad),
    )
    return Training.begin(
        model,
        optimizer,
        scale_loss=runtime.precision == torch.float16,
        compress=config.gradient_compression == "bf16",
        compile=config.compile,
        graphs=bool(config.cuda_graphs),
        exact=bool(config.exact),
        ema_decay=config.ema_decay,
        frozen=frozen,
    )


def effective_settings(
    config: TrainConfig, runtime: Runtime, info: ModelInfo, start: Start
) -> dict[str, Any]:
    """The settings with their effective values."""
    before = start.checkpoint.content["run"]["settings"] if start.checkpoint else {}
    height, width = info.preprocessing.image_size
    adam = config.optimizer in ("adam", "adamw")
    return effective(settings_of(config)) | {
        "num_classes": len(info.class_names),
        "image_size": config.image_size or before.get("image_size", f"{height},{width}"),
        "eval_resize": info.preprocessing.eval_resize,
        "depth": None if info.preprocessing.depth == 8 else info.preprocessing.depth,
        "window": info.preprocessing.window,
        "variant": info.variant,
        "channels": None if info.preprocessing.channels == 3 else info.preprocessing.channels,
        "class_weights": weights_setting(config),
        "focal_gamma": config.gamma,
        **dict(zip(ASL_SETTINGS, config.asymmetry or (None,) * 3, strict=True)),
        "teacher": teacher_setting(config),
        "distill_alpha": config.alpha,
        "distill_temperature": config.temperature,
        "T_max": config.T_max or config.max_epoch,
        "momentum": None if adam else config.momentum_value,
        **runtime.settings(),
    }


def make_run_folder(
    config: TrainConfig, runtime: Runtime, start: Start, info: ModelInfo, run: dict[str, Any]
) -> tuple[RunFolder, str]:
    """The run folder, and the date for the name of the log.

    All folders have the date of rank 0. On other hosts each rank makes its own folder.
    """
    rank, parent = runtime.process.rank, absolute(config.ckpt_path)
    first = make_folder(start.folder, parent) if rank == 0 else None
    stamp = from_rank_0(first[1] if first else "")
    output_dir = absolute(config.output_dir) if config.output_dir else None
    own = output_dir or (parent / start.folder.name if start.folder else None)
    path = first[0] if first else make_folder(own, parent, stamp)[0]
    folder = RunFolder(
        path,
        rank=rank,
        keep=config.keep_checkpoint_max,
        info=info,
        run=run,
        resumed_from=start.checkpoint.path if start.checkpoint else None,
        saves=rank == 0 or not config.is_save_on_master,
        log_to=config.trackers,
    )
    return folder, stamp


def log_start(
    note: str, warnings: list[str], start: Start, state: RunState, max_epoch: int
) -> None:
    """Log where the weights come from, what a resume found, and whether nothing is left to do."""
    if note:
        log.info(note)
    for warning in warnings:
        log.warning(warning)
    if start.checkpoint:
        log.info("resumed from %s", start.checkpoint.path)
        were = "was" if state.step == 1 else "were"
        log.info("%s %s already done", plural(state.step, "step"), were)
    if state.is_done(max_epoch):
        log.warning(
            "nothing is left to do: %s after %d of %d epochs",
            "`patience` has ended the run" if state.progress.ended else "the run has ended",
            state.evaluated_epochs,
            max_epoch,
        )
