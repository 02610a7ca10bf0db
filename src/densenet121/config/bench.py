"""The settings of ``bench``."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from densenet121.config.shared import AnyPath, Net, NumberList, Settings, Size, Variant
from densenet121.config.values import at_least, numbers
from densenet121.utils.cores import default_workers
from densenet121.utils.errors import UsageError

SIDES = (
    "torchvision",
    "timm",
    "torchvision-reference",
    "torchvision-compile",
    "plain",
    "plain-compile",
    "plain-recompute",
    "triton",
    "convolutions",
    "int8",
    "onnxruntime",
    "openvino",
)
_PEERS_NETS = ("densenet121", "densenet161", "densenet169", "densenet201")
_OWN = ("plain", "plain-compile", "plain-recompute", "triton", "convolutions", "int8")
_CPU_ONLY = ("convolutions", "int8", "onnxruntime", "openvino")
_INFERENCE_ONLY = ("int8", "onnxruntime", "openvino")
DATA_SIDES = ("torchvision-v1", "torchvision-v2", "dali", "mindspore", "plain")


@dataclass(frozen=True, kw_only=True)
class LoadingSettings(Settings):
    """The settings of ``bench data``.

    Attributes:
        data_dir: images, in any source that `train` reads; the others read class folders (default:
            none).
        workers: workers that load, threads or processes as each library has them; each library
            runs on as many cores (default: number of cores).
        python: interpreters of libraries that need an environment of their own, comma list of
            LIBRARY=PATH (default: this one).
    """

    section: ClassVar[str] = "bench data"
    data_dir: AnyPath | None = None
    workers: int | None = None
    python: Annotated[str, "LIBRARY=PATH,..."] | None = None

    @property
    def num_workers(self) -> int:
        """Workers that load, with the default in place of None."""
        return self.workers or default_workers()

    @property
    def interpreters(self) -> dict[str, str]:
        """Interpreters of the libraries with an environment of their own."""
        given = [part.strip() for part in (self.python or "").split(",") if part.strip()]
        for part in given:
            if "=" not in part:
                raise UsageError(f"--python must be LIBRARY=PATH, comma separated, got {part}")
        return dict(part.split("=", 1) for part in given)


@dataclass(frozen=True, kw_only=True)
class MeasurementSettings(Settings):
    """Number of measurements.

    Attributes:
        threads: threads of each library (default: number of cores).
        warmup: steps of each library before anything is measured.
        rounds: turns of each library; they alternate, so that a change of the machine's speed
            affects all of them.
        steps: steps per turn. The first finds the caches full of the others' data, which counts
            if a step is short: with one image 20 steps measure a process that does nothing else.
        json: print JSON instead of the table.
    """

    section: ClassVar[str] = "measurement"
    threads: int | None = None
    warmup: int = 3
    rounds: int = 10
    steps: int = 1
    json: bool = False

    def check(self) -> None:
        """Refuse what cannot be counted."""
        for name in ("threads", "rounds", "steps"):
            at_least(name, getattr(self, name), 1)
        at_least("warmup", self.warmup, 0)


@dataclass(frozen=True, kw_only=True)
class BenchConfig(LoadingSettings, MeasurementSettings):
    """Measure training steps, inference or data loading, alone or against other libraries.

    Attributes:
        what: train (forward, backward and update), head (the same with everything but the
            classifier frozen), infer (forward alone), data (images from
            files to normalised batches; and a training step with and without them), or scaling
            (one process per core against one process, and the exchange of gradients).
        against: libraries to compare against, comma list. For train, head and infer: torchvision,
            timm (both channels_last and in the arithmetic of --amp), torchvision-reference (fp32,
            NCHW, as its training script), torchvision-compile, plain (densenet121 without its own
            kernels), plain-compile, plain-recompute (as `train` with these settings), triton (its
            dense blocks by Triton kernels, on a GPU), convolutions (the network's convolutions and
            nothing else, run by PyTorch); for infer also int8 (densenet121 with weights that
            `export` made int8), onnxruntime and openvino. For data: torchvision-v1 (Pillow images,
            the usual script), torchvision-v2 (tensors), dali (on the CPU), mindspore, plain. They
            must be installed (default: none).
        net: the network; other libraries have densenet121, 161, 169 and 201.
        variant: paper or model_zoo; other libraries have paper alone.
        per_batch_size: images per step.
        image_size: height and width of the images in pixels, "H,W" or one number.
        amp: arithmetic, bf16 or fp32 (default: bf16 where the device has it, else fp32).
        device: cpu, or an accelerator by PyTorch's name, such as cuda; for train, head and infer.
        processes: for scaling: numbers of processes between one and one per core that are measured
            too, comma list (default: none).
    """

    section: ClassVar[str] = "comparison"
    positional: ClassVar[tuple[str, ...]] = ("what",)
    what: Literal["train", "head", "infer", "data", "scaling"] = "train"
    against: Annotated[str, "LIBRARY,..."] | None = None
    net: Net = "densenet121"
    variant: Variant = "paper"
    per_batch_size: int = 32
    image_size: Size = 224
    amp: Literal["bf16", "fp32"] | None = None
    device: str = "cpu"
    processes: NumberList | None = None

    def check(self) -> None:
        """Refuse what cannot be measured."""
        for name in ("per_batch_size", "workers"):
            at_least(name, getattr(self, name), 1)
        for flag in ("data_dir", "workers", "python"):
            if self.what != "data" and getattr(self, flag) is not None:
                raise UsageError(f"--{flag} is for bench data")
        if self.what != "scaling" and self.processes is not None:
            raise UsageError("--processes is for bench scaling")
        _ = self.process_counts
        if self.what == "scaling" and self.sides:
            raise UsageError("--against is not for bench scaling")
        if self.device != "cpu" and self.what in ("data", "scaling"):
            raise UsageError(f"bench {self.what} measures the CPU; omit --device {self.device}")
        _ = self.size
        if self.what == "data":
            self._check_data()
            return
        for side in self.sides:
            if side not in SIDES:
                raise UsageError(f"--against must name {', '.join(SIDES)}, got {side}")
            if side in _INFERENCE_ONLY and self.what != "infer":
                raise UsageError(f"--against {side} is for infer: it does not train")
            if side == "triton" and self.device == "cpu":
                raise UsageError("--against triton runs on a GPU; pass --device")
            if side in _CPU_ONLY and self.device != "cpu":
                raise UsageError(f"--against {side} runs on the CPU; omit --device {self.device}")
            if side not in _OWN and self.net not in _PEERS_NETS:
                raise UsageError(
                    f"--against {side} has {', '.join(_PEERS_NETS)}, not --net {self.net}"
                )

    def _check_data(self) -> None:
        if not self.data_dir:
            raise UsageError("bench data needs --data_dir, a folder of images")
        for side in (*self.sides, *self.interpreters):
            if side not in DATA_SIDES:
                raise UsageError(f"bench data is against {', '.join(DATA_SIDES)}, got {side}")

    @property
    def process_counts(self) -> tuple[int, ...]:
        """The numbers of --processes."""
        if self.processes is None:
            return ()
        found = tuple(int(n) for n in numbers("processes", self.processes, whole=True))
        for count in found:
            at_least("processes", count, 1, "process")
        return found

    @property
    def sides(self) -> tuple[str, ...]:
        """Libraries to compare against."""
        return tuple(
            dict.fromkeys(name.strip() for name in (self.against or "").split(",") if name.strip())
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        found = [int(n) for n in numbers("image_size", self.image_size, whole=True)]
        if len(found) not in (1, 2) or min(found) < 32:
            raise UsageError(
                f'--image_size must be "H,W" or one number, at least 32, got {self.image_size!r}'
            )
        return found[0], found[-1]
