"""The settings of ``probe``."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from densenet121.config.labels import TaskSettings
from densenet121.config.shared import (
    AnyPath,
    BadImageSettings,
    BatchSettings,
    DeviceSettings,
    File,
    PrecisionSettings,
    Settings,
    WeightsSettings,
    WorkerSettings,
)
from densenet121.config.values import at_least, between, names_weights
from densenet121.utils.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ProbeDataSettings(BadImageSettings):
    """The images and the weights of a probe.

    Attributes:
        data_dir: training images: a folder that holds `train/` and `val/`, or another source that
            `train` reads.
        val_dir: images to measure on (default: the `val` beside `train`).
        exclude: file that names images to leave out, one per line, as `audit` writes it (default:
            none).
        pretrained: weights that give the features; their classes may be others.
        output: file for the weights with the new head (default: beside the old ones, with
            "_probe" in the name).
    """

    section: ClassVar[str] = "data"
    data_dir: AnyPath
    val_dir: AnyPath | None = None
    exclude: File | None = None
    pretrained: AnyPath
    output: File | None = None

    def check(self) -> None:
        """Refuse empty paths."""
        if not self.data_dir or not self.pretrained:
            raise UsageError("--data_dir and --pretrained must not be empty")
        names_weights("output", self.output)


@dataclass(frozen=True, kw_only=True)
class HeadSettings(Settings):
    """How the features are classified.

    Attributes:
        method: logistic is logistic regression on standardised features, of several labels one for
            each; class_mean takes the class
            whose mean is nearest, on standardised features; knn takes the majority of the nearest
            training images by cosine, which is no linear layer, so it only prints its accuracy.
        C: inverse strength of the regularisation of logistic; smaller is stronger (default: the one
            of 0.0001, 0.001, 0.01, 0.1, 1 with the lowest log loss in cross-validation on the
            training images).
        neighbours: training images that vote in knn (default: 5).
        seed: seed of the folds of the cross-validation.
    """

    section: ClassVar[str] = "head"
    method: Literal["logistic", "class_mean", "knn"] = "logistic"
    C: float | None = None
    neighbours: int | None = None
    seed: int = 1

    @property
    def num_neighbours(self) -> int:
        """The number of neighbours, with the default in place of None."""
        return 5 if self.neighbours is None else self.neighbours

    def check(self) -> None:
        """Refuse values out of range, and settings of another method."""
        if self.C is not None and not 1e-9 <= self.C <= 1e9:
            raise UsageError(f"--C must be from 1e-9 to 1e9, got {self.C}")
        at_least("neighbours", self.neighbours, 1, "image")
        between("seed", self.seed, 0, 2**32 - 1)
        if self.C is not None and self.method != "logistic":
            raise UsageError(f"--C is for --method logistic, but --method is {self.method}")
        if self.neighbours is not None and self.method != "knn":
            raise UsageError(f"--neighbours is for --method knn, but --method is {self.method}")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(
    ProbeDataSettings,
    TaskSettings,
    HeadSettings,
    WeightsSettings,
    BatchSettings,
    PrecisionSettings,
    DeviceSettings,
    WorkerSettings,
):
    """Fit a new head on the features of frozen weights, in seconds, and write ordinary weights."""

    def check(self) -> None:
        """Refuse a file for what cannot be written, and a method that needs one class per image."""
        if self.task == "multilabel" and self.method != "logistic":
            raise UsageError(
                f"--method {self.method} needs one class per image, not --task {self.task}"
            )
        if self.method == "knn" and self.output is not None:
            raise UsageError(
                "--output needs a linear layer, which --method knn is not; omit it, or use "
                "--method class_mean or logistic"
            )
