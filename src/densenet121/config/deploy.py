"""The settings of predict, compare, calibrate, export and serve: one field = one flag.

Imports neither torch nor numpy, so that ``--help`` answers at once.
"""

from dataclasses import dataclass
from typing import Literal

from densenet121.config.settings import Amp, Net, OnBadImage, Variant, parse_image_size
from densenet121.utils.errors import UsageError
from densenet121.utils.values import at_least, between, known_choices


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Classify images: files, folders, or what comes through standard input.

    Attributes:
        inputs: images, folders (everything below them), or - for standard input: an image, or
            a list of paths, one a line.
        pretrained: weights: a checkpoint or weights file.
        top_k: how many classes to tell of each image.
        format: table for people, jsonl (a JSON object a line) or csv (a row an image and class).
        coverage: adds the prediction set that holds the true class with this probability, e.g. 0.9;
            needs calibrated weights.
        abstain_below: probability below which no class is answered (default: what calibrate
            stored, else never).
        cam: folder for class-activation maps of the likeliest class, a PNG an image.
        cam_layer: the layer whose maps they are (default: features, what the classifier sees).
        image_size: height and width of the network's input in pixels, "H,W" or one number (default:
            what the weights were trained with, else 224,224).
        eval_resize: images are resized before the central crop: 256 squashes to 256 x 256, H,W to
            H x W, short:256 keeps the aspect ratio (default: what the weights were validated with,
            else 256 at image_size 224 and in proportion at others).
        per_batch_size: images a step (default: 256 on an accelerator, 32 on a CPU).
        variant: paper or model_zoo; weights that tell their variant decide it (default: paper).
        net: the network, for weights that do not tell it.
        amp: arithmetic: O0 or fp32, O2 or bf16, O3 or fp16 (default: bf16 where the device has it
            in hardware, else fp16 on a GPU, else fp32).
        workers: threads that decode images (default: number of cores).
        device: cpu, or an accelerator as torch names it (default: the best present).
        on_bad_image: error stops at an image that cannot be read, skip leaves it out, names it on
            stderr, and ends with exit status 1.
    """

    inputs: list[str]
    pretrained: str
    top_k: int = 5
    format: Literal["table", "jsonl", "csv"] = "table"
    coverage: float | None = None
    abstain_below: float | None = None
    cam: str | None = None
    cam_layer: str | None = None
    image_size: int | str | None = None
    eval_resize: int | str | None = None
    per_batch_size: int | None = None
    variant: Variant | None = None
    net: Net = "densenet121"
    amp: Amp | None = None
    workers: int | None = None
    device: str | None = None
    on_bad_image: OnBadImage = "error"

    def __post_init__(self) -> None:
        """Refuse values out of range, naming the flag.

        Raises:
            UsageError: a flag's value cannot be used.
        """
        known_choices(self)
        if not self.inputs:
            raise UsageError("name images, folders, or - for standard input")
        if not self.pretrained:
            raise UsageError("--pretrained must name weights, got an empty path")
        at_least("top_k", self.top_k, 1, "class")
        at_least("per_batch_size", self.per_batch_size, 1, "image")
        at_least("workers", self.workers, 0, "threads (0: the main thread decodes)")
        if self.coverage is not None and not 0 < self.coverage < 1:
            raise UsageError(f"--coverage must be between 0 and 1, got {self.coverage}")
        if self.abstain_below is not None:
            between("abstain_below", self.abstain_below, 0, 1)
        if self.cam_layer is not None and self.cam is None:
            raise UsageError("--cam_layer needs --cam OUT, the folder for the maps")
        if self.image_size is not None:
            parse_image_size(self.image_size)


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Compare two evaluations of the same images: is B worse than A?

    Attributes:
        a: folder that eval wrote, or its predictions.csv: what is compared with.
        b: likewise: what may be better or worse.
        fail_if_worse_by: exit status 1 if B's top-1 is lower by more than so many percentage
            points (default: never).
        format: text for people, or json with every flipped image.
        output: file for the whole comparison as JSON.
        top: how many classes and flipped images the text shows.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    a: str
    b: str
    fail_if_worse_by: float | None = None
    format: Literal["text", "json"] = "text"
    output: str | None = None
    top: int = 20
    resamples: int = 9999
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse values out of range, naming the flag.

        Raises:
            UsageError: a flag's value cannot be used.
        """
        known_choices(self)
        at_least("fail_if_worse_by", self.fail_if_worse_by, 0, "percentage points")
        at_least("top", self.top, 0)
        at_least("resamples", self.resamples, 100)
        between("seed", self.seed, 0, 2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class CalibrateConfig:
    """Learn from held-out images how sure the network may be, and store it with the weights.

    Attributes:
        data_dir: images that neither training nor the choice of weights has seen: a folder of
            class folders, or one that holds `val/`.
        pretrained: weights of this program.
        output: file for the calibrated weights (default: beside them, with "_calibrated" in the
            name).
        target_accuracy: predict says nothing below the confidence from which on this share of
            answers is right, e.g. 0.99 (default: it always answers).
        seed: of the split: one half of the images gives the temperature, the other the rest.
        per_batch_size: images a step (default: 256 on an accelerator, 32 on a CPU).
        amp: arithmetic: O0 or fp32, O2 or bf16, O3 or fp16 (default: bf16 where the device has it
            in hardware, else fp16 on a GPU, else fp32).
        workers: threads that decode images (default: number of cores).
        device: cpu, or an accelerator as torch names it (default: the best present).
    """

    data_dir: str
    pretrained: str
    output: str | None = None
    target_accuracy: float | None = None
    seed: int = 1
    per_batch_size: int | None = None
    amp: Amp | None = None
    workers: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range, naming the flag.

        Raises:
            UsageError: a flag's value cannot be used.
        """
        known_choices(self)
        if not self.data_dir or not self.pretrained:
            raise UsageError("--data_dir and --pretrained must not be empty")
        at_least("per_batch_size", self.per_batch_size, 1, "image")
        at_least("workers", self.workers, 0, "threads (0: the main thread decodes)")
        between("seed", self.seed, 0, 2**63 - 1)
        if self.target_accuracy is not None and not 0 < self.target_accuracy <= 1:
            raise UsageError(
                f"--target_accuracy must be above 0 and at most 1, got {self.target_accuracy}"
            )


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write the network for another program, with a certificate of what it still says.

    Attributes:
        pretrained: weights of this program.
        output: file to write, e.g. model.onnx or model.pt2; the certificate goes beside it.
        data_dir: images to check on: a folder of class folders, or one that holds `val/`.
        format: onnx, or torch for torch.export.
        int8: 1 quantises to int8 by ONNX Runtime, calibrated on other images of data_dir.
        uint8_input: 1 puts the normalisation inside: the input is (N, H, W, 3) uint8, resized and
            cropped; 0 takes (N, 3, H, W) float32, normalised.
        pictures: how many to check on; int8 is calibrated with as many others.
        tolerance: largest difference of a logit (default: a thousandth of the largest logit, at
            least 0.001; int8: any).
        min_agreement: least share of images with the same top class (default: 1; int8: 0.95).
    """

    pretrained: str
    output: str
    data_dir: str
    format: Literal["onnx", "torch"] = "onnx"
    int8: Literal[0, 1] = 0
    uint8_input: Literal[0, 1] = 0
    pictures: int = 64
    tolerance: float | None = None
    min_agreement: float | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range, naming the flag.

        Raises:
            UsageError: a flag's value cannot be used.
        """
        known_choices(self)
        if not (self.pretrained and self.output and self.data_dir):
            raise UsageError("--pretrained, --output and --data_dir must not be empty")
        if self.int8 and self.format == "torch":
            raise UsageError("--int8 1 needs --format onnx")
        at_least("pictures", self.pictures, 2)
        at_least("tolerance", self.tolerance, 0)
        if self.min_agreement is not None:
            between("min_agreement", self.min_agreement, 0, 1)


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Answer images over HTTP: a page, an interface for programs, batches across clients.

    Attributes:
        weights: a checkpoint, weights file or exported .onnx.
        host: address to listen on; 0.0.0.0 lets other machines in, without any password.
        port: likewise; 0 takes a free one and says which.
        top_k: how many classes to tell of each image, where a request does not say.
        cam_layer: whose class-activation maps are drawn (default: features, what the classifier
            sees).
        queue: images that may wait for an answer; beyond, requests get 503 and Retry-After.
        max_bytes: of a request's body.
        max_pixels: of an image, looked up in its header before anything is decoded.
        max_pictures: in one request.
        body_seconds: a request must have arrived within so many seconds, its head within
            10 at most.
        answer_seconds: an image that waits longer gets 503.
        shutdown_seconds: how long, after SIGTERM, what was accepted may take.
        per_batch_size: most images a step (default: 256 on an accelerator, 32 on a CPU).
        image_size: height and width of the network's input in pixels, "H,W" or one number (default:
            what the weights were trained with, else 224,224).
        eval_resize: as eval has it (default: what the weights were validated with, else 256 at
            image_size 224 and in proportion at others).
        variant: paper or model_zoo; weights that tell their variant decide it (default: paper).
        net: the network, for weights that do not tell it.
        amp: arithmetic: O0 or fp32, O2 or bf16, O3 or fp16 (default: bf16 where the device has it
            in hardware, else fp16 on a GPU, else fp32).
        streams: threads that compute, each with its share of the cores (default: 2 on a CPU, 1
            on an accelerator).
        workers: threads that decode images (default: half the number of cores).
        device: cpu, or an accelerator as torch names it (default: the best present).
    """

    weights: str
    host: str = "127.0.0.1"
    port: int = 8000
    top_k: int = 5
    cam_layer: str | None = None
    queue: int = 256
    max_bytes: int = 16_777_216
    max_pixels: int = 25_000_000
    max_pictures: int = 32
    body_seconds: float = 30.0
    answer_seconds: float = 60.0
    shutdown_seconds: float = 60.0
    per_batch_size: int | None = None
    image_size: int | str | None = None
    eval_resize: int | str | None = None
    variant: Variant | None = None
    net: Net = "densenet121"
    amp: Amp | None = None
    streams: int | None = None
    workers: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range, naming the flag.

        Raises:
            UsageError: a flag's value cannot be used.
        """
        known_choices(self)
        if not self.weights:
            raise UsageError("WEIGHTS must be a file, got an empty path")
        between("port", self.port, 0, 65535)
        for name in (
            "top_k",
            "queue",
            "max_bytes",
            "max_pixels",
            "max_pictures",
            "streams",
            "workers",
        ):
            at_least(name, getattr(self, name), 1)
        at_least("per_batch_size", self.per_batch_size, 1, "image")
        for name in ("body_seconds", "answer_seconds", "shutdown_seconds"):
            at_least(name, getattr(self, name), 0.1, "seconds")
        if self.max_pictures > self.queue:
            raise UsageError(
                f"--max_pictures {self.max_pictures} would never fit into --queue {self.queue}"
            )
        if self.image_size is not None:
            parse_image_size(self.image_size)
