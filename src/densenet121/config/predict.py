"""The settings of ``predict``."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from densenet121.config.shared import (
    AnyPath,
    BadImageSettings,
    BatchSettings,
    DeviceSettings,
    Folder,
    PrecisionSettings,
    Settings,
    ViewSettings,
    WeightsSettings,
    WorkerSettings,
)
from densenet121.config.values import at_least, between
from densenet121.utils.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class AnswerSettings(Settings):
    """The output for each image.

    Attributes:
        top_k: number of classes to print for each image; all of several labels are printed
            (default: 5).
        format: table for people, jsonl (a JSON object for each image) or csv (a row for each image
            and class).
        coverage: adds the prediction set that holds the true class with this probability, such as
            0.9; needs calibrated weights (default: no set).
        abstain_below: confidence below which the image gets no answer (default: what calibrate
            stored, else never).
        cam: folder for class-activation maps of the most probable class, a PNG for each image; of
            several labels, the most probable one that is positive, else of all (default: none).
        cam_layer: layer whose maps are drawn (default: features, the classifier's input; of images
            so small that this is a single position, features.denseblock2).
    """

    section: ClassVar[str] = "answers"
    top_k: int | None = None
    format: Literal["table", "jsonl", "csv"] = "table"
    coverage: float | None = None
    abstain_below: float | None = None
    cam: Folder | None = None
    cam_layer: str | None = None

    def check(self) -> None:
        """Refuse values out of range."""
        at_least("top_k", self.top_k, 1, "class")
        if self.coverage is not None and not 0 < self.coverage < 1:
            raise UsageError(f"--coverage must be between 0 and 1, got {self.coverage}")
        between("abstain_below", self.abstain_below, 0, 1)
        if self.cam_layer is not None and self.cam is None:
            raise UsageError("--cam_layer needs --cam FOLDER, the folder for the maps")


@dataclass(frozen=True, kw_only=True)
class PredictConfig(
    BadImageSettings,
    AnswerSettings,
    WeightsSettings,
    ViewSettings,
    BatchSettings,
    PrecisionSettings,
    DeviceSettings,
    WorkerSettings,
):
    """Classify images: files, folders, or standard input.

    Attributes:
        inputs: images, folders (everything below them), or - for standard input: an image, or
            a list of paths, one per line.
        pretrained: weights: a checkpoint, weights file, Hugging Face folder or exported .onnx.
    """

    section: ClassVar[str] = "data"
    positional: ClassVar[tuple[str, ...]] = ("inputs",)
    inputs: list[str]
    pretrained: AnyPath

    def check(self) -> None:
        """Refuse a call without images or weights."""
        if not self.inputs:
            raise UsageError("name images, folders, or - for standard input")
        if not self.pretrained:
            raise UsageError("--pretrained must name weights, got an empty path")
