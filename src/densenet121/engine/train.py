"""Training: ``train(config)`` is one run, from top to bottom."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import torch

from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import ModelInfo, Preprocessing
from densenet121.config import (
    AMP_NAMES,
    TrainConfig,
    absolute,
    default_eval_resize,
    default_workers,
    settings_of,
)
from densenet121.datasets.image_dataset import check_num_classes
from densenet121.datasets.transforms import (
    MEAN,
    STD,
    EvalTransform,
    parse_eval_resize,
)
from densenet121.device import default_batch_size, pick_device, pick_precision
from densenet121.distributed.ranks import (
    any_rank,
    from_rank_0,
    gather,
    join,
    process_group,
    take_buffers_of_rank_0,
)
from densenet121.engine.error_maps import write_error_maps
from densenet121.engine.evaluation import (
    Evaluation,
    evaluate_images,
    log_counts,
    metrics_of,
    result_of,
    write_results,
)
from densenet121.engine.messages import describe_arithmetic, log_advice, log_data, log_end
from densenet121.engine.resume import (
    check_resumable,
    check_same_data,
    renumber,
    resume_mindspore,
)
from densenet121.engine.setup import (
    check_size,
    find_datasets,
    make_plan,
    pick_variant,
    start_from,
)
from densenet121.engine.state import Training, restore
from densenet121.engine.steps import train_epoch
from densenet121.network import build, synchronise_norms
from densenet121.runs.folder import (
    RunFolder,
    describe_run,
    find_start,
    make_folder,
)
from densenet121.utils.logging import log, log_settings, run_log
from densenet121.utils.memory import keep_freed_memory
from densenet121.utils.signals import StopRequest
from densenet121.utils.var_init import initialise


@dataclass(frozen=True)
class TrainResult:
    """What a call of ``train`` came to.

    Attributes:
        folder: the run folder.
        stopped: a signal ended it before its last epoch, after saving.
        evaluation: of the last epoch on the validation images; None without such images, and
            where a resumed run had nothing left to do.
        bad_images: path to reason of each image that was left out.
        rank: of this process; rank 0 alone has written the folder.
    """

    folder: Path
    stopped: bool
    evaluation: Evaluation | None
    bad_images: dict[str, str]
    rank: int


def train(config: TrainConfig) -> TrainResult:
    """Train a network as ``config`` says, from the start or from where a checkpoint left it.

    Raises:
        UsageError: a setting cannot be used, or differs from the run that is resumed.
        InputError: data or weights cannot be used, or the loss is nan or infinite.
        OSError: the run folder cannot be written.
    """
    with StopRequest() as stop, contextlib.ExitStack() as stack:
        # 1. Process, device, arithmetic.
        process = join(bool(config.is_distributed), config.rank, config.group_size)
        device = pick_device(config.device, process.local_rank)
        stack.enter_context(process_group(process, device, config.timeout_seconds))
        precision = pick_precision(AMP_NAMES.get(config.amp or "", config.amp), device)
        workers = default_workers() if config.workers is None else config.workers
        if device.type == "cpu":
            keep_freed_memory()
        else:  # torch's CPU kernels repeat themselves as they are
            torch.use_deterministic_algorithms(True, warn_only=True)

        # 2. Data.
        dataset, val_dataset = find_datasets(config)
        num_classes = check_num_classes(dataset, config.num_classes)
        batch_size = config.per_batch_size or default_batch_size(device)
        height, width = config.size
        eval_resize = str(config.eval_resize or default_eval_resize(config.size))
        eval_transform = EvalTransform(height, width, parse_eval_resize(eval_resize))

        # 3. Start: a run to resume goes before given weights, and those before fresh ones.
        output_dir = absolute(config.output_dir) if config.output_dir else None
        start = from_rank_0(
            find_start(config.resume, output_dir, absolute(config.ckpt_path), process.rank)
            if process.rank == 0
            else None
        )
        assert start is not None
        pretrained = None
        weights_file = start.mindspore or (config.pretrained and absolute(config.pretrained))
        if weights_file and not start.checkpoint:
            pretrained = read_weights(weights_file)

        # 4. Network, optimiser, loss scale, schedule.
        variant = pick_variant(config, start.checkpoint, pretrained)
        preprocessing = Preprocessing(
            (height, width), eval_resize, tuple(MEAN.tolist()), tuple(STD.tolist())
        )
        info = ModelInfo(config.net, variant, dataset.class_names, preprocessing)
        model = build(config.net, num_classes=num_classes, variant=variant)
        for side in config.train_sizes:
            check_size(model, *side, min(batch_size, len(dataset)))
        initialise(model, torch.Generator().manual_seed(config.seed))
        head_note = start_from(model, pretrained, config, dataset) if pretrained else ""
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.sync_batch_norm and process.world_size > 1:
            synchronise_norms(model)
        training = Training.begin(
            model,
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            scale_loss=precision == torch.float16,
            compress=config.gradient_compression == "bf16",
        )
        plan = make_plan(config, dataset, device, precision, batch_size, workers, process)
        settings = settings_of(config) | {
            "num_classes": num_classes,
            "per_batch_size": batch_size,
            "eval_resize": eval_resize,
            "variant": variant,
            "amp": str(precision).removeprefix("torch."),
            "T_max": config.T_max or config.max_epoch,
            "workers": workers,
            "device": str(device),
        }
        run = describe_run("train", settings, device, dataset.class_names, dataset, val_dataset)
        run |= {"world_size": process.world_size}
        check_same_data(run)
        notes = [*start.warnings]
        if start.checkpoint:
            notes += check_resumable(start.checkpoint, run)
            restore(training, start.checkpoint, process.rank)
            notes += renumber(training.state, start.checkpoint, plan.steps)
        elif start.mindspore and pretrained:
            head_note = resume_mindspore(training, pretrained, start.mindspore, plan.steps)

        # 5. Run folder and log.
        # Rank 0 sets the date; on another host, or in a folder of its own, a rank makes its own.
        parent = absolute(config.ckpt_path)
        first = make_folder(start.folder, parent) if process.rank == 0 else None
        stamp = from_rank_0(first[1] if first else "")
        own = output_dir or (parent / start.folder.name if start.folder else None)
        path = first[0] if first else make_folder(own, parent, stamp)[0]
        folder = RunFolder(
            path,
            rank=process.rank,
            steps_per_epoch=plan.steps,
            keep=config.keep_checkpoint_max,
            info=info,
            run=run | {"steps_per_epoch": plan.steps},
            resumed_from=start.checkpoint.path if start.checkpoint else None,
            saves=process.rank == 0 or not config.is_save_on_master,
        )
        with run_log(path, stamp, process.rank):
            log_settings(settings)
            log.info("run folder: %s", path)
            log.info("%s; %s", process.note, describe_arithmetic(device, precision))
            log_data(dataset, val_dataset, batch_size * plan.micro_batches, plan.steps)
            log_advice(config, plan.steps)
            if head_note:
                log.info(head_note)
            for note in notes:
                log.warning(note)
            if start.checkpoint:
                log.info("resumed from %s", start.checkpoint.path)
                log.info("%d steps were done", training.state.step)
            folder.begin(training, start.checkpoint.path.parent if start.checkpoint else None)

            # 6. Epochs.
            log.info("start network train...")
            state = training.state
            evaluation = None
            while state.evaluated_epochs < config.max_epoch and not any_rank(stop.requested):
                epoch = state.evaluated_epochs
                if state.step < (epoch + 1) * plan.steps:
                    if not train_epoch(training, plan, folder, lambda: stop.requested):
                        break
                    log.info("local passed")
                    take_buffers_of_rank_0(model)
                    # Before validation as well: it may take long, and what is trained is trained.
                    folder.save_checkpoint(training)
                if val_dataset:
                    evaluation = evaluate_images(
                        model,
                        val_dataset,
                        eval_transform,
                        mean=plan.mean,
                        std=plan.std,
                        batch_size=batch_size,
                        device=device,
                        precision=precision,
                        workers=workers,
                        skip_bad=plan.skip_bad,
                        should_stop=lambda: stop.requested,
                        rank=process.rank,
                        world_size=process.world_size,
                    )
                    if evaluation is None:
                        break
                    _take_note(training, evaluation, folder)
                state.evaluated_epochs = epoch + 1
                origin = {"epoch": epoch, "step": state.step - 1}
                folder.save_weights("last.safetensors", training, origin)
                folder.save_checkpoint(training)

            # 7. Close.
            for bad_images in gather(state.bad_images):
                state.bad_images.update(bad_images)
            stopped = state.evaluated_epochs < config.max_epoch
            if stopped:
                take_buffers_of_rank_0(model)
                saved = folder.save_checkpoint(training)
                log.warning(
                    "stopped by a signal after %d steps; saved %s; go on with --resume auto "
                    "--output_dir %s",
                    state.step,
                    from_rank_0(saved),
                    path,
                )
            else:
                if evaluation is not None and folder.is_first:
                    write_error_maps(
                        path,
                        evaluation,
                        model,
                        eval_transform,
                        mean=plan.mean,
                        std=plan.std,
                        device=device,
                    )
                log_end(training.state, path, val_dataset)
    return TrainResult(path, stopped, evaluation, state.bad_images, process.rank)


def _take_note(training: Training, evaluation: Evaluation, folder: RunFolder) -> None:
    """Log a validation, and keep the weights if they are the best so far."""
    state = training.state
    epoch, counts = state.evaluated_epochs, evaluation.counts
    log_counts(counts)
    row = {"epoch": epoch, "step": state.step - 1} | metrics_of(counts)
    folder.note({"kind": "eval"} | row)
    state.bad_images.update(evaluation.bad)
    if counts.top1_correct > state.best_correct:
        state.best_epoch, state.best_correct = epoch, counts.top1_correct
        folder.save_weights("best.safetensors", training, row)
    # Of the last weights, not the best: those were chosen by looking at these very images.
    if folder.is_first:
        write_results(folder.path, evaluation, result_of(evaluation, "last.safetensors") | row)
