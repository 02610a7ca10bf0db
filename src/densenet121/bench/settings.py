"""The settings of ``bench``; without torch and numpy, so that ``--help`` answers at once."""

from dataclasses import dataclass
from typing import Literal

from densenet121.config import Net, Variant
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


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measure images per second and memory of training steps or inference, alone or against others.

    Attributes:
        what: train (forward, backward and update) or infer (forward alone).
        against: whom to compare with, comma list of torchvision, timm (both channels_last and in
            the arithmetic of --amp), torchvision-reference (fp32, NCHW: its script as it stands),
            torchvision-compile, plain (this program without its fast paths), convolutions (the
            network's convolutions and nothing else, as torch runs them), and for infer
            onnxruntime and openvino; they must be installed (default: nobody).
        net: network; the others have densenet121, 161, 169 and 201.
        variant: see train; the others have the paper's alone.
        per_batch_size: pictures a step.
        image_size: height and width of the pictures in pixels, "H,W" or one number.
        amp: arithmetic, bf16 or fp32 (default: bf16 where the processor has it, else fp32).
        threads: threads of each side (default: the number of cores).
        warmup: steps of each side before anything is measured.
        rounds: turns of each side; the sides alternate, so that a change of the machine's speed
            meets them all.
        steps: steps a turn.
        json: print JSON in place of the table.
    """

    what: Literal["train", "infer"] = "train"
    against: str | None = None
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
        for name in ("per_batch_size", "threads", "rounds", "steps"):
            at_least(name, getattr(self, name), 1)
        at_least("warmup", self.warmup, 0)
        for side in self.sides:
            if side not in SIDES:
                raise UsageError(f"--against must name {', '.join(SIDES)}, got {side}")
            if side in _INFERENCE_ONLY and self.what != "infer":
                raise UsageError(f"--against {side} is for infer: it does not train")
            if side not in _OWN and self.net not in _PEERS_NETS:
                raise UsageError(
                    f"--against {side} has {', '.join(_PEERS_NETS)}, not --net {self.net}"
                )
        _ = self.size

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
