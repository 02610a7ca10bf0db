"""The settings of ``train``."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from densenet121.config.shared import (
    AnyPath,
    BadImageSettings,
    BatchSettings,
    DeviceSettings,
    File,
    Folder,
    Net,
    NumberList,
    PrecisionSettings,
    ProcessSettings,
    Resize,
    Settings,
    Size,
    Switch,
    Variant,
    WorkerSettings,
)
from densenet121.config.values import (
    at_least,
    between,
    default_eval_resize,
    numbers,
    parse_image_size,
)
from densenet121.utils.errors import UsageError

# Settings that a resumed run may change; none of them changes a bit of its result.
FREE_ON_RESUME = frozenset(
    {
        "data_dir",
        "val_dir",
        "exclude",  # the fingerprint of the data shows a change
        "pretrained",
        "log_interval",
        "ckpt_path",
        "ckpt_interval",
        "keep_checkpoint_max",
        "is_save_on_master",
        "timeout_seconds",
        "workers",
        "device",
        "output_dir",
        "resume",
        "on_bad_image",
    }
)


@dataclass(frozen=True, kw_only=True)
class DataSettings(Settings):
    """The images of a training run.

    Attributes:
        data_dir: training images: a folder of class folders, or one that holds `train/` and
            `val/`; a list of paths and labels (.txt, .csv); a folder of tar shards or of Parquet
            files; CIFAR's own files.
        val_dir: images to validate on after every epoch (default: the `val` beside `train`, else
            none).
        exclude: file with the paths of images to leave out, one per line, as `audit` writes it
            (default: none).
        num_classes: number of classes; if given, it must fit the data (default: the number of
            class folders).
        image_size: height and width of the network's input in pixels, "H,W" or one number.
        small_size: height and width in pixels of the training images in the first small_epochs,
            "H,W" or one number; small images train faster (default: image_size).
        small_epochs: number of first epochs that train on images of small_size.
        eval_resize: size to which a validation image is resized before the central crop: 256
            stretches it to 256 x 256, H,W to H x W, short:256 makes its shorter side 256 and keeps
            the aspect ratio (default: 256 at image_size 224 and in proportion at others).
    """

    section: ClassVar[str] = "data"
    data_dir: AnyPath
    val_dir: AnyPath | None = None
    exclude: File | None = None
    num_classes: int | None = None
    image_size: Size = "224,224"
    small_size: Size | None = None
    small_epochs: int = 0
    eval_resize: Resize | None = None

    def check(self) -> None:
        """Refuse sizes and counts that cannot be used."""
        if not self.data_dir:
            raise UsageError("--data_dir must name images, got an empty path")
        at_least("num_classes", self.num_classes, 2, "classes")
        at_least("small_epochs", self.small_epochs, 0, "epochs")
        if (self.small_size is None) != (self.small_epochs == 0):
            raise UsageError("--small_size and --small_epochs need each other")
        _ = self.train_sizes

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input, pixels."""
        return parse_image_size(self.image_size)

    @property
    def train_sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of the training images, pixels: in the first epochs, and later."""
        if self.small_size is None:
            return self.size, self.size
        return parse_image_size(self.small_size, "small_size"), self.size

    @property
    def resize(self) -> str:
        """The resize rule of validation, with the default in place of None."""
        return str(self.eval_resize or default_eval_resize(self.size))


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Settings):
    """The network and its initial weights.

    Attributes:
        net: the network; densenet100 is the one for images of 32 x 32 pixels.
        variant: paper (average pooling, as torchvision) or model_zoo (max pooling, as the
            original); if given, it must fit the weights (default: as the weights record, else
            paper).
        pretrained: weights to start from; another number of classes gives a new head (default:
            none).
        sync_batch_norm: 1 takes the statistics of batch norm over the images of all ranks, 0 over
            each rank's own.
    """

    section: ClassVar[str] = "network"
    net: Net = "densenet121"
    variant: Variant | None = None
    pretrained: AnyPath | None = None
    sync_batch_norm: Switch = 0


@dataclass(frozen=True, kw_only=True)
class OptimisationSettings(Settings):
    """Loss, optimiser and schedule.

    Attributes:
        max_epoch: epochs to train.
        lr_scheduler: exponential (times lr_gamma at each of lr_epochs) or cosine_annealing.
        lr: base learning rate; not scaled by batch size or devices.
        lr_epochs: epochs at which the exponential schedule multiplies by lr_gamma, comma list.
        lr_gamma: factor of the exponential schedule.
        eta_min: lowest learning rate of the cosine schedule.
        T_max: epochs of half a cosine (default: max_epoch).
        warmup_epochs: epochs of linear warmup, may be fractional.
        weight_decay: L2 decay of convolution and classifier weights; batch norm and biases have
            none.
        momentum: momentum of SGD.
        label_smooth: 1 smooths the labels, 0 does not.
        label_smooth_factor: share s taken from the true class; each wrong class gets s/(C-1).
        gradient_accumulation: batches of per_batch_size per device whose gradients are averaged
            for one step; batch norm normalises each by its own statistics.
        seed: seed of the initial weights, the order of the images and their augmentation.
    """

    section: ClassVar[str] = "optimisation"
    max_epoch: int = 120
    lr_scheduler: Literal["exponential", "cosine_annealing"] = "cosine_annealing"
    lr: float = 0.1
    lr_epochs: Annotated[int | str, "N,N,..."] = "30,60,90,120"
    lr_gamma: float = 0.1
    eta_min: float = 0.0
    T_max: int | None = None
    warmup_epochs: float = 0.0
    weight_decay: float = 1e-4
    momentum: float = 0.9
    label_smooth: Switch = 0
    label_smooth_factor: float = 0.1
    gradient_accumulation: int = 1
    seed: int = 1

    def check(self) -> None:
        """Refuse values out of range."""
        at_least("lr", self.lr, 0, "(0 leaves the weights as they are)")
        at_least("eta_min", self.eta_min, 0)
        at_least("lr_gamma", self.lr_gamma, 0)
        at_least("max_epoch", self.max_epoch, 1, "epoch")
        at_least("T_max", self.T_max, 1, "epoch")
        at_least("weight_decay", self.weight_decay, 0)
        at_least("gradient_accumulation", self.gradient_accumulation, 1, "batch")
        between("seed", self.seed, 0, 2**63 - 1)
        between("momentum", self.momentum, 0, 1, upper_open=True)
        between("label_smooth_factor", self.label_smooth_factor, 0, 1, upper_open=True)
        between("warmup_epochs", self.warmup_epochs, 0, self.max_epoch)
        if any(epoch < 0 for epoch in self.milestones):
            raise UsageError(f"--lr_epochs must not be negative, got {self.lr_epochs}")

    @property
    def milestones(self) -> tuple[int, ...]:
        """Epochs of --lr_epochs."""
        return tuple(int(x) for x in numbers("lr_epochs", self.lr_epochs, whole=True))

    @property
    def smooth_factor(self) -> float:
        """The original's rule: without --label_smooth the factor is 0."""
        return self.label_smooth_factor if self.label_smooth else 0.0


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings(Settings):
    """Augmentation of training images.

    Attributes:
        crop_scale: smallest and largest share of an image's area that a training crop takes.
        crop_ratio: narrowest and widest aspect ratio (width/height) of a training crop.
        flip_prob: probability of mirroring a training image left to right.
        color_jitter: largest relative change of brightness, contrast and saturation.
    """

    section: ClassVar[str] = "augmentation"
    crop_scale: NumberList = "0.08,1.0"
    crop_ratio: NumberList = "0.75,1.333"
    flip_prob: float = 0.5
    color_jitter: NumberList = "0.4,0.4,0.4"

    def check(self) -> None:
        """Refuse values out of range."""
        between("flip_prob", self.flip_prob, 0, 1)
        low, high = self.crop_scale_range
        if not 0 < low <= high <= 1:
            raise UsageError(f"--crop_scale must be 0 < smallest <= largest <= 1, got {low},{high}")
        low, high = self.crop_ratio_range
        if not 0 < low <= high:
            raise UsageError(f"--crop_ratio must be 0 < narrowest <= widest, got {low},{high}")
        if not all(0 <= amount <= 1 for amount in self.jitter_amounts):
            raise UsageError(
                f"--color_jitter must be three numbers in [0, 1], got {self.color_jitter}"
            )

    @property
    def crop_scale_range(self) -> tuple[float, float]:
        """Smallest and largest share of the area."""
        low, high = numbers("crop_scale", self.crop_scale, count=2)
        return low, high

    @property
    def crop_ratio_range(self) -> tuple[float, float]:
        """Narrowest and widest aspect ratio."""
        low, high = numbers("crop_ratio", self.crop_ratio, count=2)
        return low, high

    @property
    def jitter_amounts(self) -> tuple[float, float, float]:
        """Brightness, contrast, saturation."""
        brightness, contrast, saturation = numbers("color_jitter", self.color_jitter, count=3)
        return brightness, contrast, saturation


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
class OutputSettings(Settings):
    """The run folder: log and checkpoints.

    Attributes:
        ckpt_path: parent of the dated run folder.
        output_dir: the run folder itself, in place of a dated one under ckpt_path (default: none).
        resume: auto continues from the newest intact checkpoint in output_dir (without one: in the
            newest run folder under ckpt_path) and starts afresh where there is none; or a
            checkpoint file, also a training checkpoint of MindSpore, with its momentum and step
            (default: none).
        log_interval: steps between log lines.
        ckpt_interval: steps between checkpoints (default: one epoch).
        keep_checkpoint_max: newest checkpoints to keep, 0 keeps all; best and last weights are
            kept in any case.
        is_save_on_master: 1 saves checkpoints on rank 0 only, 0 on every rank.
    """

    section: ClassVar[str] = "output"
    ckpt_path: Folder = "output"
    output_dir: Folder | None = None
    resume: Annotated[str, "auto|FILE"] | None = None
    log_interval: int = 100
    ckpt_interval: int | None = None
    keep_checkpoint_max: int = 10
    is_save_on_master: Switch = 1

    def check(self) -> None:
        """Refuse values out of range."""
        at_least("log_interval", self.log_interval, 1, "step")
        at_least("ckpt_interval", self.ckpt_interval, 1, "step")
        at_least("keep_checkpoint_max", self.keep_checkpoint_max, 0, "(0 keeps all)")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    DataSettings,
    BadImageSettings,
    NetworkSettings,
    OptimisationSettings,
    AugmentationSettings,
    BatchSettings,
    PrecisionSettings,
    DeviceSettings,
    WorkerSettings,
    TrainProcessSettings,
    OutputSettings,
):
    """Train a network on folders of images.

    Attributes:
        amp: arithmetic: O0 or fp32, O2 or bf16, O3 or fp16 with dynamic loss scaling (default:
            bf16 where the device has it in hardware, else fp16 on a GPU, else fp32).
    """


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Changed flags that would change the result of a resumed run: "--flag was x, is now y"."""
    names = [name for name in now if name not in FREE_ON_RESUME and name in before]
    return [
        f"--{name} was {before[name]}, is now {now[name]}"
        for name in names
        if before[name] != now[name]
    ]
