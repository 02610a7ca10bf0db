"""The settings of ``bench``; without torch and numpy, so that ``--help`` answers at once."""

from dataclasses import dataclass
from typing import Literal

from densenet121.config.settings import Net, Variant
from densenet121.utils.errors import UsageError
from densenet121.utils.values import at_least, known_choices, numbers

SIDES = (
    "torchvision",
    "timm",
    "torchvision-reference",
    "torchvision-compile",
    "plain",
    "convolutions",
    "onnxruntime",
    "openvino",
)
_PEERS_NETS = ("densenet121", "densenet161", "densenet169", "densenet201")
_OWN = ("plain", "convolutions")
_INFERENCE_ONLY = ("onnxruntime", "openvino")
DATA_SIDES = ("torchvision-v1", "torchvision-v2", "dali", "mindspore", "plain")


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measure training steps, inference or the loading of images, alone or against others.

    Attributes:
        what: train (forward, backward and update), infer (forward alone), data (images from
            files to normalised batches; and a training step with and without them), or scaling
            (one process a core against one process, and the exchange of gradients).
        against: whom to compare with, comma list of torchvision, timm (both channels_last and in
            the arithmetic of --amp), torchvision-reference (fp32, NCHW: its script as it stands),
            torchvision-compile, plain (this program without its fast paths), convolutions (the
            network's convolutions and nothing else, as torch runs them), and for infer
            onnxruntime and openvino; for data torchvision-v1 (Pillow and its transforms, the usual
            script), torchvision-v2 (tensors), dali (on the CPU), mindspore and plain (this program
            without its image kernel); they must be installed (default: nobody).
        data_dir: for data: images, as train takes them; the others take class folders.
        workers: for data: workers that load, threads or processes as each side has them; each side
            runs on so many cores (default: the number of cores).
        python: for data: interpreters of sides that need an environment of their own, comma list of
            SIDE=PATH (default: this one).
        net: network; the others have densenet121, 161, 169 and 201.
        variant: see train; the others have the paper's alone.
        per_batch_size: images a step.
        image_size: height and width of the images in pixels, "H,W" or one number.
        amp: arithmetic, bf16 or fp32 (default: bf16 where the processor has it, else fp32).
        threads: threads of each side (default: the number of cores).
        warmup: steps of each side before anything is measured.
        rounds: turns of each side; the sides alternate, so that a change of the machine's speed
            meets them all.
        steps: steps a turn.
        json: print JSON in place of the table.
    """

    what: Literal["train", "infer", "data", "scaling"] = "train"
    against: str | None = None
    data_dir: str | None = None
    workers: int | None = None
    python: str | None = None
    net: Net = "densenet121"
    variant: Variant = "paper"
    per_batch_size: int = 32
    image_size: int | str = 224
    amp: Literal["bf16", "fp32"] | None = None
    threads: int | None = None
    warmup: int = 3
    rounds: int = 10
    steps: int = 1
    json: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            UsageError: naming the flag, what was given and what is allowed.
        """
        known_choices(self)
        for name in ("per_batch_size", "threads", "rounds", "steps", "workers"):
            at_least(name, getattr(self, name), 1)
        at_least("warmup", self.warmup, 0)
        for flag in ("data_dir", "workers", "python"):
            if self.what != "data" and getattr(self, flag) is not None:
                raise UsageError(f"--{flag} is for bench data")
        if self.what == "scaling" and self.sides:
            raise UsageError("--against is not for bench scaling")
        _ = self.size
        if self.what == "data":
            self._check_data()
            return
        for side in self.sides:
            if side not in SIDES:
                raise UsageError(f"--against must name {', '.join(SIDES)}, got {side}")
            if side in _INFERENCE_ONLY and self.what != "infer":
                raise UsageError(f"--against {side} is for infer: it does not train")
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
    def interpreters(self) -> dict[str, str]:
        """Of the sides with an environment of their own."""
        given = [part.strip() for part in (self.python or "").split(",") if part.strip()]
        for part in given:
            if "=" not in part:
                raise UsageError(f"--python must be SIDE=PATH, comma separated, got {part}")
        return dict(part.split("=", 1) for part in given)

    @property
    def sides(self) -> tuple[str, ...]:
        """Whom to compare with."""
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
