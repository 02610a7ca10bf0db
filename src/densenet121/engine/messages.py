"""Log messages of a training run about its data, its settings and its result."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from densenet121.config import TrainConfig
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.engine.plan import EpochPlan
from densenet121.engine.state import Training
from densenet121.lr_scheduler import lost_milestones
from densenet121.native.network import instruction_set
from densenet121.network import stages
from densenet121.runs.layout import BEST_AVERAGE, BEST_WEIGHTS, LAST_WEIGHTS
from densenet121.tasks import Metrics
from densenet121.utils.durations import duration
from densenet121.utils.errors import some
from densenet121.utils.logging import log
from densenet121.utils.plural import plural
from densenet121.utils.rounding import four_digits

# From here on SGD destroys pretrained weights; with fewer images the original's settings are poor.
_FAST_LR, _FEW_IMAGES = 0.05, 5000
_MOST_USED = 0.95  # share of the images; an epoch that uses less of them is worth a warning
# Pixels of a batch from which on the Triton kernels were the faster ones (an H100, CUDA graphs on
# both sides): 16 images of 224 x 224. With 32 of 64 x 64 they were slower.
_TRITON_PAYS = 16 * 224 * 224


def log_data(
    dataset: ImageDataset,
    val: ImageDataset | None,
    batch_size: int,
    epoch_steps: int,
    ranks: int = 1,
) -> None:
    """Log which data the run trains and validates on; a step has a batch on each rank."""
    for name, split in (("training", dataset), ("validation", val)):
        if split is None:
            log.info(
                "no %s images: there is no val/ beside train/ and no `val_dir`; so there will be "
                "%s and no %s (densenet121 split divides images)",
                name,
                LAST_WEIGHTS,
                BEST_WEIGHTS,
            )
            continue
        log.info("%s: %s in %s", name, split.summary, split.source)
        log_notes(split)
        if split.labels.ndim == 2:
            _log_labels_of_one_kind(name, split)
        if split.ignored:
            log.warning(
                "skipped %d files that are not images by their names, first %s",
                len(split.ignored),
                split.ignored[0],
            )
    if val is not None and (shared := images_in_both(dataset, val)):
        log.warning(
            "%d of %d validation images are training images, too, first %s: the validation is too "
            "good; densenet121 audit names all of them, and copies",
            len(shared),
            len(val),
            shared[0],
        )
    of_ranks = f", {batch_size} on each of {ranks} ranks" if ranks > 1 else ""
    images = min(batch_size * ranks, len(dataset))
    steps, each = plural(epoch_steps, "step"), plural(images, "image")
    log.info("an epoch has %s of %s%s", steps, each, of_ranks)
    if len(dataset) < batch_size:
        log.warning("the dataset has fewer images than `per_batch_size` %d", batch_size)


def images_in_both(train: ImageDataset, val: ImageDataset) -> list[str]:
    """The validation images that the list of the training images names, too.

    Only lists and tables are compared: images below two folders are different files.
    """
    if not (train.listed_in and val.listed_in) or train.read_one or val.read_one:
        return []
    places = list(_places(val))
    shared = set(places).intersection(_places(train))  # of which there may be millions
    return [path for path, place in zip(val.paths, places, strict=True) if place in shared]


def _places(images: ImageDataset) -> Iterator[str]:
    root = os.path.normpath(images.root)
    for path in images.paths:
        if path.startswith("/") or "//" in path or "./" in path:
            yield os.path.normpath(os.path.join(root, path))  # noqa: PTH118
        else:
            yield f"{root}/{path}"  # the same, in a fraction of the time


def _log_labels_of_one_kind(name: str, dataset: ImageDataset) -> None:
    """Warn of labels that cannot be learned, or have no AUROC."""
    for kind in ("positive", "negative"):
        without = dataset.labels_without(kind)
        if without:
            log.warning(
                "no %s image is %s for %s: %s",
                name,
                kind,
                some(without),
                "nothing can be learned about it"
                if name == "training"
                else "it has no AUROC and is not in the means",
            )
    if name == "validation" and not dataset.has_both_kinds:
        log.warning(
            "no label has both positive and negative validation images: the weights of the first "
            "validation stay the best, unless `best_metric` is loss"
        )


def log_notes(dataset: ImageDataset) -> None:
    """Log what a user should know about the way the images were found."""
    for note in dataset.notes:
        log.warning("%s", note)


def log_advice(config: TrainConfig, dataset: ImageDataset, plan: EpochPlan) -> None:
    """Log settings that have an effect one might not expect."""
    preprocessing = plan.preprocessing
    _log_unused(config)
    _log_kernels(config, plan)
    _log_recipe(config, dataset, plan)
    if plan.frozen and not plan.frozen_epochs:
        log.warning(
            "`freeze` %s has no effect: with `freeze_epochs` %s the last epoch always learns, and "
            "there is only 1; pass a larger `max_epoch`, or `freeze_epochs` 0",
            config.freeze,
            config.freeze_epochs,
        )
    if plan.distillation:
        log.info(
            "teacher: %s, %g of the loss, at temperature %g",
            plan.distillation.note,
            plan.distillation.alpha,
            plan.distillation.temperature,
        )
    if config.lr_scheduler == "exponential":
        lost = lost_milestones(
            config.milestones, steps_per_epoch=plan.steps, warmup_epochs=config.warmup_epochs
        )
        if lost:
            log.warning(
                "`lr_epochs` %s are within the warmup and have no effect, as in the original", lost
            )
        if all(epoch >= config.max_epoch for epoch in config.milestones):
            log.warning(
                "`lr_epochs` %s are after the last epoch of `max_epoch` %d: the learning rate does "
                "not fall",
                config.lr_epochs,
                config.max_epoch,
            )
    elif config.T_max is not None and config.T_max < config.max_epoch - 1:
        log.warning(
            "`T_max` %d is less than `max_epoch` %d: the learning rate rises again after `T_max`",
            config.T_max,
            config.max_epoch,
        )
    if config.is_on("mixup") or config.is_on("cutmix"):
        log.info(
            "`mixup`, `cutmix`: the training loss is that of mixed images, so it stays above the "
            "validation's"
        )
    if config.normalisation not in ("weights", "original"):
        log.info(
            "`normalisation` %s: mean %s, std %s of %s, in grey levels",
            config.normalisation,
            ", ".join(f"{level:.3f}" for level in preprocessing.mean),
            ", ".join(f"{level:.3f}" for level in preprocessing.std),
            "R, G, B" if preprocessing.channels == 3 else "the one channel",
        )
    if preprocessing.decoding_note:
        log.info("images are read with %s", preprocessing.decoding_note)
    _log_sizes(config, plan)


def _log_unused(config: TrainConfig) -> None:
    """Log settings that the original takes and does not use with others of its settings."""
    unused: dict[str, str] = {}
    if config.lr_scheduler == "cosine_annealing":
        unused = dict.fromkeys(("lr_epochs", "lr_gamma"), "`lr_scheduler` exponential")
    elif config.lr_scheduler == "exponential":
        unused = dict.fromkeys(("T_max", "eta_min"), "`lr_scheduler` cosine_annealing")
    if not config.label_smooth:
        unused["label_smooth_factor"] = "`label_smooth` 1"
    for name, needed in unused.items():
        if getattr(config, name) != getattr(TrainConfig, name):
            log.warning("`%s` %s has no effect without %s", name, getattr(config, name), needed)


def _log_sizes(config: TrainConfig, plan: EpochPlan) -> None:
    """Log what follows from the sizes of the images."""
    preprocessing, small = plan.preprocessing, plan.augment_small
    if config.eval_resize is None and preprocessing.image_size != (224, 224):
        log.info(
            "`eval_resize` is %s, scaled from `image_size` as 256 is from 224",
            preprocessing.eval_resize,
        )
    if plan.small_epochs >= config.max_epoch and config.small != preprocessing.image_size:
        log.warning(
            "`small_epochs` %d are all of `max_epoch` %d: every epoch trains on images of %d x %d, "
            "but validation is on %d x %d; pass fewer, or `image_size`",
            plan.small_epochs,
            config.max_epoch,
            small.height,
            small.width,
            *preprocessing.image_size,
        )


def _log_kernels(config: TrainConfig, plan: EpochPlan) -> None:
    """Log what the settings about kernels mean on this device."""
    on_cpu = plan.runtime.device.type == "cpu"
    has_kernels = on_cpu and instruction_set(plan.runtime.device) is not None
    if not config.exact:
        log.info(
            "`exact` 0 changes nothing on a CPU, whose kernels are exact"
            if on_cpu
            else "`exact` 0: the bits of the result differ from run to run"
        )
    if config.compile != "off":
        log.info(
            "`compile` %s: the first step of each size of a batch takes minutes", config.compile
        )
        if has_kernels:
            log.warning(
                "`compile` %s replaces the CPU kernels of densenet121, which are faster and need "
                "less memory; omit it",
                config.compile,
            )
    can_graph = plan.runtime.process.world_size == 1 and config.gradient_accumulation == 1
    if plan.runtime.device.type == "cuda" and config.compile == "off" and can_graph:
        if not config.cuda_graphs:
            log.info(
                "`cuda_graphs` 1 would start each pass at once: the same bits, in less time unless "
                "the batch is large"
            )
        elif not config.triton and _batch_pixels(plan) >= _TRITON_PAYS:
            log.info("`triton` 1 beside `cuda_graphs` 1 is faster, with other bits")
    if config.recompute and has_kernels:
        log.info(
            "`recompute` 1 changes nothing where the CPU kernels of densenet121 run: they store "
            "only the new channels of each layer anyway"
        )


def _batch_pixels(plan: EpochPlan) -> int:
    return plan.runtime.batch_size * plan.augment.height * plan.augment.width


def _log_recipe(config: TrainConfig, dataset: ImageDataset, plan: EpochPlan) -> None:
    """Name a recipe where the defaults, which are those of ImageNet, suit the images badly."""
    fast = config.optimizer in ("sgd", "nesterov") and config.lr >= _FAST_LR
    if config.pretrained and fast:
        log.warning(
            "`pretrained` with `optimizer` %s and `lr` %g: so large steps soon destroy the "
            "weights that were loaded; `recipe` finetune suits them",
            config.optimizer,
            config.lr,
        )
    elif len(dataset) < _FEW_IMAGES and fast and not plan.least_last:
        log.warning(
            "%d images are few for the settings of the original, which are those of training on "
            "ImageNet from scratch; `recipe` finetune with `pretrained` suits them, or `recipe` "
            "scratch_small without",
            len(dataset),
        )
    ranks = plan.runtime.process.world_size
    used = plan.steps * plan.step_size * ranks
    if used < _MOST_USED * len(dataset):
        log.warning(
            "an epoch leaves out %d of %d images, which do not fill a batch of %d; pass %s",
            len(dataset) - used,
            len(dataset),
            plan.step_size * ranks,
            "`last_batch` keep or a smaller `per_batch_size`"
            if not plan.least_last
            else f"another `per_batch_size` (`last_batch` keep needs {plan.least_last * ranks})",
        )


def log_trained(training: Training, plan: EpochPlan) -> None:
    """Log which stages are frozen and which learn at what rate, with the number of weights."""
    groups = training.optimizer.param_groups
    if not plan.frozen and all(group["lr_factor"] == 1 for group in groups):
        return
    factors = {id(p): group["lr_factor"] for group in groups for p in group["params"]}
    for name, modules in stages(training.model).items():
        params = [p for module in modules for p in module.parameters()]
        count, numbers = len(params), sum(p.numel() for p in params)
        if name in training.frozen:
            log.info("%s: frozen, %d tensors with %d weights", name, count, numbers)
        else:
            factor = factors[id(params[0])]
            log.info(
                "%s: learns at %g of `lr`, %d tensors with %d weights", name, factor, count, numbers
            )
    epochs = plan.frozen_epochs
    if training.frozen and 0 < epochs < plan.max_epoch:
        text = "frozen in the first %d of %s, %s"
        steps = plural(epochs * plan.steps, "step")
        log.info(text, epochs, plural(plan.max_epoch, "epoch"), steps)


class TimeLeft:
    """Tells when a run will end, from its epochs since it began or was resumed.

    An estimate is only of epochs like those it is measured on: of the same image size, with the
    same layers frozen.
    """

    def __init__(self, first: int) -> None:
        """``first`` epochs are done now."""
        self._began, self._first = time.monotonic(), first

    def log(self, plan: EpochPlan, done: int) -> None:
        """``done`` epochs are done now."""
        if done >= plan.max_epoch:
            return
        until, change = plan.next_change(done - 1) or (plan.max_epoch, "")
        text = f"{done} of {plan.max_epoch} epochs done"
        if until == done:
            self._began, self._first = time.monotonic(), done
            log.info("%s; from here %s", text, change)
            return
        each = (time.monotonic() - self._began) / (done - self._first)
        left = duration(each * (until - done))
        if change:
            log.info("%s, about %s left of the first %d; then %s", text, left, until, change)
        else:
            log.info("%s, about %s left", text, left)


def log_followed(plan: EpochPlan, metrics: Metrics) -> None:
    """Log the ``best_metric`` of a validation, if the lines of the task do not have it."""
    if followed := _followed(plan, metrics, " ".join(plan.task.log_lines(metrics))):
        log.info("after allreduce eval: %s", followed)


def _followed(plan: EpochPlan, metrics: Metrics, shown: str) -> str:
    name = plan.best_metric
    if name is None or name in shown:
        return ""
    # A best of an earlier version may not have it.
    return f"{name}={four_digits(metrics.get(name))}"


def log_end(training: Training, plan: EpochPlan, path: Path) -> None:
    """Log the result of a finished run."""

    def line(metrics: Metrics) -> str:
        shown = plan.task.best_line(metrics)
        return ", ".join(filter(None, (shown, _followed(plan, metrics, shown))))

    state = training.state
    log.info("end network train...")
    if state.best is not None and state.best_epoch is not None:
        best = line(state.best)
        log.info("best: epoch[%d], %s, %s", state.best_epoch, best, path / BEST_WEIGHTS)
    if state.best_average is not None and state.best_average_epoch is not None:
        log.info(
            "best averaged weights: epoch[%d], %s, %s",
            state.best_average_epoch,
            line(state.best_average),
            path / BEST_AVERAGE,
        )
    if bad := [*state.bad_images.values(), *state.bad_val_images.values()]:
        were = "was" if len(bad) == 1 else "were"
        log.warning("%s could not be read and %s skipped:", plural(len(bad), "image"), were)
        for reason in bad:
            log.warning("%s", reason)  # begins with the path
