"""The settings of ``train``."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from densenet121.config.augmentation import AugmentationSettings, effective
from densenet121.config.data import DataSettings
from densenet121.config.distillation import DistillationSettings
from densenet121.config.files import build, over_recipe, read_recipe
from densenet121.config.fine_tuning import FineTuningSettings
from densenet121.config.flags import flags_of
from densenet121.config.labels import TaskSettings
from densenet121.config.loss import LossSettings
from densenet121.config.network import NetworkSettings
from densenet121.config.optimisation import OptimiserSettings, ScheduleSettings
from densenet121.config.output import OutputSettings
from densenet121.config.shared import (
    BadImageSettings,
    BatchSettings,
    DeviceSettings,
    PrecisionSettings,
    ProcessSettings,
    SampleSettings,
    Switch,
    WorkerSettings,
)
from densenet121.utils.errors import UsageError

# Settings that a resumed run may change; none of them changes a bit of its result.
FREE_ON_RESUME = frozenset(
    {
        "data_dir",
        "val_dir",
        "image_dir",
        "exclude",  # the fingerprint of the data shows a change
        "pretrained",
        "log_interval",
        "log_to",
        "ckpt_path",
        "ckpt_interval",
        "keep_checkpoint_max",
        "is_save_on_master",
        "timeout_seconds",
        "is_distributed",  # the number of processes is compared itself
        "rank",
        "group_size",
        "workers",
        "device",
        "recompute",
        "cuda_graphs",
        "output_dir",
        "resume",
        "on_bad_image",
        "augment",  # the settings that it chooses show a change
    }
)


@dataclass(frozen=True, kw_only=True)
class TrainDeviceSettings(DeviceSettings):
    """Where the network learns, and by which kernels.

    Attributes:
        exact: 1 uses kernels whose result is the same in every run, so that a resumed run ends with
            the bits of an uninterrupted one; 0 uses the fastest ones of an accelerator, measured in
            its first steps, and promises no bits. The CPU's kernels are exact in both cases.
        compile: off runs PyTorch's operations one by one, or on a CPU our own kernels; default
            compiles the network by torch.compile, which takes minutes at the start of a run and for
            each new size of a batch; graphs also starts each pass as one CUDA graph, for small
            batches on a GPU. Validation is never compiled.
        cuda_graphs: 1 starts each training pass on an NVIDIA or AMD GPU as one CUDA graph: the same
            bits, without the time that the processor needs to start some 2,300 operations a step,
            which limits all but large batches. Up to four sizes of a batch have graphs.
        recompute: 1 stores of each layer only its new channels, and computes it again in the
            backward pass: the same bits, less memory, a third more work. The CPU kernels of
            densenet121 store little anyway and do not need it.
        triton: 1 trains on a GPU by our own Triton kernels, which store as little as those of the
            CPU: with other bits, and with cuda_graphs and exact 0 beside it 2.6 times as fast as
            PyTorch's operations, in a quarter of the memory (H100, bf16).
    """

    section: ClassVar[str] = DeviceSettings.section
    exact: Switch = 1
    compile: Literal["off", "default", "graphs"] = "off"
    cuda_graphs: Switch = 0
    recompute: Switch = 0
    triton: Switch = 0


@dataclass(frozen=True, kw_only=True)
class TrainProcessSettings(ProcessSettings):
    """Several processes that train one network.

    Attributes:
        gradient_compression: bf16 halves what the ranks exchange, rounding gradients to 8 bits of
            precision; none exchanges them as they are.
    """

    section: ClassVar[str] = ProcessSettings.section
    gradient_compression: Literal["none", "bf16"] = "none"


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    DataSettings,
    SampleSettings,
    TaskSettings,
    BadImageSettings,
    NetworkSettings,
    OptimiserSettings,
    ScheduleSettings,
    FineTuningSettings,
    LossSettings,
    DistillationSettings,
    AugmentationSettings,
    BatchSettings,
    PrecisionSettings,
    TrainDeviceSettings,
    WorkerSettings,
    TrainProcessSettings,
    OutputSettings,
):
    """Train a network on folders of images.

    Attributes:
        amp: arithmetic: O0 or fp32, tf32 (of NVIDIA GPUs), O2 or bf16, O3 or fp16 with dynamic loss
            scaling (default: bf16 where the device has it in hardware, else fp16 on a GPU, else
            fp32).
    """

    recipes: ClassVar[tuple[str, ...]] = ("original", "finetune", "scratch_small")

    @classmethod
    def from_recipe(cls, name: str, **settings: Any) -> "TrainConfig":
        """The settings of a recipe, as --recipe takes them, with these in place of its own.

        Raises:
            UsageError: there is no such recipe, or a setting is invalid.
        """
        recipe = read_recipe(name, cls)
        sources = {key: f"--recipe {name}" for key in recipe if key not in settings}
        return build(cls, over_recipe(settings, recipe, cls), sources)

    def check(self) -> None:
        """Refuse settings of different groups that contradict each other."""
        self.check_frozen(has_weights=bool(self.pretrained or self.resume))
        if isinstance(self.freeze_epochs, int) and 0 < self.max_epoch <= self.freeze_epochs:
            raise UsageError(
                f"--freeze_epochs must be less than --max_epoch {self.max_epoch} (0: the whole "
                f"run), got {self.freeze_epochs}"
            )
        several = self.task == "multilabel"
        for name, given, fits in (
            ("class_weights", self.class_weights != "none", not several),
            ("sampler", self.sampler != "uniform", not several),
            ("pos_weight", self.pos_weight != "none", several),
        ):
            if given and not fits:
                raise UsageError(
                    f"--{name} has no meaning with --task {self.task}; use "
                    f"{'--pos_weight' if several else '--class_weights'}, or omit it"
                )
        if self.loss == "asl" and not several:
            raise UsageError(
                f"--loss asl has no meaning with --task {self.task}; use --loss focal, or pass "
                "--task multilabel"
            )
        falls = ("cosine_annealing", "cosine", "one_cycle", "polynomial", "plateau")
        if self.lr_scheduler in falls and self.eta_min > max(self.lr, 0):
            raise UsageError(f"--eta_min must be at most --lr {self.lr}, got {self.eta_min}")
        if self.min_delta and self.patience is None and self.lr_scheduler != "plateau":
            raise UsageError("--min_delta needs --patience or --lr_scheduler plateau")
        off = self.chosen("mix_off_epochs")
        if off and off >= self.max_epoch:
            raise UsageError(
                f"--mix_off_epochs {off} leaves no epoch of --max_epoch {self.max_epoch} with "
                "--mixup or --cutmix"
            )
        self._check_kernels()

    def check_frozen(self, has_weights: bool) -> None:
        """Refuse to freeze weights that nothing was loaded into.

        Raises:
            UsageError: stages are frozen, and there are neither pretrained weights nor a run to
                resume.
        """
        if self.freeze != "none" and not has_weights:
            raise UsageError(
                f"--freeze {self.freeze} needs --pretrained, because frozen random weights never "
                "learn; without pretrained weights omit it (or take --recipe scratch_small)"
            )

    def _check_kernels(self) -> None:
        if self.triton and self.sync_batch_norm:
            raise UsageError(
                "--triton 1 and --sync_batch_norm 1 exclude each other: the kernels take the "
                "statistics of one rank; omit one of them"
            )
        if self.cuda_graphs and self.compile != "off":
            raise UsageError(
                f"--cuda_graphs 1 and --compile {self.compile} exclude each other; --compile "
                "graphs compiles and makes graphs"
            )
        if self.cuda_graphs and self.gradient_accumulation > 1:
            raise UsageError(
                f"--cuda_graphs 1 and --gradient_accumulation {self.gradient_accumulation} exclude "
                "each other: a graph writes the gradients of each pass to the same place"
            )
        if self.compile == "off":
            return
        if self.sync_batch_norm:
            raise UsageError(
                f"--compile {self.compile} and --sync_batch_norm 1 exclude each other: the norms "
                "exchange statistics in the middle of a pass; omit one of them"
            )
        if self.triton:
            raise UsageError(
                f"--compile {self.compile} and --triton 1 exclude each other: both replace the "
                "operations of the dense blocks; omit one of them"
            )
        if self.recompute:
            raise UsageError(
                f"--compile {self.compile} and --recompute 1 exclude each other: the compiler "
                "decides itself what to compute again; omit one of them"
            )
        if self.compile == "graphs" and self.gradient_accumulation > 1:
            raise UsageError(
                f"--compile graphs and --gradient_accumulation {self.gradient_accumulation} "
                "exclude each other: a CUDA graph writes the gradients of each pass to the same "
                "place; pass --compile default"
            )


def differences(
    before: dict[str, Any], now: dict[str, Any], free: Collection[str] = ()
) -> list[str]:
    """Changed flags that would change the result of a resumed run: "--flag was x, is now y".

    A setting that an older run does not record had the value that is its default now. Of
    augmentation, the values that are used are compared, whether given or of a preset.

    Args:
        before: the settings of the run.
        now: the settings of the one that resumes it.
        free: further settings that may change.
    """
    before = effective({flag.name: flag.default for flag in flags_of(TrainConfig)} | before)
    now = effective(now)
    names = [name for name in now if name not in {*FREE_ON_RESUME, *free} and name in before]
    return [
        f"--{name} was {before[name]}, is now {now[name]}"
        for name in names
        if before[name] != now[name]
    ]
