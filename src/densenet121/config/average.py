"""The settings of ``average``."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from densenet121.config.labels import LabelTableSettings
from densenet121.config.shared import (
    AnyPath,
    BatchSettings,
    DeviceSettings,
    File,
    PrecisionSettings,
    Settings,
    WorkerSettings,
)
from densenet121.config.values import at_least, between, names_weights
from densenet121.utils.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class MemberSettings(Settings):
    """What is averaged.

    Attributes:
        inputs: weights of the same network, classes, task and preprocessing, two or more.
        output: file for the averaged weights.
        method: uniform averages all inputs; greedy begins with the best one and adds the others,
            best first, as long as the metric on the validation images does not fall.
    """

    section: ClassVar[str] = "weights"
    positional: ClassVar[tuple[str, ...]] = ("inputs",)
    inputs: list[str]
    output: File
    method: Literal["uniform", "greedy"] = "uniform"

    def check(self) -> None:
        """Refuse a single file, the same file twice, and greedy without images."""
        if len(self.inputs) < 2:
            raise UsageError("name two or more weights files to average")
        twice = [name for name in self.inputs if self.inputs.count(name) > 1]
        if twice:
            raise UsageError(f"{twice[0]} is named twice")
        if not self.output:
            raise UsageError("--output must name a file, got an empty path")
        names_weights("output", self.output)


@dataclass(frozen=True, kw_only=True)
class AverageDataSettings(Settings):
    """The images for batch norm and for the choice of members.

    Attributes:
        data_dir: images: a folder that holds `train/` and `val/`, or another source that `train`
            reads; the training images give the statistics of batch norm (default: none; the
            statistics are averaged too, which fits the averaged weights less well).
        val_dir: images to validate on (default: the `val` beside `train`, else none).
        exclude: file that names images to leave out, one per line, as `audit` writes it (default:
            none).
        statistics_images: largest number of training images for the statistics of batch norm,
            drawn at random; a last batch that is not full is left out.
        seed: seed of that draw.
    """

    section: ClassVar[str] = "data"
    data_dir: AnyPath | None = None
    val_dir: AnyPath | None = None
    exclude: File | None = None
    statistics_images: int = 10_000
    seed: int = 1

    def check(self) -> None:
        """Refuse counts out of range, and settings of images that are not given."""
        at_least("statistics_images", self.statistics_images, 2, "images")
        between("seed", self.seed, 0, 2**63 - 1)
        if self.data_dir is None:
            for name in ("val_dir", "exclude"):
                if getattr(self, name) is not None:
                    raise UsageError(f"--{name} needs --data_dir")


@dataclass(frozen=True, kw_only=True)
class AverageConfig(
    MemberSettings,
    AverageDataSettings,
    LabelTableSettings,
    BatchSettings,
    PrecisionSettings,
    DeviceSettings,
    WorkerSettings,
):
    """Average several weights of one network into one (a model soup)."""

    def check(self) -> None:
        """Refuse a choice of members, and a table, without images."""
        if self.names_a_table and self.data_dir is None:
            raise UsageError("the settings of a table of labels need --data_dir")
        if self.method == "greedy" and self.data_dir is None:
            raise UsageError("--method greedy needs --data_dir, images to measure the members on")
