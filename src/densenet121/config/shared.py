"""Types and groups of fields, with their checks, that several commands share.

The settings of a command are a frozen dataclass that inherits the groups it needs. The class that
defines a field also explains it (in ``Attributes:``), checks it (in ``check``) and names its
section of ``--help``.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from densenet121.config.flags import flags_of
from densenet121.config.values import (
    at_least,
    parse_image_size,
)
from densenet121.utils.cores import default_workers
from densenet121.utils.errors import UsageError
from densenet121.utils.resizing import default_eval_resize

Net = Literal[
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "densenet264",
    "densenet100",
    "densenet40",
]
Variant = Literal["paper", "model_zoo"]
Amp = Literal["O0", "O2", "O3", "fp32", "tf32", "bf16", "fp16"]
OnBadImage = Literal["error", "skip"]
Switch = Literal[0, 1]
Interpolation = Literal["opencv_bilinear", "pillow_bilinear", "pillow_bicubic", "pillow_nearest"]
Tta = Literal["none", "flip", "dihedral", "ten_crop"]

# Text, with the placeholder that the help shows for the value.
AnyPath = Annotated[str, "PATH"]
Folder = Annotated[str, "FOLDER"]
File = Annotated[str, "FILE"]
Normalisation = Annotated[str, "weights|original|data|M,S"]
Depth = Literal[8, 16]
WindowText = Annotated[str, "WINDOW"]
Size = Annotated[int | str, "H,W"]
Resize = Annotated[int | str, "SIZE"]
NumberList = Annotated[str, "X,X,..."]

AMP_NAMES = {"O0": "fp32", "O2": "bf16", "O3": "fp16"}

_LONGEST_WAIT = 1e9  # seconds; with 1e10 the store of torch 2.13 fails at once
_DEVICES = "devices and processes"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all settings: checks the values when an object is created."""

    section: ClassVar[str] = "settings"
    positional: ClassVar[tuple[str, ...]] = ()
    recipes: ClassVar[tuple[str, ...]] = ()  # names of --recipe, files in recipes/
    # A command whose files of settings may be given to this one, which uses what it knows.
    also_reads: ClassVar[type | None] = None
    # Setting to those whose values it stands for: given, it replaces what a recipe has of them.
    presets: ClassVar[Mapping[str, Collection[str]]] = {}

    def __post_init__(self) -> None:
        """Make values plain, and refuse invalid ones.

        Raises:
            UsageError: a value is invalid; the text has the flag, what is allowed and the value.
        """
        for flag in flags_of(type(self)):
            given = getattr(self, flag.name)
            value = flag.plain(given)
            if value is not given:
                object.__setattr__(self, flag.name, value)
            if flag.choices and value is not None and value not in flag.choices:
                raise UsageError(f"{flag.label} must be {flag.expected}, got {value}")
        for group in type(self).__mro__:
            if "check" in group.__dict__:
                group.check(self)  # type: ignore[attr-defined]


@dataclass(frozen=True, kw_only=True)
class DeviceSettings(Settings):
    """Where the network runs.

    Attributes:
        device: cpu, or an accelerator by PyTorch's name, such as cuda or cuda:1 (default: the best
            one available).
    """

    section: ClassVar[str] = _DEVICES
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class PrecisionSettings(Settings):
    """The arithmetic of the network.

    Attributes:
        amp: arithmetic: O0 or fp32, tf32 (of NVIDIA GPUs), O2 or bf16, O3 or fp16 (default: bf16
            where the device has it in hardware, else fp16 on a GPU, else fp32).
    """

    section: ClassVar[str] = _DEVICES
    amp: Amp | None = None


@dataclass(frozen=True, kw_only=True)
class WorkerSettings(Settings):
    """Threads that decode images.

    Attributes:
        workers: threads that decode images, 0 decodes in the main thread; the result does not
            depend on it (default: number of cores, shared among the processes of a host).
    """

    section: ClassVar[str] = _DEVICES
    workers: int | None = None

    @property
    def num_workers(self) -> int:
        """Threads that decode images, with the default in place of None."""
        return default_workers() if self.workers is None else self.workers

    def check(self) -> None:
        """Refuse a negative number."""
        at_least("workers", self.workers, 0, "threads (0: the main thread decodes)")


@dataclass(frozen=True, kw_only=True)
class BatchSettings(Settings):
    """The size of a batch.

    Attributes:
        per_batch_size: images per device and step (default: 256 on an accelerator, 32 on a CPU).
    """

    section: ClassVar[str] = _DEVICES
    per_batch_size: int | None = None

    def check(self) -> None:
        """Refuse an empty batch."""
        at_least("per_batch_size", self.per_batch_size, 1, "image")


@dataclass(frozen=True, kw_only=True)
class ProcessSettings(Settings):
    """Several processes, each with a share of the images.

    Attributes:
        is_distributed: 1 joins the other processes if a launcher started this one, 0 runs alone.
        rank: rank of this process; overridden by the launcher.
        group_size: number of processes; overridden by the launcher.
        timeout_seconds: seconds that a rank waits for the others before it gives up.
    """

    section: ClassVar[str] = _DEVICES
    is_distributed: Switch = 1
    rank: int = 0
    group_size: int = 1
    timeout_seconds: Annotated[float, "SECONDS"] = 600.0

    def check(self) -> None:
        """Refuse a rank outside the group."""
        at_least("group_size", self.group_size, 1, "process")
        at_least("timeout_seconds", self.timeout_seconds, 1, "second")
        if self.timeout_seconds > _LONGEST_WAIT:
            raise UsageError(
                f"--timeout_seconds must be at most {_LONGEST_WAIT:.0f} (31 years), got "
                f"{self.timeout_seconds:g}"
            )
        if not 0 <= self.rank < self.group_size:
            raise UsageError(
                f"--rank must be at least 0 and less than --group_size {self.group_size}, "
                f"got {self.rank}"
            )


@dataclass(frozen=True, kw_only=True)
class BadImageSettings(Settings):
    """What to do about an image that cannot be read.

    Attributes:
        on_bad_image: error stops at an image that cannot be read; skip leaves it out, reports it
            and ends with exit status 1.
    """

    section: ClassVar[str] = "data"
    on_bad_image: OnBadImage = "error"


@dataclass(frozen=True, kw_only=True)
class SampleSettings(Settings):
    """How samples of more than 8 bits are read.

    Attributes:
        depth: bits that are used of 16-bit grey images (PNG, TIFF): 8 keeps the high byte, as the
            original; 16 uses all of them, through a window (default: what the weights record, else
            8).
        window: values that become black and white where all bits are used: full (0,65535), two
            values such as 0,4095, two percentiles of each image such as percentile:0.5,99.5; for
            DICOM, which is always read in full, also the number of a window in the file such as
            index:0 (default: what the weights record, else full, and for DICOM the first window).
    """

    section: ClassVar[str] = "data"
    depth: Depth | None = None
    window: WindowText | None = None


@dataclass(frozen=True, kw_only=True)
class WeightsSettings(SampleSettings):
    """Settings that weights of densenet121 record; other weights may not.

    Attributes:
        image_size: height and width of the network's input in pixels, "H,W" or one number (default:
            what the weights were trained with, else 224,224).
        eval_resize: size to which an image is resized before the central crop: 256 stretches it to
            256 x 256, H,W to H x W, short:256 makes its shorter side 256 and keeps the aspect
            ratio, pad:256 makes its longer side 256 and fills the rest of 256 x 256 with the mean
            (default: what the weights were validated with, else 256 at image_size 224 and in
            proportion at others).
        variant: paper (average pooling) or model_zoo (max pooling), for weights that do not record
            it (default: paper).
        net: the network, for weights that do not record it (default: densenet121).
    """

    section: ClassVar[str] = "network"
    image_size: Size | None = None
    eval_resize: Resize | None = None
    variant: Variant | None = None
    net: Net | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the network's input in pixels; None: as the weights record."""
        return None if self.image_size is None else parse_image_size(self.image_size)

    @property
    def resize(self) -> str | None:
        """The resize rule; scaled from the size if only that is set; None: as in the weights."""
        size = self.size
        resize = self.eval_resize or (default_eval_resize(size) if size else None)
        return None if resize is None else str(resize)

    def check(self) -> None:
        """Refuse an invalid size."""
        _ = self.size


@dataclass(frozen=True, kw_only=True)
class ViewSettings(Settings):
    """Several views of each image.

    Attributes:
        tta: views of each image whose probabilities are averaged, at the cost of as many images:
            none, flip (2: with the left-right flip), dihedral (8: all flips and quarter turns of
            a square), ten_crop (10: centre and corners of the resized image, and their flips)
            (default: what calibrate stored with the weights, else none).
    """

    section: ClassVar[str] = "network"
    tta: Tta | None = None


def settings_of(config: Any) -> dict[str, Any]:
    """Each field and its value, for run.json and checkpoints."""
    return {flag.name: getattr(config, flag.name) for flag in flags_of(type(config))}


def weights_choices(config: WeightsSettings) -> dict[str, Any]:
    """The settings that override those of the weights, for ``inference``."""
    choices = {
        "net": config.net,
        "variant": config.variant,
        "image_size": config.size,
        "eval_resize": config.resize,
        "depth": config.depth,
        "window": config.window,
    }
    for name in ("interpolation", "tta"):  # settings of some commands alone
        if hasattr(config, name):
            choices[name] = getattr(config, name)
    return choices
