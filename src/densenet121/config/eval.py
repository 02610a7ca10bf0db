"""The settings of ``eval``."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from densenet121.config.labels import Column, LabelTableSettings
from densenet121.config.shared import (
    AnyPath,
    BadImageSettings,
    BatchSettings,
    DeviceSettings,
    File,
    Folder,
    Interpolation,
    PrecisionSettings,
    ProcessSettings,
    Settings,
    ViewSettings,
    WeightsSettings,
    WorkerSettings,
)
from densenet121.config.values import at_least
from densenet121.utils.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class EvalDataSettings(BadImageSettings):
    """The images of an evaluation.

    Attributes:
        data_dir: images: a folder of class folders, or one that holds `train/` and `val/`, of which
            those of `val/` are taken; or another source that `train` reads.
        group: column of a table of labels, or of a .csv or .tsv list of images with one class each,
            that images of one patient, or another group, have in common, or a regular expression
            that finds the group in the path: intervals are then over groups, and predictions.csv
            has them in a column of this name, which must not be called like one of its own
            (default: none).
        by: columns of a table of labels whose values are subgroups, each evaluated too, comma list
            (default: none).
        exclude: file that names images to leave out, one per line, as `audit` writes it (default:
            none).
        num_classes: number of classes; if given, it must fit the data and the weights (default:
            what the weights have).
    """

    section: ClassVar[str] = "data"
    data_dir: AnyPath
    group: Column | None = None
    by: Annotated[str, "COLUMN,..."] | None = None
    exclude: File | None = None
    num_classes: int | None = None

    def check(self) -> None:
        """Refuse an empty path and a single class."""
        if not self.data_dir:
            raise UsageError("--data_dir must name images, got an empty path")
        at_least("num_classes", self.num_classes, 2, "classes")

    @property
    def by_columns(self) -> tuple[str, ...]:
        """The columns of --by."""
        return tuple(name.strip() for name in (self.by or "").split(",") if name.strip())


@dataclass(frozen=True, kw_only=True)
class EvalWeightsSettings(WeightsSettings):
    """The network of an evaluation.

    Attributes:
        pretrained: weights: a checkpoint, weights file, Hugging Face folder or exported .onnx; or a
            folder of several, each of which is evaluated, newest first.
        interpolation: how images are resized: opencv_bilinear as the original, without
            antialiasing; pillow_bilinear as torchvision and pillow_bicubic as timm, with it;
            pillow_nearest as Keras (default: what the weights were validated with, else
            opencv_bilinear).
    """

    section: ClassVar[str] = "network"
    pretrained: AnyPath
    interpolation: Interpolation | None = None

    def check(self) -> None:
        """Refuse an empty path."""
        if not self.pretrained:
            raise UsageError("--pretrained must name weights to evaluate, got an empty path")


@dataclass(frozen=True, kw_only=True)
class EvalOutputSettings(Settings):
    """Where the log and the results are written.

    Attributes:
        log_path: parent of the dated folder with the log and the results.
        output_dir: that folder itself, in place of a dated one under log_path (default: none).
    """

    section: ClassVar[str] = "output"
    log_path: Folder = "output"
    output_dir: Folder | None = None


@dataclass(frozen=True, kw_only=True)
class EvalConfig(
    EvalDataSettings,
    LabelTableSettings,
    EvalWeightsSettings,
    ViewSettings,
    BatchSettings,
    PrecisionSettings,
    DeviceSettings,
    WorkerSettings,
    ProcessSettings,
    EvalOutputSettings,
):
    """Measure how many images weights classify correctly, each image exactly once."""
