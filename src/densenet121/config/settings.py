"""The settings of each command: one field = one flag = one entry of docs/reference/ = one line of run.json.

Parts of the system take plain arguments and never see these classes; the engine hands them over.
This module imports neither torch nor numpy, so that ``--help`` answers at once.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from densenet121.utils.errors import UsageError
from densenet121.utils.values import at_least, between, known_choices, numbers

Net = Literal[
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "densenet264",
    "densenet100",
]
Variant = Literal["paper", "model_zoo"]
Amp = Literal["O0", "O2", "O3", "fp32", "bf16", "fp16"]
Interpolation = Literal["opencv_bilinear", "pillow_bilinear", "pillow_bicubic", "pillow_nearest"]
Target = Literal["native", "torchvision", "timm", "mindcv", "mindspore"]
OnBadImage = Literal["error", "skip"]

AMP_NAMES = {"O0": "fp32", "O2": "bf16", "O3": "fp16"}

# What a resumed run may change without changing a single bit of its result.
FREE_ON_RESUME = frozenset(
    {
        "data_dir",
        "val_dir",
        "exclude",  # the fingerprint of the data tells
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
class TrainConfig:
    """Train a network on folders of images.

    Attributes:
        data_dir: training images: a folder of class folders, or one that holds `train/` and
            `val/`; a list of paths and labels (.txt, .csv); a folder of tar shards or of Parquet
            files; CIFAR's own files.
        val_dir: images to validate on after every epoch (default: the `val` beside `train`, else
            none).
        exclude: file with the paths of images to leave out, one a line, as `audit` writes it
            (default: none).
        num_classes: number of classes; if given, it must fit the data (default: the number of
            class folders).
        image_size: height and width of the network's input in pixels, "H,W" or one number.
        small_size: height and width in pixels of the training images in the first small_epochs,
            "H,W" or one number; small images train faster (default: image_size).
        small_epochs: epochs, from the first, that train on images of small_size.
        per_batch_size: images per device and step (default: 256 on an accelerator, 32 on a CPU).
        gradient_accumulation: batches of per_batch_size per device whose gradients are averaged
            for one step; each is normalised by its own statistics.
        sync_batch_norm: 1 takes batch norm's statistics over the images of all ranks, 0 over
            each rank's own.
        gradient_compression: bf16 halves what the ranks exchange, rounding gradients to 8 bits of
            precision; none exchanges them as they are.
        pretrained: weights to start from; another number of classes gives a new head.
        lr_scheduler: exponential (times lr_gamma at each of lr_epochs) or cosine_annealing.
        lr: base learning rate; not scaled by batch size or devices.
        lr_epochs: epochs at which the exponential schedule multiplies by lr_gamma, comma list.
        lr_gamma: factor of the exponential schedule.
        eta_min: lowest learning rate of the cosine schedule.
        T_max: epochs of half a cosine (default: max_epoch).
        max_epoch: epochs to train.
        warmup_epochs: epochs of linear warmup, may be fractional.
        weight_decay: L2 decay of convolution and classifier weights; batch norm and biases have
            none.
        momentum: momentum of SGD.
        label_smooth: 1 smooths the labels, 0 does not.
        label_smooth_factor: share s taken from the true class; each wrong class gets s/(C-1).
        log_interval: steps between log lines.
        ckpt_path: parent of the dated run folder.
        ckpt_interval: steps between checkpoints (default: one epoch).
        keep_checkpoint_max: newest checkpoints to keep, 0 keeps all; best and last weights are
            kept in any case.
        is_save_on_master: 1 saves checkpoints on rank 0 only, 0 on every rank.
        is_distributed: 1 joins the other processes if a launcher started this one, 0 runs alone.
        rank: rank of this process; a launcher's own number goes before.
        group_size: number of processes; a launcher's own number goes before.
        timeout_seconds: how long a rank waits for the others before it gives up, in seconds.
        amp: arithmetic: O0 or fp32, O2 or bf16, O3 or fp16 with dynamic loss scaling (default:
            bf16 where the device has it in hardware, else fp16 on a GPU, else fp32).
        variant: paper (average pooling, as torchvision) or model_zoo (max pooling, as the
            original); weights that tell their variant decide it.
        net: the network; densenet100 is the one for 32 x 32 images.
        eval_resize: images are resized before the central crop: 256 squashes to 256 x 256, H,W to
            H x W, short:256 keeps the aspect ratio (default: 256 at image_size 224 and in
            proportion at others).
        crop_scale: smallest and largest share of an image's area that a training crop takes.
        crop_ratio: narrowest and widest aspect ratio (width/height) of a training crop.
        flip_prob: probability of mirroring a training image left to right.
        color_jitter: largest relative change of brightness, contrast, saturation in training.
        seed: seed of the initial weights, the order of the images and their augmentation.
        workers: threads that decode images (default: number of cores); the result does not
            depend on it.
        device: cpu, or an accelerator as torch names it (default: the best present).
        on_bad_image: error stops at an image that cannot be read, skip leaves it out, counts and
            lists it, and ends with exit status 1.
        output_dir: the run folder itself, in place of a dated one under ckpt_path.
        resume: auto goes on from the newest intact checkpoint in output_dir (without one: in the
            newest run folder under ckpt_path) and starts afresh where there is none; or a
            checkpoint file, also a training checkpoint of MindSpore, with its momentum and step.
    """

    data_dir: str
    val_dir: str | None = None
    exclude: str | None = None
    num_classes: int | None = None
    image_size: int | str = "224,224"
    small_size: int | str | None = None
    small_epochs: int = 0
    per_batch_size: int | None = None
    gradient_accumulation: int = 1
    sync_batch_norm: Literal[0, 1] = 0
    gradient_compression: Literal["none", "bf16"] = "none"
    pretrained: str | None = None
    lr_scheduler: Literal["exponential", "cosine_annealing"] = "cosine_annealing"
    lr: float = 0.1
    lr_epochs: int | str = "30,60,90,120"
    lr_gamma: float = 0.1
    eta_min: float = 0.0
    T_max: int | None = None
    max_epoch: int = 120
    warmup_epochs: float = 0.0
    weight_decay: float = 1e-4
    momentum: float = 0.9
    label_smooth: Literal[0, 1] = 0
    label_smooth_factor: float = 0.1
    log_interval: int = 100
    ckpt_path: str = "output"
    ckpt_interval: int | None = None
    keep_checkpoint_max: int = 10
    is_save_on_master: Literal[0, 1] = 1
    is_distributed: Literal[0, 1] = 1
    rank: int = 0
    group_size: int = 1
    timeout_seconds: float = 600.0
    amp: Amp | None = None
    variant: Variant | None = None
    net: Net = "densenet121"
    eval_resize: int | str | None = None
    crop_scale: str = "0.08,1.0"
    crop_ratio: str = "0.75,1.333"
    flip_prob: float = 0.5
    color_jitter: str = "0.4,0.4,0.4"
    seed: int = 1
    workers: int | None = None
    device: str | None = None
    on_bad_image: OnBadImage = "error"
    output_dir: str | None = None
    resume: str | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range, naming the flag.

        Raises:
            UsageError: a flag's value cannot be used.
        """
        _check_shared(self)
        at_least("lr", self.lr, 0, "(0 leaves the weights as they are)")
        at_least("eta_min", self.eta_min, 0)
        at_least("lr_gamma", self.lr_gamma, 0)
        at_least("max_epoch", self.max_epoch, 1, "epoch")
        at_least("T_max", self.T_max, 1, "epoch")
        at_least("small_epochs", self.small_epochs, 0, "epochs")
        if (self.small_size is None) != (self.small_epochs == 0):
            raise UsageError("--small_size and --small_epochs need each other")
        if self.small_size is not None:
            parse_image_size(self.small_size, "small_size")
        at_least("weight_decay", self.weight_decay, 0)
        at_least("gradient_accumulation", self.gradient_accumulation, 1, "batch")
        at_least("log_interval", self.log_interval, 1, "step")
        at_least("ckpt_interval", self.ckpt_interval, 1, "step")
        at_least("keep_checkpoint_max", self.keep_checkpoint_max, 0, "(0 keeps all)")
        between("seed", self.seed, 0, 2**63 - 1)
        between("momentum", self.momentum, 0, 1, upper_open=True)
        between("label_smooth_factor", self.label_smooth_factor, 0, 1, upper_open=True)
        between("flip_prob", self.flip_prob, 0, 1)
        between("warmup_epochs", self.warmup_epochs, 0, self.max_epoch)
        if any(epoch < 0 for epoch in self.milestones):
            raise UsageError(f"--lr_epochs must not be negative, got {self.lr_epochs}")
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
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input, pixels."""
        return parse_image_size(self.image_size)

    @property
    def train_sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of the training images, pixels: in the first epochs, and later."""
        small = self.image_size if self.small_size is None else self.small_size
        return parse_image_size(small, "small_size"), self.size

    @property
    def milestones(self) -> tuple[int, ...]:
        """Epochs of --lr_epochs."""
        return tuple(int(x) for x in numbers("lr_epochs", self.lr_epochs, whole=True))

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

    @property
    def smooth_factor(self) -> float:
        """The original's rule: without --label_smooth the factor is 0."""
        return self.label_smooth_factor if self.label_smooth else 0.0


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Count how many images a network classifies rightly, each image exactly once.

    Attributes:
        data_dir: images: a folder of class folders, or one that holds `val/`; or another source
            as train takes it.
        exclude: file with the paths of images to leave out, one a line (default: none).
        pretrained: weights: a checkpoint or weights file, or a folder of them (newest first).
        num_classes: number of classes; if given, it must fit the data and the weights.
        image_size: height and width of the network's input in pixels, "H,W" or one number (default:
            what the weights were trained with, else 224,224).
        per_batch_size: images per device and step (default: 256 on an accelerator, 32 on a CPU).
        eval_resize: images are resized before the central crop: 256 squashes to 256 x 256, H,W to
            H x W, short:256 keeps the aspect ratio (default: what the weights were validated with,
            else 256 at image_size 224 and in proportion at others).
        interpolation: how images are resized: opencv_bilinear as the original, without
            antialiasing; pillow_bilinear as torchvision, pillow_bicubic as timm, with it;
            pillow_nearest as Keras (default: what the weights were validated with, else
            opencv_bilinear).
        variant: paper (average pooling) or model_zoo (max pooling); weights that tell their variant
            decide it (default: paper).
        net: the network, for weights that do not tell it.
        amp: arithmetic: O0 or fp32, O2 or bf16, O3 or fp16 (default: bf16 where the device has it
            in hardware, else fp16 on a GPU, else fp32).
        log_path: parent of the dated folder with the log and the results.
        output_dir: that folder itself, in place of a dated one under log_path.
        is_distributed: 1 joins the other processes if a launcher started this one, 0 runs alone.
        rank: rank of this process; a launcher's own number goes before.
        group_size: number of processes; a launcher's own number goes before.
        timeout_seconds: how long a rank waits for the others before it gives up, in seconds.
        workers: threads that decode images (default: number of cores); the result does not
            depend on it.
        device: cpu, or an accelerator as torch names it (default: the best present).
        on_bad_image: error stops at an image that cannot be read, skip leaves it out, counts and
            lists it, and ends with exit status 1.
    """

    data_dir: str
    pretrained: str
    exclude: str | None = None
    num_classes: int | None = None
    image_size: int | str | None = None
    per_batch_size: int | None = None
    eval_resize: int | str | None = None
    interpolation: Interpolation | None = None
    variant: Variant | None = None
    net: Net = "densenet121"
    amp: Amp | None = None
    log_path: str = "output"
    output_dir: str | None = None
    is_distributed: Literal[0, 1] = 1
    rank: int = 0
    group_size: int = 1
    timeout_seconds: float = 600.0
    workers: int | None = None
    device: str | None = None
    on_bad_image: OnBadImage = "error"

    def __post_init__(self) -> None:
        """Refuse values out of range, naming the flag.

        Raises:
            UsageError: a flag's value cannot be used.
        """
        _check_shared(self)
        if not self.pretrained:
            raise UsageError("--pretrained must name weights to evaluate, got an empty path")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Train DenseNet-121 on scikit-learn's handwritten digits, evaluate it and write a report.

    Attributes:
        output_dir: folder for the images and the run (default: a dated one under output).
        max_epoch: epochs to train.
        workers: threads that decode images (default: number of cores).
        device: cpu, or an accelerator as torch names it (default: the best present).
    """

    output_dir: str | None = None
    max_epoch: int = 10
    workers: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range, naming the flag.

        Raises:
            UsageError: a flag's value cannot be used.
        """
        at_least("max_epoch", self.max_epoch, 1, "epoch")
        at_least("workers", self.workers, 0, "threads (0: the main thread decodes)")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Write report.html of a run folder again.

    Attributes:
        run: the run folder, with metrics.jsonl or eval.json in it.
    """

    run: str


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Write weights of any format that is read as another program's, and check them.

    Attributes:
        source: weights of any format that is read.
        target: the new file; its suffix chooses between the formats of the program.
        to: the program: native is this one, mindspore the model zoo's network (variant model_zoo),
            mindcv its network (variant paper).
        net: the network, for weights that do not tell it (default: densenet121).
        variant: paper or model_zoo, for weights that do not tell it for certain.
    """

    source: str
    target: str
    to: Target
    net: Net | None = None
    variant: Variant | None = None


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Say what a weights file is: network, variant, classes, training state, preprocessing.

    Attributes:
        file: the weights file.
    """

    file: str


def _check_shared(config: TrainConfig | EvalConfig) -> None:
    known_choices(config)
    if not config.data_dir:
        raise UsageError("--data_dir must name images, got an empty path")
    at_least("num_classes", config.num_classes, 2, "classes")
    at_least("per_batch_size", config.per_batch_size, 1, "image")
    at_least("workers", config.workers, 0, "threads (0: the main thread decodes)")
    at_least("group_size", config.group_size, 1, "process")
    at_least("timeout_seconds", config.timeout_seconds, 1, "second")
    if not 0 <= config.rank < config.group_size:
        raise UsageError(
            f"--rank must be at least 0 and less than --group_size {config.group_size}, "
            f"got {config.rank}"
        )
    if config.image_size is not None:
        parse_image_size(config.image_size)


def parse_image_size(value: int | str, flag: str = "image_size") -> tuple[int, int]:
    """Height and width from "H,W" or one number.

    Raises:
        UsageError: not one or two whole numbers, or less than 16 pixels (the five halvings of the
            network would leave nothing).
    """
    sizes = [int(x) for x in numbers(flag, value, whole=True)]
    if len(sizes) not in (1, 2):
        raise UsageError(f'--{flag} must be "H,W" or one number, got {value}')
    if min(sizes) < 16:
        raise UsageError(f"--{flag} must be at least 16 pixels, got {value}")
    return sizes[0], sizes[-1]


def default_eval_resize(size: tuple[int, int]) -> str:
    """The original's 256 for 224, and the same 8/7 for other sizes, as "H,W"."""
    return ",".join(str(round(side * 256 / 224)) for side in size)


def default_workers() -> int:
    """Cores this process may use, shared with those that torchrun started beside it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    beside = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, (cores or 1) // max(1, int(beside) if beside.isdigit() else 1))


def settings_of(config: Any) -> dict[str, Any]:
    """Each flag and its value, for run.json and checkpoints."""
    return asdict(config)


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Flags whose change would change a resumed run's numbers: "--flag was this, is that"."""
    names = [name for name in now if name not in FREE_ON_RESUME and name in before]
    return [
        f"--{name} was {before[name]}, is {now[name]}"
        for name in names
        if before[name] != now[name]
    ]


def absolute(path: str) -> Path:
    """The path with ~ and the working directory resolved, symbolic links kept."""
    return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 (resolve() follows links)
